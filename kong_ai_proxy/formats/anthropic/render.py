"""Writes requests for providers in Anthropic's Messages format.

https://platform.claude.com/docs/en/api/messages/create
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from kong_ai_proxy.formats.anthropic import media as anthropic_media
from kong_ai_proxy.formats.anthropic import thinking as anthropic_thinking
from kong_ai_proxy.formats.anthropic.models import generation, has_structured_outputs
from kong_ai_proxy.formats.anthropic.request import SERVICE_TIERS
from kong_ai_proxy.formats.conversation import (
    Block,
    Conversation,
    Media,
    Message,
    Refusal,
    Rendered,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
    with_extra,
)
from kong_ai_proxy.formats.errors import FormatError
from kong_ai_proxy.formats.fields import arguments_object
from kong_ai_proxy.formats.gemini.names import SIGNED

MAX_TOKENS = 4096
"""The most tokens of an answer where the client sets no limit: the API demands one. Every model
takes this one. Tokens for thinking come on top."""

_OWN = frozenset(
    {
        "billing_policy",
        "cache_control",
        "compaction",
        "container",
        "context_management",
        "diagnostics",
        "fallback_credit_token",
        "fallbacks",
        "inference_geo",
        "mcp_servers",
        "speed",
        "thread",
        "user_profile_id",
    }
)
"""Settings that are the format's own, also as betas."""

_NEUTRAL: Mapping[str, object] = {
    "best_of": 1,
    "echo": False,
    "frequency_penalty": 0,
    "logprobs": False,
    "n": 1,
    "presence_penalty": 0,
}
"""What changes nothing, so that nothing is lost without it."""

_MODES = {"auto": "auto", "none": "none", "required": "any"}
_TIERS = {theirs: own for own, theirs in SERVICE_TIERS.items()}
_ODD_IN_ID = re.compile(r"[^a-zA-Z0-9_-]")
_NATIVE_TOOL = re.compile(r"_[0-9]{8}$|^mcp_toolset$")
_MAX_DEPTH = 64  # of a schema that is looked into

Dict = dict[str, object]
Turn = tuple[str, list[Dict]]


def render(conversation: Conversation) -> Rendered:
    """A provider's request. Raises FormatError for content that cannot be said."""
    system, turns = _content(conversation)
    dropped: list[str] = []
    body: Dict = {"model": conversation.model} if conversation.model else {}
    body["max_tokens"] = MAX_TOKENS
    if system:
        body["system"] = _short(system)
    body["messages"] = [{"role": role, "content": _short(blocks)} for role, blocks in turns]
    if conversation.stream:
        body["stream"] = True
    dropped += _put_tools(body, conversation)
    dropped += _put_output(body, conversation)
    dropped += _put_settings(body, conversation)
    dropped += anthropic_thinking.put(body, conversation, turns, MAX_TOKENS)
    if conversation.has_names:
        dropped.append("name")
    return Rendered(with_extra(body, conversation.extra), tuple(dict.fromkeys(dropped)))


# --- content ---


def _content(conversation: Conversation) -> tuple[list[Dict], list[Turn]]:
    """The system prompt and the turns. Where nobody but the system speaks, it is said by the
    user: a request needs a message."""
    system = [_text(text) for text in conversation.system if _is_said(text.text)]
    turns = _turns(conversation.messages)
    if not turns and system:
        return [], [("user", system)]
    if not turns:
        raise FormatError("messages: expected at least one message that says something")
    if turns[0][0] == "assistant":
        # The first message has to be the user's.
        turns.insert(0, ("user", [{"type": "text", "text": "."}]))
    _trim(turns)
    return system, turns


def _turns(messages: Iterable[Message]) -> list[Turn]:
    """The turns, which alternate. Results of tools come first in theirs, as the API demands:
    https://platform.claude.com/docs/en/agents-and-tools/tool-use/handle-tool-calls"""
    turns: list[Turn] = []
    for index, message in enumerate(messages):
        if message.role == "system":
            continue
        blocks = _blocks(message, f"messages[{index}]")
        if blocks and turns and turns[-1][0] == message.role:
            turns[-1][1].extend(blocks)
        elif blocks:
            turns.append((message.role, blocks))
    for role, blocks in turns:
        if role == "user":
            blocks.sort(key=lambda block: block["type"] != "tool_result")
    return turns


def _trim(turns: list[Turn]) -> None:
    """A last message of the assistant, which the answer continues, may not end with whitespace."""
    role, blocks = turns[-1]
    if role == "assistant" and blocks[-1]["type"] == "text":
        text = str(blocks[-1]["text"])
        blocks[-1]["text"] = text.rstrip()


def _blocks(message: Message, where: str) -> list[Dict]:
    found = (
        _block(block, message.role, f"{where}.content[{index}]")
        for index, block in enumerate(message.blocks)
    )
    return [block for block in found if block is not None]


def _block(block: Block, role: str, where: str) -> Dict | None:
    """None for what may not be sent: texts without a word, and thoughts without a signature."""
    match block:
        case Text(text):
            return _text(block) if _is_said(text) else None
        case Refusal(text):
            return {"type": "text", "text": text} if _is_said(text) else None
        case Media():
            if role == "assistant":
                raise FormatError(f"{where}: the assistant cannot have sent media in this format")
            return _cached(anthropic_media.render(block, where), block.cache)
        case Thinking(text, signature, redacted):
            if redacted:
                return {"type": "redacted_thinking", "data": redacted}
            thinking: Dict = {"type": "thinking", "thinking": text, "signature": signature}
            return thinking if signature and not signature.startswith(SIGNED) else None
        case ToolCall():
            return _tool_use(block, where)
        case ToolResult():
            return _tool_result(block, where)


def _tool_use(call: ToolCall, where: str) -> Dict:
    block: Dict = {
        "type": "tool_use",
        "id": _call_id(call.id),
        "name": call.name,
        "input": arguments_object(call.arguments, f"{where}.arguments"),
    }
    return _cached(block, call.cache)


def _tool_result(result: ToolResult, where: str) -> Dict:
    block: Dict = {"type": "tool_result", "tool_use_id": _call_id(result.call_id)}
    content: list[Dict] = []
    for index, part in enumerate(result.content):
        if isinstance(part, Media):
            place = f"{where}.content[{index}]"
            content.append(_cached(anthropic_media.render(part, place), part.cache))
        elif _is_said(part.text):
            content.append(_text(part))
    if content:
        block["content"] = _short(content)
    if result.is_error:
        block["is_error"] = True
    return _cached(block, result.cache)


def _call_id(identity: str) -> str:
    """Other formats' ids have characters that this one refuses."""
    return _ODD_IN_ID.sub("_", identity)


def _text(text: Text) -> Dict:
    return _cached({"type": "text", "text": text.text}, text.cache)


def _cached(block: Dict, cache: str | None) -> Dict:
    if cache is not None:
        lifetime = {"ttl": cache} if cache else {}
        block["cache_control"] = {"type": "ephemeral", **lifetime}
    return block


def _is_said(text: str) -> bool:
    """The API refuses texts without a visible character."""
    return bool(text) and not text.isspace()


def _short(blocks: Sequence[Dict]) -> object:
    """One plain text stands for itself."""
    if len(blocks) == 1 and blocks[0].keys() == {"type", "text"}:
        return blocks[0]["text"]
    return list(blocks)


# --- everything else ---


def _put_tools(body: Dict, conversation: Conversation) -> list[str]:
    for index, native in enumerate(conversation.native_tools):
        if not _NATIVE_TOOL.search(str(native.get("type", ""))):
            raise FormatError(
                f"tools[{index}]: expected a function or one of Anthropic's own tools, such as "
                "web_search_20250305"
            )
    model = conversation.model
    tools = [*(_tool(tool, model) for tool in conversation.tools), *conversation.native_tools]
    choice, parallel = conversation.tool_choice, conversation.parallel_tool_calls
    if not tools:
        unused = {"tool_choice": choice, "parallel_tool_calls": parallel}
        return [name for name, value in unused.items() if value is not None]
    body["tools"] = tools
    if choice is None and parallel is not False:
        return []
    rendered: Dict = {"type": "auto"}
    if choice is not None and choice.mode == "tool":
        rendered = {"type": "tool", "name": choice.name}
    elif choice is not None:
        rendered["type"] = _MODES[choice.mode]
    if parallel is False and rendered["type"] != "none":
        rendered["disable_parallel_tool_use"] = True
    body["tool_choice"] = rendered
    return []


def _tool(tool: Tool, model: str) -> Dict:
    schema: Dict = {"type": "object", **(tool.parameters or {"properties": {}})}
    rendered: Dict = {"name": tool.name, "input_schema": schema}
    if tool.description:
        rendered["description"] = tool.description
    if tool.strict and has_structured_outputs(model):
        rendered["strict"] = True
    return _cached(rendered, tool.cache)


def _put_output(body: Dict, conversation: Conversation) -> list[str]:
    """https://platform.claude.com/docs/en/build-with-claude/structured-outputs, which know no JSON
    without a schema."""
    output = conversation.output
    if output is None:
        return []
    if output.schema is None or not has_structured_outputs(conversation.model):
        return ["response_format"]
    body["output_config"] = {
        "format": {"type": "json_schema", "schema": _closed(output.schema, _MAX_DEPTH)}
    }
    return []


def _closed(schema: object, depth: int) -> object:
    """`schema` with `additionalProperties: false` in each object that does not say otherwise: the
    API refuses one without."""
    if not depth:
        return schema
    if isinstance(schema, list):
        return [_closed(each, depth - 1) for each in schema]
    if not isinstance(schema, Mapping):
        return schema
    found = {name: _closed(value, depth - 1) for name, value in schema.items()}
    if found.get("type") == "object":
        found.setdefault("additionalProperties", False)
    return found


def _put_settings(body: Dict, conversation: Conversation) -> list[str]:
    dropped: list[str] = []
    for name, value in conversation.settings.items():
        if name in _OWN or name in ("max_tokens", "top_k", "top_p"):
            body[name] = value
        elif name == "temperature":
            body[name], is_capped = _temperature(value)
            dropped += [name] if is_capped else []
        elif name == "stop":
            dropped += _put_stop(body, value)
        elif name in ("user", "safety_identifier") and "metadata" not in body:
            body["metadata"] = {"user_id": value}
        elif name == "service_tier" and isinstance(value, str) and value in _TIERS:
            body[name] = _TIERS[value]
        elif name == "output_config" and isinstance(value, dict):
            body[name] = value | _object(body, name)
        elif name not in _NEUTRAL or value != _NEUTRAL[name]:
            dropped.append(name)
    # Models from Claude 4 on take one of the two.
    if "temperature" in body and "top_p" in body and generation(conversation.model) >= (4, 0):
        del body["top_p"]
        dropped.append("top_p")
    return dropped


def _object(body: Dict, name: str) -> Dict:
    found = body.get(name)
    return found if isinstance(found, dict) else {}


def _temperature(value: object) -> tuple[object, bool]:
    """OpenAI's goes up to 2, this format's to 1: it is cut there, as Anthropic does for clients of
    OpenAI's: https://platform.claude.com/docs/en/api/openai-sdk"""
    is_capped = isinstance(value, int | float) and value > 1
    return (1 if is_capped else value), is_capped


def _put_stop(body: Dict, value: object) -> list[str]:
    """The API refuses a sequence without a visible character."""
    texts = value if isinstance(value, list) else []
    kept = [text for text in texts if isinstance(text, str) and _is_said(text)]
    if kept:
        body["stop_sequences"] = kept
    return ["stop"] if len(kept) < len(texts) else []
