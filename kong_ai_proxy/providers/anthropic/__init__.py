"""Anthropic: https://platform.claude.com/docs/en/api/overview. Also what Amazon and Google, who
serve the same models, want otherwise in a body of the same format.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace

from kong_ai_proxy.config import ModelOptions
from kong_ai_proxy.formats import anthropic, openai
from kong_ai_proxy.formats.anthropic.models import UNKNOWN, generation
from kong_ai_proxy.formats.json_object import REMOVED
from kong_ai_proxy.providers.anthropic.batches import BATCHES
from kong_ai_proxy.providers.base import Call, Endpoint, Native, Provider
from kong_ai_proxy.providers.named_models import held

_VERSION = "2023-06-01"
"""Of the API, where neither the configuration nor the client names one."""
_WITHOUT_SAMPLING = "2026-10-21"
"""The version of the API from which on it refuses sampling parameters, whatever the model:
https://platform.claude.com/docs/en/api/migration-2026-10-21."""

SAMPLING = frozenset({"temperature", "top_p", "top_k"})

REFUSED_BY_MODEL: tuple[tuple[re.Pattern[str], frozenset[str]], ...] = (
    (
        re.compile(
            r"claude-(?:fable|mythos)"
            r"|claude-[a-z]+-(?:4[-.](?:[7-9]|[1-9][0-9])|[5-9]|[1-9][0-9])(?![0-9])"
        ),
        SAMPLING,
    ),
)
"""Opus 4.7 and whatever came after it answer sampling parameters with a 400, wherever they are
served: https://platform.claude.com/docs/en/about-claude/models/migration-guide."""

BEDROCK_VERSION = "bedrock-2023-05-31"
VERTEX_VERSION = "vertex-2023-10-16"

BEDROCK_BETAS = frozenset(
    {
        "compact-2026-01-12",
        "computer-use-2024-10-22",
        "computer-use-2025-01-24",
        "computer-use-2025-11-24",
        "context-1m-2025-08-07",
        "context-management-2025-06-27",
        "dev-full-thinking-2025-05-14",
        "effort-2025-11-24",
        "interleaved-thinking-2025-05-14",
        "output-128k-2025-02-19",
        "token-efficient-tools-2025-02-19",
        "tool-examples-2025-10-29",
        "tool-search-tool-2025-10-19",
    }
)
"""Betas that Bedrock knows; it answers any other one with "invalid beta flag".
https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-anthropic-claude-messages-request-response.html"""


def _without_empty_thoughts(body: Mapping[str, object]) -> dict[str, object]:
    """Thoughts that have neither a text nor a signature are a 400; signed ones may have no text
    (https://platform.claude.com/docs/en/build-with-claude/extended-thinking)."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not any(map(_has_empty_thoughts, messages)):
        return {}
    return {"messages": [_cleaned(m) if _has_empty_thoughts(m) else m for m in messages]}


def _has_empty_thoughts(message: object) -> bool:
    content = message.get("content") if isinstance(message, dict) else None
    return isinstance(content, list) and any(map(_is_empty_thought, content))


def _is_empty_thought(block: object) -> bool:
    if not isinstance(block, dict) or block.get("type") != "thinking":
        return False
    return not block.get("thinking") and not block.get("signature")


def _cleaned(message: Mapping[str, object]) -> dict[str, object]:
    content = message["content"]
    assert isinstance(content, list)
    return {**message, "content": [block for block in content if not _is_empty_thought(block)]}


def _change(body: Mapping[str, object], call: Call) -> Mapping[str, object]:
    return _without_empty_thoughts(body)


def _known(names: Iterable[object]) -> list[str]:
    return [name for name in dict.fromkeys(map(str, names)) if name in BEDROCK_BETAS]


def bedrock_change(body: Mapping[str, object], call: Call) -> Mapping[str, object]:
    """Makes a Messages body one for Bedrock's InvokeModel and InvokeModelWithResponseStream, where
    model and streaming are said by the path and the version by the body."""
    changes = _without_empty_thoughts(body)
    betas = body.get("anthropic_beta")
    if isinstance(betas, list):
        changes["anthropic_beta"] = _known(betas) or REMOVED
    choice = body.get("tool_choice")
    is_forced = isinstance(choice, dict) and choice.get("type") in ("any", "tool")
    if is_forced and "claude-sonnet-5" in call.model:
        # There, though not at Anthropic's, this model demands it for a forced call (migration
        # guide, "Migrating to Claude Sonnet 5").
        changes["thinking"] = {"type": "disabled"}
    return changes | _hosted(body, call, BEDROCK_VERSION, ("model", "stream"))


def vertex_change(body: Mapping[str, object], call: Call) -> Mapping[str, object]:
    """Makes a Messages body one for Vertex AI's rawPredict and streamRawPredict, where the model is
    said by the path and the version by the body.
    https://docs.cloud.google.com/vertex-ai/generative-ai/docs/partner-models/claude/use-claude"""
    changes = _without_empty_thoughts(body)
    changes |= _hosted(body, call, VERTEX_VERSION, ("model",))
    output = body.get("output_config")
    # Known there from 4.6 on (.../partner-models/claude/structured_outputs). Of older models only
    # the effort is left out, without which they work; a schema that cannot be kept is an error.
    if isinstance(output, dict) and UNKNOWN < generation(call.model) < (4, 6):
        kept = {name: value for name, value in output.items() if name != "effort"}
        changes["output_config"] = kept or REMOVED
    return changes


def _hosted(
    body: Mapping[str, object], call: Call, version: str, in_path: tuple[str, ...]
) -> dict[str, object]:
    changes: dict[str, object] = {name: REMOVED for name in in_path if name in body}
    if not body.get("anthropic_version"):
        changes["anthropic_version"] = call.options.anthropic_version or version
    return changes


# The number of a batch and what can be asked of it, and nothing that leads out of them.
_BELOW_BATCHES = re.compile(r"/v1/messages/batches(?:/[A-Za-z0-9_-]+(?:/results|/cancel)?)?")

_BATCHED_MODELS = held("requests.*.params.model")


def _native(native: Native, call: Call) -> Endpoint | None:
    """What no other format has: https://platform.claude.com/docs/en/api/messages-count-tokens,
    https://platform.claude.com/docs/en/api/creating-message-batches."""
    if native.operation == "messages/count_tokens":
        return Endpoint("/v1/messages/count_tokens")
    path = native.path.rstrip("/")
    if native.operation == "messages/batches" and _BELOW_BATCHES.fullmatch(path):
        return Endpoint(path, change=_BATCHED_MODELS)
    return None


def _headers(options: ModelOptions) -> Mapping[str, str]:
    return {"anthropic-version": options.anthropic_version or _VERSION}


def _variant(options: ModelOptions) -> Provider:
    version = options.anthropic_version or _VERSION
    return _SINCE_2026 if version >= _WITHOUT_SAMPLING else ANTHROPIC


ANTHROPIC = Provider(
    name="anthropic",
    base_url="https://api.anthropic.com:443",
    paths={openai.CHAT: "/v1/messages", openai.COMPLETIONS: "/v1/complete"},
    codecs={openai.CHAT: anthropic.MESSAGES, openai.COMPLETIONS: anthropic.COMPLETE},
    changes={openai.CHAT: _change},
    flows={openai.BATCHES: BATCHES},
    native=_native,
    natives=frozenset({"anthropic"}),
    variant=_variant,
    headers=_headers,
    refused_by_model=REFUSED_BY_MODEL,
)

_SINCE_2026 = replace(ANTHROPIC, refused_by_model=((re.compile(""), SAMPLING),))
