"""Requests to Bedrock's Converse and ConverseStream.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html

What Converse wants of a conversation and others do not: it begins with the user and the roles
alternate; no text is blank; results of tools come before anything else in their message; a
conversation with calls in it has its tools beside it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from zlib import crc32

from kong_ai_proxy.formats.bedrock import media as bedrock_media
from kong_ai_proxy.formats.bedrock import models as bedrock_models
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
from kong_ai_proxy.formats.fields import arguments_object, json_text, wrong
from kong_ai_proxy.formats.gemini.names import SIGNED

_INFERENCE = {
    "max_tokens": "maxTokens",
    "temperature": "temperature",
    "top_p": "topP",
    "stop": "stopSequences",
}
_OWN = (
    "guardrailConfig",
    "performanceConfig",
    "requestMetadata",
    "promptVariables",
    "additionalModelResponseFieldPaths",
    "outputConfig",
    "serviceTier",
)
"""Members that go through as they came, whatever format they came in."""
_ADDITIONAL = "additionalModelRequestFields"
_TIERS = frozenset({"default", "flex", "priority", "reserved"})
_LIFETIMES = frozenset({"5m", "1h"})
_TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_CALL_ID = re.compile(r"[a-zA-Z0-9_.:-]{1,64}")
_NOT_IN_IDS = re.compile(r"[^a-zA-Z0-9_.:-]")

Json = dict[str, object]


def render(conversation: Conversation) -> Rendered:
    """A request's body; model and streaming are said by its path. Raises FormatError."""
    request = _Request(conversation)
    body: Json = {}
    for name, value in (
        ("system", request.system()),
        ("messages", request.messages()),
        ("toolConfig", request.tool_config()),
        *request.settings().items(),
    ):
        if value:
            body[name] = value
    return Rendered(with_extra(body, conversation.extra), tuple(request.dropped))


def _merged(body: Mapping[str, object], more: Mapping[str, object]) -> Json:
    """`more` put into `body`, objects into objects."""
    found = dict(body)
    for name, value in more.items():
        here = found.get(name)
        both = isinstance(here, dict) and isinstance(value, dict)
        found[name] = _merged(here, value) if both else value  # type: ignore[arg-type]
    return found


class _Request:
    """The parts of one request, and what it cannot carry."""

    def __init__(self, conversation: Conversation) -> None:
        self._said = conversation
        self._model = conversation.model
        self._caches = bedrock_models.caches_prompts(conversation.model)
        self._documents: set[str] = set()
        self._calls: dict[str, None] = {}  # names of the tools that were called, in order
        self._asked = bedrock_models.thinking(conversation)
        self.dropped: list[str] = [*self._asked.dropped]
        if conversation.has_names:
            self.dropped.append("name")
        if conversation.has_cache_points and not self._caches:
            self.dropped.append("cache_control")

    # --- what is said ---

    def system(self) -> list[Json]:
        """All system texts, each with its cache point. Raises FormatError where the model has
        none, with Kong's words."""
        blocks = [block for block in self._said.system if block.text.strip()]
        if blocks and not bedrock_models.takes_system(self._model):
            raise FormatError(f"system prompts are unsupported for model '{self._model}'")
        return [part for block in blocks for part in (_text(block), *self._point(block.cache))]

    def messages(self) -> list[Json]:
        """The turns: neighbours of one role are one."""
        turns: list[tuple[str, list[list[Json]]]] = []
        for index, message in enumerate(self._said.messages):
            blocks = list(self._blocks(message, index)) if message.role != "system" else []
            if not blocks:
                continue
            if turns and turns[-1][0] == message.role:
                turns[-1][1].extend(blocks)
            else:
                turns.append((message.role, blocks))
        if not turns and not self._said.settings.get("promptVariables"):
            wrong("messages", "at least one message of the user that is not blank")
        if turns and turns[0][0] != "user":
            wrong("messages", "the user's message first: Bedrock refuses an assistant's there")
        return [{"role": role, "content": _in_order(blocks)} for role, blocks in turns]

    def _blocks(self, message: Message, index: int) -> Iterable[list[Json]]:
        """Each block with the cache point that follows it."""
        for place, block in enumerate(message.blocks):
            content = self._block(block, f"messages[{index}].content[{place}]")
            if content:
                yield [content, *self._point(getattr(block, "cache", None))]

    def _block(self, block: Block, where: str) -> Json:
        match block:
            case Text() | Refusal():
                return _text(block) if block.text.strip() else {}
            case Media():
                return bedrock_media.rendered(block, where, self._documents)
            case Thinking():
                return _thought(block)
            case ToolCall():
                return self._call(block, where)
            case ToolResult():
                return self._result(block, where)

    def _call(self, call: ToolCall, where: str) -> Json:
        self._calls[call.name] = None
        given = arguments_object(call.arguments, f"{where}.arguments")
        name = _tool_name(call.name, f"{where}.name")
        return {"toolUse": {"toolUseId": _call_id(call.id, where), "name": name, "input": given}}

    def _result(self, result: ToolResult, where: str) -> Json:
        content: list[Json] = []
        for place, block in enumerate(result.content):
            if isinstance(block, Media):
                at = f"{where}.content[{place}]"
                content.append(bedrock_media.rendered(block, at, self._documents))
            elif block.text.strip():
                content.append(_text(block))
        rendered: Json = {"toolUseId": _call_id(result.call_id, where), "content": content}
        if result.is_error:
            rendered["status"] = "error"  # only Claude and Nova have it: not said where all is well
        return {"toolResult": rendered}

    def _point(self, cache: str | None) -> list[Json]:
        if cache is None or not self._caches:
            return []
        lifetime = {"ttl": cache} if cache in _LIFETIMES else {}
        return [{"cachePoint": {"type": "default", **lifetime}}]

    # --- tools ---

    def tool_config(self) -> Json:
        """The tools and how to choose among them. Comes after `messages`."""
        tools = self._tools()
        choice = self._choice() if tools else {}
        return {"tools": tools, **({"toolChoice": choice} if choice else {})} if tools else {}

    def _tools(self) -> list[Json]:
        said = self._said
        if said.tool_choice and said.tool_choice.mode == "none" and not self._calls:
            return []
        rendered = (self._tool(tool, index) for index, tool in enumerate(said.tools))
        tools = [part for parts in rendered for part in parts]
        tools += [self._native_tool(tool) for tool in said.native_tools]
        return tools or [_called(name) for name in self._calls]

    def _choice(self) -> Json:
        choice = self._said.tool_choice
        if choice is None or choice.mode == "auto":
            return {"auto": {}} if choice else {}
        if choice.mode == "none":
            # There is no such choice, and without tools the calls so far would be refused.
            self.dropped.append("tool_choice")
            return {}
        return {"tool": {"name": choice.name}} if choice.mode == "tool" else {"any": {}}

    def _tool(self, tool: Tool, index: int) -> list[Json]:
        spec: Json = {"name": _tool_name(tool.name, f"tools[{index}].name")}
        if tool.description.strip():
            spec["description"] = tool.description
        schema = tool.parameters if tool.parameters is not None else {"type": "object"}
        spec["inputSchema"] = {"json": schema}
        if tool.strict:
            spec["strict"] = True
        point = self._point(tool.cache) if bedrock_models.caches_tools(self._model) else []
        return [{"toolSpec": spec}, *point]

    def _native_tool(self, tool: Mapping[str, object]) -> Json:
        if "systemTool" in tool:
            return dict(tool)
        kind = tool.get("type") or next(iter(tool), "")
        raise FormatError(f"tools: Bedrock's Converse has no tool of the type {kind!r}")

    # --- settings ---

    def settings(self) -> Json:
        """Everything else."""
        left = {n: value for n, value in self._said.settings.items() if n not in self.dropped}
        one = bedrock_models.takes_one_of_temperature_and_top_p(self._model)
        if one and "temperature" in left and left.pop("top_p", None) is not None:
            self.dropped.append("top_p")
        inference = {own: left.pop(name) for name, own in _INFERENCE.items() if name in left}
        found: Json = {"inferenceConfig": inference}
        found |= {name: left.pop(name) for name in _OWN if name in left}
        tier = left.get("service_tier")
        if tier in _TIERS:
            found["serviceTier"] = {"type": left.pop("service_tier")}
        found[_ADDITIONAL] = self._additional(left)
        found = _merged(found, self._output())
        if left.get("n") == 1:
            del left["n"]
        self.dropped += left
        if self._said.parallel_tool_calls is False:
            self.dropped.append("parallel_tool_calls")
        return found

    def _additional(self, left: Json) -> Json:
        """The model's own settings. Takes what it has out of `left`."""
        given = left.pop(_ADDITIONAL, None)
        own = given if isinstance(given, dict) else {}
        if "top_k" in left:
            told = bedrock_models.top_k(self._model, left["top_k"])
            if told:
                del left["top_k"]
                own = _merged(told, own)
        return _merged(self._asked.fields, own)

    def _output(self) -> Json:
        asked = self._said.output
        if asked is None:
            return {}
        if asked.schema is None:
            self.dropped.append("response_format")
            return {}
        schema: Json = {"schema": json_text(asked.schema)}
        if asked.name:
            schema["name"] = asked.name
        if asked.description:
            schema["description"] = asked.description
        said = {"type": "json_schema", "structure": {"jsonSchema": schema}}
        return {"outputConfig": {"textFormat": said}}


def _in_order(blocks: list[list[Json]]) -> list[Json]:
    """Results of tools before the rest, which is where Claude wants them."""
    ordered = sorted(blocks, key=lambda parts: "toolResult" not in parts[0])
    return [part for parts in ordered for part in parts]


def _text(block: Text | Refusal) -> Json:
    return {"text": block.text}


def _thought(thought: Thinking) -> Json:
    """A thought that its provider can recognise; another one would be refused, and says nothing
    that the answer after it does not say."""
    if thought.redacted:
        return {"reasoningContent": {"redactedContent": thought.redacted}}
    if not thought.signature or thought.signature.startswith(SIGNED):
        return {}
    signed = {"text": thought.text, "signature": thought.signature}
    return {"reasoningContent": {"reasoningText": signed}}


def _tool_name(name: str, where: str) -> str:
    if not _TOOL_NAME.fullmatch(name):
        wrong(where, "1 to 64 letters, digits, underscores and hyphens, as Bedrock has them")
    return name


def _call_id(told: str, where: str) -> str:
    """Ids of other providers can be longer, or have other letters in them, than Bedrock takes:
    such an id is replaced by one that is always the same."""
    if not told:
        wrong(where, "the id of the call")
    if _CALL_ID.fullmatch(told):
        return told
    return f"{_NOT_IN_IDS.sub('_', told)[:55]}_{crc32(told.encode()):08x}"


def _called(name: str) -> Json:
    """A tool that the client has told nothing of but its calls: Converse refuses calls in a
    conversation that has no tools."""
    return {"toolSpec": {"name": name, "inputSchema": {"json": {"type": "object"}}}}
