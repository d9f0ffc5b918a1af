"""What models behind Converse accept, as far as requests differ between them.

Converse has one request for all models, but what it does not know itself goes into
`additionalModelRequestFields` under the model's own names. The id says whose model it is, also
that of an inference profile (us.anthropic.claude-...) and the ARN of either; that of an
application's own profile, of a provisioned or an imported model does not.
https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters.html
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from kong_ai_proxy.formats.anthropic import thinking as anthropic_thinking
from kong_ai_proxy.formats.anthropic.models import generation
from kong_ai_proxy.formats.conversation import (
    Conversation,
    Message,
    Thinking,
    ToolResult,
    effort,
)

_CLAUDE = re.compile(r"(?:^|[./])anthropic\.claude")
_NOVA = re.compile(r"(?:^|[./])amazon\.nova-")
_NOVA_2 = re.compile(r"(?:^|[./])amazon\.nova-2-")
_GPT_OSS = re.compile(r"(?:^|[./])openai\.gpt-oss")
_TOP_K = re.compile(r"(?:^|[./])(?:anthropic\.claude|mistral\.)")
_COHERE = re.compile(r"(?:^|[./])cohere\.command")
_NO_SYSTEM = re.compile(
    r"(?:^|[./])(?:amazon\.titan-|cohere\.command-(?:light-)?text"
    r"|mistral\.(?:mistral-7b-instruct|mixtral-8x7b-instruct))"
)
_THINKING_FIELDS = frozenset({"output_config", "thinking"})
_NOVA_EFFORTS = {"minimal": "low", "xhigh": "high"}
_GPT_EFFORTS = {"none": "low", "minimal": "low", "xhigh": "high"}


def is_claude(model: str) -> bool:
    """Whether the id says that this is a Claude."""
    return _CLAUDE.search(model) is not None


def takes_system(model: str) -> bool:
    """Whether the model has system prompts.
    https://docs.aws.amazon.com/bedrock/latest/userguide/conversation-inference-supported-models-features.html"""
    return _NO_SYSTEM.search(model) is None


def caches_prompts(model: str) -> bool:
    """Whether a prompt can have cache points: Claude and Nova know them, and an id that does not
    say whose model it is may be one of these. Others answer them with an error.
    https://docs.aws.amazon.com/bedrock/latest/userguide/prompt-caching.html"""
    own = model.rpartition("/")[2]
    return "." not in own or bool(_CLAUDE.search(model) or _NOVA.search(model))


def caches_tools(model: str) -> bool:
    """Whether tools can be cached: Nova has that for messages and system prompts only."""
    return caches_prompts(model) and not _NOVA.search(model)


def top_k(model: str, value: object) -> Mapping[str, object]:
    """`top_k` as the model calls it; nothing where it has none."""
    if _TOP_K.search(model):
        return {"top_k": value}
    if _NOVA.search(model):
        return {"inferenceConfig": {"topK": value}}
    return {"k": value} if _COHERE.search(model) else {}


def takes_one_of_temperature_and_top_p(model: str) -> bool:
    """Claude from 4.1 on refuses both at once.
    https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-anthropic-claude-messages-request-response.html"""
    return is_claude(model) and generation(model) >= (4, 1)


class Asked(NamedTuple):
    """How a model is asked to think."""

    fields: Mapping[str, object] = MappingProxyType({})
    """Of `additionalModelRequestFields`."""
    dropped: tuple[str, ...] = ()
    """Settings that the model does not take, or not together with that."""


def thinking(conversation: Conversation) -> Asked:
    """What `reasoning` is for this model."""
    asked, model = conversation.reasoning, conversation.model
    if asked is None:
        return Asked()
    if is_claude(model):
        return _claude(conversation)
    wanted = asked.effort or effort(asked.budget or 0)
    if _GPT_OSS.search(model):
        return Asked({"reasoning_effort": _GPT_EFFORTS.get(wanted, wanted)})
    if wanted == "none":
        return Asked()
    if _NOVA_2.search(model):
        return _nova(_NOVA_EFFORTS.get(wanted, wanted), conversation)
    return Asked(dropped=("reasoning_effort",))


def _nova(wanted: str, conversation: Conversation) -> Asked:
    """https://docs.aws.amazon.com/nova/latest/nova2-userguide/extended-thinking.html"""
    unfit = ("max_tokens", "temperature", "top_p") if wanted == "high" else ()
    fields = {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": wanted}}
    return Asked(fields, tuple(name for name in unfit if name in conversation.settings))


def _claude(conversation: Conversation) -> Asked:
    """As in Anthropic's own format."""
    said = conversation.settings
    body = {name: said[name] for name in ("temperature", "top_p", "top_k") if name in said}
    if conversation.tool_choice and conversation.tool_choice.mode in ("required", "tool"):
        body["tool_choice"] = {"type": "any"}
    turns = [(turn.role, [{"type": _first(turn)}]) for turn in conversation.turns]
    # The room for the answer does not matter: Converse needs no limit.
    dropped = anthropic_thinking.put(body, conversation, turns, room=0)
    fields = {name: value for name, value in body.items() if name in _THINKING_FIELDS}
    return Asked(fields, tuple(dropped))


def _first(turn: Message) -> object:
    """What a turn begins with in the request, in Anthropic's words."""
    if any(isinstance(block, ToolResult) for block in turn.blocks):
        return "tool_result"
    first = turn.blocks[0] if turn.blocks else None
    signed = isinstance(first, Thinking) and (first.signature or first.redacted)
    return "thinking" if signed else "text"
