"""Reads requests of clients in Anthropic's Messages format.

https://platform.claude.com/docs/en/api/messages/create
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Literal

from kong_ai_proxy.formats.conversation import (
    Block,
    Conversation,
    Media,
    MediaKind,
    Message,
    OutputFormat,
    Reasoning,
    Role,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from kong_ai_proxy.formats.errors import FormatError
from kong_ai_proxy.formats.fields import (
    a_text,
    an_array,
    an_object,
    json_text,
    object_of,
    objects,
    text_of,
    wrong,
)

_READ = frozenset(
    {
        "anthropic_version",  # of bodies for Amazon and Google
        "messages",
        "metadata",
        "model",
        "output_config",
        "output_format",
        "service_tier",
        "stop_sequences",
        "stream",
        "system",
        "thinking",
        "tool_choice",
        "tools",
    }
)
_MODES: Mapping[str, Literal["auto", "required", "none"]] = {
    "auto": "auto",
    "any": "required",
    "none": "none",
}
_TOOL = frozenset({"name", "description", "input_schema", "strict", "cache_control", "type"})
SERVICE_TIERS = {"auto": "auto", "standard_only": "default"}
"""Anthropic's words for the tiers that a request may ask for, and OpenAI's."""


def parse(
    body: Mapping[str, object], *, model: str = "", stream: bool | None = None
) -> Conversation:
    """A client's request. Raises FormatError."""
    reader = _Reader()
    streams = body.get("stream") is True if stream is None else stream
    messages = (*reader.system(body.get("system")), *reader.messages(body.get("messages")))
    tools, native = reader.tools(body.get("tools"))
    choice, parallel = _tool_choice(body.get("tool_choice"))
    return Conversation(
        messages=messages,
        model=model or text_of(body, "model"),
        stream=streams,
        wants_usage=streams,
        tools=tools,
        native_tools=native,
        tool_choice=choice,
        parallel_tool_calls=parallel,
        output=_output(body),
        reasoning=_reasoning(body),
        settings=_settings(body) | dict.fromkeys(sorted(reader.lost), True),
    )


def _settings(body: Mapping[str, object]) -> dict[str, object]:
    found = {name: value for name, value in body.items() if name not in _READ and value is not None}
    if body.get("stop_sequences"):
        stop = an_array(body["stop_sequences"], "stop_sequences")
        found["stop"] = [a_text(text, f"stop_sequences[{i}]") for i, text in enumerate(stop)]
    metadata = dict(object_of(body, "metadata"))
    user = metadata.pop("user_id", None)
    if user is not None:
        found["user"] = a_text(user, "metadata.user_id")
    if metadata:
        found["metadata"] = metadata
    tier = body.get("service_tier")
    if tier is not None:
        found["service_tier"] = SERVICE_TIERS.get(a_text(tier, "service_tier"), tier)
    output = {n: v for n, v in object_of(body, "output_config").items() if v is not None}
    rest = {name: value for name, value in output.items() if name not in ("effort", "format")}
    return found | ({"output_config": rest} if rest else {})


def _tool_choice(value: object) -> tuple[ToolChoice | None, bool | None]:
    """The choice, and whether several calls at once are allowed."""
    if value is None:
        return None, None
    choice = an_object(value, "tool_choice")
    parallel = False if choice.get("disable_parallel_tool_use") is True else None
    kind = choice.get("type")
    if kind == "tool":
        return ToolChoice("tool", a_text(choice.get("name"), "tool_choice.name")), parallel
    mode = _MODES.get(kind) if isinstance(kind, str) else None
    if mode is None:
        wrong("tool_choice.type", "auto, any, tool or none")
    return ToolChoice(mode), parallel


def _output(body: Mapping[str, object]) -> OutputFormat | None:
    """`output_config.format`; `output_format` while it was a beta."""
    where = "output_config.format"
    found = object_of(body, "output_config").get("format")
    if found is None:
        where, found = "output_format", body.get("output_format")
    if found is None:
        return None
    form = an_object(found, where)
    if form.get("type") != "json_schema":
        wrong(f"{where}.type", "json_schema")
    return OutputFormat(schema=an_object(form.get("schema"), f"{where}.schema"))


def _reasoning(body: Mapping[str, object]) -> Reasoning | None:
    """Both of `thinking` and `output_config.effort`, which knows one step more than OpenAI."""
    thinking = object_of(body, "thinking")
    told = object_of(body, "output_config").get("effort")
    effort = {"max": "xhigh"}.get(told, told) if isinstance(told, str) else None
    display = thinking.get("display")
    visible = display == "summarized" if isinstance(display, str) else None
    match thinking.get("type"):
        case None:
            return Reasoning(effort=effort) if effort else None
        case "disabled":
            return Reasoning(effort="none")
        case "enabled":
            budget = thinking.get("budget_tokens")
            if type(budget) is not int or budget < 1:
                wrong("thinking.budget_tokens", "a number of tokens")
            return Reasoning(effort=effort, budget=budget, visible=visible)
        case "adaptive" | "between_tools":
            return Reasoning(effort=effort, budget=None if effort else -1, visible=visible)
    raise FormatError("thinking.type: expected enabled, adaptive, between_tools or disabled")


def _cache(block: Mapping[str, object]) -> str | None:
    control = block.get("cache_control")
    return text_of(control, "ttl") if isinstance(control, dict) else None


class _Reader:
    """Reads content. What the hub has no place for, and does without, is named in `lost`."""

    def __init__(self) -> None:
        self.lost: set[str] = set()
        self._of_user: dict[str, Callable[[Mapping[str, object], str], list[Block]]] = {
            "text": self._text,
            "image": self._image,
            "document": self._document,
            "search_result": self._search_result,
            "tool_result": self._tool_result,
        }
        self._of_assistant: dict[str, Callable[[Mapping[str, object], str], list[Block]]] = {
            "text": self._text,
            "thinking": self._thinking,
            "redacted_thinking": self._redacted,
            "tool_use": self._tool_use,
        }

    def system(self, value: object) -> Iterator[Message]:
        """The system prompt, if there is one."""
        if value is None or value == "":
            return
        yield Message("system", tuple(self._only_texts(value, "system")))

    def messages(self, value: object) -> Iterator[Message]:
        """All messages. The newest models know system ones between the turns."""
        if value is None:
            wrong("messages", "an array")
        for where, message in objects(value, "messages"):
            content, place = message.get("content"), f"{where}.content"
            match str(message.get("role")).lower():
                case "user":
                    yield self._message("user", content, place, self._of_user)
                case "assistant":
                    yield self._message("assistant", content, place, self._of_assistant)
                case "system":
                    yield Message("system", tuple(self._only_texts(content, place)))
                case _:
                    wrong(f"{where}.role", "user, assistant or system")

    def _message(
        self,
        role: Role,
        content: object,
        place: str,
        kinds: Mapping[str, Callable[[Mapping[str, object], str], list[Block]]],
    ) -> Message:
        if isinstance(content, str):
            return Message(role, (Text(content),) if content else ())
        blocks: list[Block] = []
        for where, block in objects(content, place):
            kind = block.get("type")
            parse_block = kinds.get(kind) if isinstance(kind, str) else None
            if parse_block is None:
                raise FormatError(
                    f"{where}: a block of type {kind!r} of the {role} cannot be carried over; "
                    f"expected one of {', '.join(kinds)}"
                )
            blocks += parse_block(block, where)
        return Message(role, tuple(blocks))

    def _only_texts(self, value: object, where: str) -> Iterator[Text]:
        if isinstance(value, str):
            yield Text(value)
            return
        for place, block in objects(value, where):
            if block.get("type") != "text":
                wrong(f"{place}.type", "text")
            yield Text(a_text(block.get("text"), f"{place}.text"), _cache(block))

    def _note(self, holder: Mapping[str, object], names: tuple[str, ...]) -> None:
        self.lost.update(name for name in names if holder.get(name))

    def _note_citations(self, block: Mapping[str, object]) -> None:
        if object_of(block, "citations").get("enabled"):
            self.lost.add("citations")

    def _text(self, block: Mapping[str, object], where: str) -> list[Block]:
        self._note(block, ("citations",))
        return [Text(a_text(block.get("text"), f"{where}.text"), _cache(block))]

    def _thinking(self, block: Mapping[str, object], where: str) -> list[Block]:
        text = a_text(block.get("thinking"), f"{where}.thinking")
        return [Thinking(text, text_of(block, "signature"))]

    def _redacted(self, block: Mapping[str, object], where: str) -> list[Block]:
        return [Thinking("", redacted=a_text(block.get("data"), f"{where}.data"))]

    def _tool_use(self, block: Mapping[str, object], where: str) -> list[Block]:
        call = ToolCall(
            a_text(block.get("id"), f"{where}.id"),
            a_text(block.get("name"), f"{where}.name"),
            json_text(an_object(block.get("input"), f"{where}.input")),
            cache=_cache(block),
        )
        return [call]

    def _tool_result(self, block: Mapping[str, object], where: str) -> list[Block]:
        content = block.get("content")
        result = ToolResult(
            a_text(block.get("tool_use_id"), f"{where}.tool_use_id"),
            tuple(self._result_content(content, f"{where}.content")),
            is_error=block.get("is_error") is True,
            cache=_cache(block),
        )
        return [result]

    def _result_content(self, content: object, place: str) -> Iterator[Text | Media]:
        if isinstance(content, str):
            if content:
                yield Text(content)
            return
        for where, block in objects(content, place):
            kind = block.get("type")
            if kind not in ("text", "image", "document", "search_result"):
                raise FormatError(
                    f"{where}: a block of type {kind!r} cannot be carried over; "
                    "expected text, image, document or search_result"
                )
            for found in self._of_user[str(kind)](block, where):
                assert isinstance(found, Text | Media)
                yield found

    def _image(self, block: Mapping[str, object], where: str) -> list[Block]:
        self._note(block, ("transformations",))
        source = an_object(block.get("source"), f"{where}.source")
        return [self._media("image", source, f"{where}.source", _cache(block))]

    def _media(
        self,
        kind: MediaKind,
        source: Mapping[str, object],
        where: str,
        cache: str | None,
        name: str = "",
    ) -> Media:
        match source.get("type"):
            case "base64":
                data = a_text(source.get("data"), f"{where}.data")
                media_type = text_of(source, "media_type")
                return Media(kind=kind, data=data, media_type=media_type, name=name, cache=cache)
            case "url":
                url = a_text(source.get("url"), f"{where}.url")
                return Media(kind=kind, url=url, name=name, cache=cache)
            case "file":
                file_id = a_text(source.get("file_id"), f"{where}.file_id")
                return Media(kind=kind, file_id=file_id, name=name, cache=cache)
        raise FormatError(f"{where}.type: expected base64, url or file")

    def _document(self, block: Mapping[str, object], where: str) -> list[Block]:
        """A document that is text becomes text, which every provider can read."""
        self._note_citations(block)
        source, place = an_object(block.get("source"), f"{where}.source"), f"{where}.source"
        title, context, cache = text_of(block, "title"), text_of(block, "context"), _cache(block)
        about: list[Block] = [Text(text) for text in (title, context) if text]
        match source.get("type"):
            case "text":
                return [*about, Text(a_text(source.get("data"), f"{place}.data"), cache)]
            case "content":
                return [*about, *self._parts(source.get("content"), f"{place}.content", cache)]
        media = self._media("file", source, place, cache, title)
        return [Text(context), media] if context else [media]

    def _parts(self, content: object, place: str, cache: str | None) -> Iterator[Block]:
        """Text and images that a document consists of."""
        if isinstance(content, str):
            yield Text(content, cache)
            return
        for where, block in objects(content, place):
            if block.get("type") not in ("text", "image"):
                wrong(f"{where}.type", "text or image")
            yield from self._of_user[str(block["type"])](block, where)

    def _search_result(self, block: Mapping[str, object], where: str) -> list[Block]:
        self._note_citations(block)
        texts = [each.text for each in self._only_texts(block.get("content"), f"{where}.content")]
        head = [text_of(block, "title"), text_of(block, "source")]
        return [Text("\n".join(text for text in (*head, *texts) if text), _cache(block))]

    def tools(self, value: object) -> tuple[tuple[Tool, ...], tuple[Mapping[str, object], ...]]:
        """Functions of the client's, and tools that only Anthropic knows."""
        tools: list[Tool] = []
        native: list[Mapping[str, object]] = []
        for where, tool in objects(value, "tools"):
            if tool.get("type") in (None, "custom"):
                tools.append(self._tool(tool, where))
            else:
                native.append(tool)
        return tuple(tools), tuple(native)

    def _tool(self, tool: Mapping[str, object], where: str) -> Tool:
        self.lost.update(f"tools[].{name}" for name in tool if name not in _TOOL and tool[name])
        schema, strict = tool.get("input_schema"), tool.get("strict")
        return Tool(
            name=a_text(tool.get("name"), f"{where}.name"),
            description=text_of(tool, "description"),
            parameters=None if schema is None else an_object(schema, f"{where}.input_schema"),
            strict=strict if isinstance(strict, bool) else None,
            cache=_cache(tool),
        )
