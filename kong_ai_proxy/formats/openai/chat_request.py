"""Chat completions, a client's request read.

https://platform.openai.com/docs/api-reference/chat/create. Beside OpenAI's own members those are
read by which clients of this format keep what other providers need back: `reasoning_content`
(https://api-docs.deepseek.com/guides/thinking_mode), `thinking_blocks` with signatures,
`extra_content.google.thought_signature` of a tool call
(https://ai.google.dev/gemini-api/docs/thought-signatures#openai), `cache_control` on parts,
messages, calls and tools (https://docs.claude.com/en/docs/build-with-claude/prompt-caching), and
the parts `video_url` and `audio_url` (https://docs.vllm.ai/en/stable/features/multimodal_inputs).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from kong_ai_proxy.formats import openai
from kong_ai_proxy.formats.conversation import (
    Block,
    Conversation,
    Media,
    MediaKind,
    Message,
    OutputFormat,
    Reasoning,
    Refusal,
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
    an_object,
    json_text,
    media_of_url,
    object_of,
    objects,
    objects_of,
    text_of,
    wrong,
)

Object = Mapping[str, object]

AUDIO_TYPES = {"wav": "audio/wav", "mp3": "audio/mp3", "pcm16": "audio/pcm"}
"""OpenAI's audio formats as media types; others are audio/NAME."""

_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh")
_PARTS = "a part of type text, image_url, input_audio, file, video_url, audio_url or refusal"
_CHOICE = (
    'tool_choice: expected one of "auto", "none", "required", '
    'or {"type": "function", "function": {"name": ...}}'
)
_URLS: Mapping[str, MediaKind] = {
    "image_url": "image",
    "video_url": "video",
    "audio_url": "audio",
}


def parse_request(body: Object, *, model: str, stream: bool | None) -> Conversation:
    """See ChatClient."""
    said = {name: value for name, value in body.items() if value is not None}
    messages = tuple(_Messages().read(said.pop("messages", None)))
    named = openai.requested_model({"model": said.pop("model", None)}) or ""
    asked = bool(said.pop("stream", False))
    tools, native_tools = _tools(said)
    return Conversation(
        messages=messages,
        model=model or named,
        stream=asked if stream is None else stream,
        wants_usage=wants_usage(said),
        tools=tools,
        native_tools=native_tools,
        tool_choice=_tool_choice(said),
        parallel_tool_calls=_flag(said, "parallel_tool_calls"),
        output=_output(said.pop("response_format", None)),
        reasoning=_reasoning(said),
        extra=an_object(said.pop("extra_body", {}), "extra_body"),
        settings=settings(said),
    )


def settings(said: dict[str, object]) -> dict[str, object]:
    """What is left of a request once its content is taken out, under the hub's names."""
    limit = said.pop("max_completion_tokens", None)
    if limit is not None:
        said["max_tokens"] = limit
    if isinstance(said.get("stop"), str):
        said["stop"] = [said["stop"]]
    return said


def wants_usage(said: dict[str, object]) -> bool:
    """Whether a stream has to end with its usage. Other options of a stream stay in `said`."""
    wanted = openai.wants_usage(said)
    options = object_of(said, "stream_options")
    others = {name: value for name, value in options.items() if name != "include_usage"}
    said.pop("stream_options", None)
    if others:
        said["stream_options"] = others
    return wanted


def _flag(said: dict[str, object], name: str) -> bool | None:
    value = said.pop(name, None)
    if value is not None and not isinstance(value, bool):
        wrong(name, "true or false")
    return value


class _Messages:
    """Reads messages in order; knows the calls of the legacy format, which have no ids."""

    def __init__(self) -> None:
        self._functions: dict[str, str] = {}

    def read(self, value: object) -> Iterator[Message]:
        if not isinstance(value, list) or not value:
            wrong("messages", "a non-empty array")
        for where, message in objects(value, "messages"):
            role = message.get("role")
            method = _ROLES.get(role.lower()) if isinstance(role, str) else None
            if method is None:
                wrong(f"{where}.role", "one of system, developer, user, assistant, tool, function")
            said = method(self, message, where)
            speaks = text_of(message, "name")
            yield replace(said, name=speaks) if speaks and not _is_result(said) else said

    def system(self, message: Object, where: str) -> Message:
        blocks = list(_content(message, where, "system"))
        for index, block in enumerate(blocks):
            if not isinstance(block, Text):
                wrong(f"{where}.content[{index}]", "a part of type text")
        return Message("system", _cached(message, blocks))

    def user(self, message: Object, where: str) -> Message:
        if message.get("content") is None:
            wrong(f"{where}.content", "a string or an array of parts")
        return Message("user", _cached(message, list(_content(message, where, "user"))))

    def assistant(self, message: Object, where: str) -> Message:
        blocks: list[Block] = list(_thoughts(message))
        blocks += _content(message, where, "assistant")
        if refusal := text_of(message, "refusal"):
            blocks.append(Refusal(refusal))
        for place, image in objects(message.get("images"), f"{where}.images"):
            blocks.append(_media(image, place))
        if audio := text_of(object_of(message, "audio"), "id"):
            blocks.append(Media(kind="audio", file_id=audio))
        for place, call in objects(message.get("tool_calls"), f"{where}.tool_calls"):
            blocks.append(_call(call, place))
        if message.get("function_call") is not None:
            blocks.append(self._function_call(message, where))
        return Message("assistant", _cached(message, blocks))

    def _function_call(self, message: Object, where: str) -> ToolCall:
        place = f"{where}.function_call"
        function = an_object(message["function_call"], place)
        name = a_text(function.get("name"), f"{place}.name")
        self._functions[name] = f"call_{where.strip(']').rpartition('[')[2]}_{name}"
        return ToolCall(self._functions[name], name, _arguments(function, place))

    def tool(self, message: Object, where: str) -> Message:
        call = a_text(message.get("tool_call_id"), f"{where}.tool_call_id")
        return _result(message, where, call)

    def function(self, message: Object, where: str) -> Message:
        name = a_text(message.get("name"), f"{where}.name")
        return _result(message, where, self._functions.get(name, f"call_{name}"))


_ROLES = {
    "system": _Messages.system,
    "developer": _Messages.system,
    "user": _Messages.user,
    "assistant": _Messages.assistant,
    "tool": _Messages.tool,
    "function": _Messages.function,
}


def _is_result(message: Message) -> bool:
    return isinstance(message.blocks[0], ToolResult) if message.blocks else False


def _result(message: Object, where: str, call: str) -> Message:
    parts = list(_content(message, where, "tool"))
    content = tuple(part for part in parts if isinstance(part, Text | Media))
    if len(content) != len(parts):
        wrong(f"{where}.content", "parts of type text or image_url")
    result = ToolResult(call, content, text_of(message, "name"), cache=cache_of(message))
    return Message("user", (result,))


def _content(message: Object, where: str, role: Role | str) -> Iterator[Block]:
    """The blocks of `content`. An empty text is one only where the user says nothing else: other
    formats have no such text."""
    content = message.get("content")
    if content is None:
        return
    if isinstance(content, str):
        if content or role == "user":
            yield Text(content)
        return
    if not isinstance(content, list):
        wrong(f"{where}.content", "a string or an array of parts")
    for place, part in objects(content, f"{where}.content"):
        yield from _part(part, place)


def _part(part: Object, where: str) -> Iterator[Block]:
    kind = part.get("type")
    if kind == "text" or (kind is None and "text" in part):
        text = part.get("text")
        if not isinstance(text, str):
            raise FormatError(f"{where}: message part type is 'text' but is missing .text block")
        yield Text(text, cache_of(part))
    elif kind == "refusal":
        yield Refusal(a_text(part.get("refusal"), f"{where}.refusal"))
    elif kind == "thinking":
        yield _thought(part)
    else:
        yield _media(part, where)


def _media(part: Object, where: str) -> Media:
    kind = part.get("type")
    if kind == "input_audio":
        media = _audio(part, where)
    elif kind == "file":
        media = _file(part, where)
    elif isinstance(kind, str) and kind in _URLS:
        media = _linked(part, where, kind)
    else:
        wrong(f"{where}.type", _PARTS)
    cache = cache_of(part)
    return media if cache is None else replace(media, cache=cache)


def _linked(part: Object, where: str, kind: str) -> Media:
    """A part that holds a URL. Some clients send it bare, without the object around it."""
    place = f"{where}.{kind}"
    value = part.get(kind)
    if isinstance(value, str):
        return _from_url(_URLS[kind], value, place)
    linked = value if isinstance(value, dict) else {}
    url = linked.get("url")
    if not isinstance(url, str):
        missing = f"message part type is '{kind}' but is missing .{kind}.url block"
        raise FormatError(f"{where}: {missing}")
    return _from_url(_URLS[kind], url, f"{place}.url", detail=text_of(linked, "detail"))


def _from_url(kind: MediaKind, url: str, where: str, **more: str) -> Media:
    try:
        return media_of_url(kind, url, **more)
    except FormatError as error:
        raise FormatError(f"{where}: {error}") from None


def _audio(part: Object, where: str) -> Media:
    audio = an_object(part.get("input_audio"), f"{where}.input_audio")
    data = a_text(audio.get("data"), f"{where}.input_audio.data")
    named = text_of(audio, "format")
    media_type = AUDIO_TYPES.get(named, f"audio/{named}" if named else "")
    if data.startswith(("data:", "http:", "https:")):
        place = f"{where}.input_audio.data"
        return _from_url("audio", data, place, media_type=media_type)
    return Media(kind="audio", data=data, media_type=media_type)


def _file(part: Object, where: str) -> Media:
    place = f"{where}.file"
    file = an_object(part.get("file"), place)
    name = text_of(file, "filename")
    if identity := text_of(file, "file_id"):
        return Media(kind="file", file_id=identity, name=name)
    data = a_text(file.get("file_data"), f"{place}.file_data")
    if data.startswith(("data:", "http:", "https:")):
        return _from_url("file", data, f"{place}.file_data", name=name)
    return Media(kind="file", data=data, name=name)


def _thoughts(message: Object) -> Iterator[Thinking]:
    """Signed thoughts have all that `reasoning_content` has, so that one counts only alone."""
    blocks = objects_of(message, "thinking_blocks")
    for block in blocks:
        yield _thought(block)
    text = text_of(message, "reasoning_content") or text_of(message, "reasoning")
    if text and not blocks:
        yield Thinking(text)


def _thought(block: Object) -> Thinking:
    """One of Anthropic's thoughts, or of Mistral's, which has its text in parts
    (https://docs.mistral.ai/capabilities/reasoning)."""
    if block.get("type") == "redacted_thinking":
        return Thinking("", redacted=text_of(block, "data"))
    parts = objects_of(block, "thinking")
    text = "".join(text_of(part, "text") for part in parts) or text_of(block, "thinking")
    return Thinking(text, text_of(block, "signature"))


def _call(call: Object, where: str) -> ToolCall:
    if call.get("type", "function") not in ("function", None):
        wrong(f"{where}.type", '"function": calls of other tools cannot be carried over')
    function = an_object(call.get("function"), f"{where}.function")
    return ToolCall(
        id=a_text(call.get("id"), f"{where}.id"),
        name=a_text(function.get("name"), f"{where}.function.name"),
        arguments=_arguments(function, f"{where}.function"),
        signature=call_signature(call),
        cache=cache_of(call),
    )


def call_signature(call: Object) -> str:
    """Google's thought signature of a tool call; "" for none."""
    return text_of(object_of(object_of(call, "extra_content"), "google"), "thought_signature")


def _arguments(function: Object, where: str) -> str:
    arguments = function.get("arguments")
    if isinstance(arguments, dict):
        return json_text(arguments)
    if arguments is None:
        return "{}"
    text = a_text(arguments, f"{where}.arguments")
    return text if text.strip() else "{}"


def cache_of(value: Object) -> str | None:
    """The lifetime that `cache_control` names; "" where it names none, None where it is not
    there."""
    control = value.get("cache_control")
    return text_of(control, "ttl") if isinstance(control, dict) else None


def _cached(message: Object, blocks: list[Block]) -> tuple[Block, ...]:
    """With the cache point of a whole message at its last block that can have one."""
    cache = cache_of(message)
    if cache is not None:
        for index in reversed(range(len(blocks))):
            block = blocks[index]
            if isinstance(block, Text | Media | ToolCall):
                blocks[index] = replace(block, cache=cache)
                break
    return tuple(blocks)


def _tools(said: dict[str, object]) -> tuple[tuple[Tool, ...], tuple[Object, ...]]:
    """Functions, those of the legacy member `functions` too, and other tools as they came."""
    tools: list[Tool] = []
    native: list[Object] = []
    for where, tool in objects(said.pop("tools", None), "tools"):
        if tool.get("type") == "function" or ("type" not in tool and "function" in tool):
            function = an_object(tool.get("function"), f"{where}.function")
            own = cache_of(tool)
            cache = cache_of(function) if own is None else own
            tools.append(_tool(function, f"{where}.function", cache))
        else:
            native.append(tool)
    for where, function in objects(said.pop("functions", None), "functions"):
        tools.append(_tool(function, where, None))
    return tuple(tools), tuple(native)


def _tool(function: Object, where: str, cache: str | None) -> Tool:
    parameters = function.get("parameters")
    strict = function.get("strict")
    return Tool(
        name=a_text(function.get("name"), f"{where}.name"),
        description=text_of(function, "description"),
        parameters=None if parameters is None else an_object(parameters, f"{where}.parameters"),
        strict=strict if isinstance(strict, bool) else None,
        cache=cache,
    )


def _tool_choice(said: dict[str, object]) -> ToolChoice | None:
    legacy = said.pop("function_call", None)
    choice = said.pop("tool_choice", None)
    if choice is None and legacy is not None:
        choice = {"function": legacy} if isinstance(legacy, dict) else legacy
    match choice:
        case None:
            return None
        case "auto" | "none" | "required":
            return ToolChoice(choice)
        case "any":  # Mistral's word: https://docs.mistral.ai/capabilities/function_calling
            return ToolChoice("required")
        case {"function": {"name": str(name)}}:
            return ToolChoice("tool", name)
    raise FormatError(_CHOICE)


def _output(value: object) -> OutputFormat | None:
    if value is None:
        return None
    asked = an_object(value, "response_format")
    kind = asked.get("type")
    if kind == "text":
        return None
    if kind == "json_object":
        return OutputFormat()
    if kind != "json_schema":
        wrong("response_format.type", "text, json_object or json_schema")
    where = "response_format.json_schema"
    wrapped = an_object(asked.get("json_schema"), where)
    schema = wrapped.get("schema")
    strict = wrapped.get("strict")
    return OutputFormat(
        schema={} if schema is None else an_object(schema, f"{where}.schema"),
        name=text_of(wrapped, "name"),
        description=text_of(wrapped, "description"),
        strict=strict if isinstance(strict, bool) else None,
    )


def _reasoning(said: dict[str, object]) -> Reasoning | None:
    """`reasoning_effort`, and the objects by which clients of this format ask other servers:
    `reasoning` (https://openrouter.ai/docs/use-cases/reasoning-tokens) and Anthropic's
    `thinking`."""
    reasoning = an_object(said.pop("reasoning", {}), "reasoning")
    effort = said.pop("reasoning_effort", reasoning.get("effort"))
    budget = _budget(an_object(said.pop("thinking", {}), "thinking"))
    if budget is None:
        budget = _count(reasoning.get("max_tokens"), "reasoning.max_tokens")
    if budget is None and effort is None and isinstance(reasoning.get("enabled"), bool):
        budget = -1 if reasoning["enabled"] else 0
    hidden = reasoning.get("exclude")
    visible = not hidden if isinstance(hidden, bool) else None
    if effort is None and budget is None and visible is None:
        return None
    return Reasoning(effort=_effort(effort), budget=budget, visible=visible)


def _effort(value: object) -> str | None:
    if value is None:
        return None
    effort = value.lower() if isinstance(value, str) else ""
    if effort == "max":  # above xhigh, which is the most that the other formats know
        return "xhigh"
    if effort not in _EFFORTS:
        wrong("reasoning_effort", ", ".join(_EFFORTS[:-1]) + f" or {_EFFORTS[-1]}")
    return effort


def _budget(thinking: Object) -> int | None:
    kind = thinking.get("type")
    if kind is None:
        return None
    if kind == "disabled":
        return 0
    if kind not in ("enabled", "adaptive", "auto"):
        wrong("thinking.type", "enabled, disabled or adaptive")
    tokens = _count(thinking.get("budget_tokens"), "thinking.budget_tokens")
    return -1 if tokens is None else tokens


def _count(value: object, where: str) -> int | None:
    if value is None:
        return None
    if type(value) is not int:
        wrong(where, "a whole number")
    return value
