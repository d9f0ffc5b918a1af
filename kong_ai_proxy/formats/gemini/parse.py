"""Requests of clients that speak Gemini's generateContent, as conversations.

https://ai.google.dev/api/generate-content#request-body
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import orjson

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
from kong_ai_proxy.formats.fields import a_text, an_object, json_text, text_of, wrong
from kong_ai_proxy.formats.gemini.names import camelized, message, repeated
from kong_ai_proxy.formats.gemini.schema import json_schema

SETTINGS = {
    "temperature": "temperature",
    "topP": "top_p",
    "topK": "top_k",
    "maxOutputTokens": "max_tokens",
    "stopSequences": "stop",
    "seed": "seed",
    "candidateCount": "n",
    "presencePenalty": "presence_penalty",
    "frequencyPenalty": "frequency_penalty",
    "responseLogprobs": "logprobs",
    "logprobs": "top_logprobs",
}
"""Members of `generationConfig` and what they are called in `Conversation.settings`."""

_ROLES: Mapping[str, Role] = {
    "user": "user",
    "human": "user",
    "function": "user",
    "tool": "user",
    "model": "assistant",
    "assistant": "assistant",
}
_KINDS: Mapping[str, MediaKind] = {"image": "image", "audio": "audio", "video": "video"}
_STANDARD = str.maketrans("-_", "+/")
_JSON = "application/json"
_MODES: Mapping[str, Literal["auto", "none", "required"]] = {
    "AUTO": "auto",
    "VALIDATED": "auto",
    "NONE": "none",
    "ANY": "required",
}


def conversation(body: Mapping[str, object], model: str, stream: bool | None) -> Conversation:
    """The request. Raises FormatError."""
    found = camelized(body)
    contents = repeated(found.pop("contents", None), "contents")
    if not contents:
        wrong("contents", "at least one content")
    system = _system(found.pop("systemInstruction", None))
    tools, native = _tools(found.pop("tools", None))
    choice, tools, tool_config = _choice(found.pop("toolConfig", None), tools)
    generation = message(found.pop("generationConfig", None), "generationConfig")
    output, reasoning = _output(generation), _reasoning(generation)
    named = text_of(found, "model").removeprefix("models/")
    found.pop("model", None)
    settings = {SETTINGS[name]: generation.pop(name) for name in SETTINGS if name in generation}
    _as_others_have_them(settings)
    if generation:
        found["generationConfig"] = generation
    if tool_config:
        found["toolConfig"] = tool_config
    return Conversation(
        messages=(*system, *_Contents().messages(contents)),
        model=model or named,
        stream=bool(stream),
        wants_usage=True,
        tools=tools,
        native_tools=native,
        tool_choice=choice,
        output=output,
        reasoning=reasoning,
        settings={**settings, **found},
    )


def _as_others_have_them(settings: dict[str, object]) -> None:
    top_k = settings.get("top_k")
    if isinstance(top_k, float) and top_k.is_integer():
        settings["top_k"] = int(top_k)  # a float to Google, a whole number to everybody else
    if "stop" in settings:
        stop = repeated(settings["stop"], "generationConfig.stopSequences")
        settings["stop"] = [a_text(each, "generationConfig.stopSequences") for each in stop]


def _system(value: object) -> tuple[Message, ...]:
    if value is None:
        return ()
    where = "systemInstruction"
    blocks = []
    parts = message(value, where).get("parts")
    for index, part in enumerate(repeated(parts, f"{where}.parts")):
        place = f"{where}.parts[{index}]"
        text = an_object(part, place).get("text")
        if not isinstance(text, str):
            wrong(place, "a text")
        blocks.append(Text(text))
    return (Message("system", tuple(blocks)),) if blocks else ()


class _Contents:
    """Reads the turns of one request. Makes ids for calls that have none: Gemini goes by their
    names and order (https://ai.google.dev/gemini-api/docs/function-calling)."""

    def __init__(self) -> None:
        self._made = 0
        self._open: list[tuple[str, str]] = []  # name and id of calls without a result so far

    def messages(self, contents: list[object]) -> list[Message]:
        return [self._message(each, f"contents[{index}]") for index, each in enumerate(contents)]

    def _message(self, value: object, where: str) -> Message:
        content = message(value, where)
        role = _ROLES.get(str(content.get("role") or "user").lower())
        if role is None:
            wrong(f"{where}.role", "user, model or function")
        blocks: list[Block] = []
        for index, part in enumerate(repeated(content.get("parts"), f"{where}.parts")):
            place = f"{where}.parts[{index}]"
            for block in self._part(message(part, place), place):
                _add(blocks, block)
        return Message(role, tuple(blocks))

    def _part(self, part: dict[str, object], where: str) -> list[Block]:
        signature = text_of(part, "thoughtSignature").translate(_STANDARD)
        if "videoMetadata" in part:
            raise FormatError(f"{where}: videoMetadata cannot be carried over to this provider")
        for name, read in _PARTS.items():
            if name in part:
                block = read(self, part, name, where)
                if isinstance(block, ToolCall | Thinking) or not signature:
                    return [block]
                return [Thinking("", signature), *([block] if block != Text("") else [])]
        if signature:
            return [Thinking("", signature)]
        raise FormatError(
            f"{where}: expected text, inlineData, fileData, functionCall or functionResponse: "
            "nothing else can be carried over to this provider"
        )

    def _text(self, part: Mapping[str, object], name: str, where: str) -> Block:
        text = a_text(part[name], f"{where}.{name}")
        if part.get("thought") is True:
            return Thinking(text, text_of(part, "thoughtSignature").translate(_STANDARD))
        return Text(text)

    def _media(self, part: Mapping[str, object], name: str, where: str) -> Media:
        return _media(part[name], f"{where}.{name}")

    def _call(self, part: Mapping[str, object], name: str, where: str) -> ToolCall:
        place = f"{where}.{name}"
        call = message(part[name], place)
        called = a_text(call.get("name"), f"{place}.name")
        identity = text_of(call, "id") or self._new_id()
        self._open.append((called, identity))
        arguments = an_object(call.get("args", {}), f"{place}.args")
        signature = text_of(part, "thoughtSignature").translate(_STANDARD)
        return ToolCall(identity, called, json_text(arguments), signature)

    def _result(self, part: Mapping[str, object], name: str, where: str) -> ToolResult:
        place = f"{where}.{name}"
        value = message(part[name], place)
        called = a_text(value.get("name"), f"{place}.name")
        identity = self._answered(called, text_of(value, "id"))
        response = an_object(value.get("response", {}), f"{place}.response")
        text, is_error = _result_text(response)
        parts = [
            message(each, f"{place}.parts[{index}]")
            for index, each in enumerate(repeated(value.get("parts"), f"{place}.parts"))
        ]
        media = [_media(each.get("inlineData", each.get("fileData")), place) for each in parts]
        content = (*((Text(text),) if text or not media else ()), *media)
        return ToolResult(identity, content, name=called, is_error=is_error)

    def _answered(self, name: str, identity: str) -> str:
        for place, (called, known) in enumerate(self._open):
            if known == identity or (not identity and called == name):
                del self._open[place]
                return known
        return identity or self._new_id()

    def _new_id(self) -> str:
        self._made += 1
        return f"call_{self._made}"


def _add(blocks: list[Block], block: Block) -> None:
    """A signature behind a thought is the thought's."""
    last = blocks[-1] if blocks else None
    if (
        isinstance(block, Thinking)
        and not block.text
        and isinstance(last, Thinking)
        and not last.signature
    ):
        blocks[-1] = Thinking(last.text, block.signature)
    else:
        blocks.append(block)


_PARTS: Mapping[str, Callable[[_Contents, Mapping[str, object], str, str], Block]] = {
    "text": _Contents._text,
    "inlineData": _Contents._media,
    "fileData": _Contents._media,
    "functionCall": _Contents._call,
    "functionResponse": _Contents._result,
}


def _result_text(response: Mapping[str, object]) -> tuple[str, bool]:
    """What a function answered, and whether it failed: `output` or `result`, and `error`, are the
    words for it; without them the whole object is the answer."""
    if len(response) == 1:
        (name, value), *_ = response.items()
        if name in ("result", "output", "error") and isinstance(value, str):
            return value, name == "error"
        if name == "error":
            return json_text(value), True
    return (json_text(response) if response else ""), False


def _media(value: object, where: str) -> Media:
    data = message(value, where)
    media_type = text_of(data, "mimeType")
    kind = _KINDS.get(media_type.partition("/")[0], "file")
    name = text_of(data, "displayName")
    if "fileUri" in data:
        url = a_text(data["fileUri"], f"{where}.fileUri")
        return Media(kind=kind, url=url, media_type=media_type, name=name)
    encoded = a_text(data.get("data"), f"{where}.data")
    if "-" in encoded or "_" in encoded:
        encoded = encoded.translate(_STANDARD)  # the Python client sends URL-safe base64
    return Media(kind=kind, data=encoded, media_type=media_type, name=name)


def _tools(value: object) -> tuple[tuple[Tool, ...], tuple[Mapping[str, object], ...]]:
    functions: list[Tool] = []
    native: list[Mapping[str, object]] = []
    for index, each in enumerate(repeated(value, "tools")):
        where = f"tools[{index}]"
        for name, declared in message(each, where).items():
            if name == "functionDeclarations":
                functions += _functions(declared, f"{where}.{name}")
            else:
                native.append({name: declared})
    return tuple(functions), tuple(native)


def _functions(value: object, where: str) -> list[Tool]:
    found = []
    for index, each in enumerate(repeated(value, where)):
        place = f"{where}[{index}]"
        declared = message(each, place)
        schema = declared.get("parametersJsonSchema")
        if schema is None and "parameters" in declared:
            schema = json_schema(declared["parameters"])
        found.append(
            Tool(
                name=a_text(declared.get("name"), f"{place}.name"),
                description=text_of(declared, "description"),
                parameters=None if schema is None else an_object(schema, f"{place}.parameters"),
            )
        )
    return found


def _choice(
    value: object, tools: tuple[Tool, ...]
) -> tuple[ToolChoice | None, tuple[Tool, ...], dict[str, object]]:
    """The choice, the tools that it leaves, and what else the configuration says."""
    config = message(value, "toolConfig")
    calling = message(config.pop("functionCallingConfig", None), "toolConfig.functionCallingConfig")
    mode = str(calling.get("mode") or "MODE_UNSPECIFIED").upper()
    if mode == "MODE_UNSPECIFIED":
        return None, tools, config
    if mode not in _MODES:
        wrong("toolConfig.functionCallingConfig.mode", "AUTO, ANY, NONE or VALIDATED")
    allowed = repeated(calling.get("allowedFunctionNames"), "toolConfig.allowedFunctionNames")
    if mode == "ANY" and len(allowed) == 1:
        return ToolChoice("tool", a_text(allowed[0], "allowedFunctionNames[0]")), tools, config
    if allowed:
        # To offer no others is the only way to allow no others that every format knows.
        tools = tuple(tool for tool in tools if tool.name in allowed)
    return ToolChoice(_MODES[mode]), tools, config


def _output(generation: dict[str, object]) -> OutputFormat | None:
    if generation.get("responseMimeType") != _JSON:
        return None  # text, or an enum, which only Gemini knows
    del generation["responseMimeType"]
    google = generation.pop("responseSchema", None)
    schema = generation.pop("responseJsonSchema", None)
    if schema is None and google is not None:
        schema = json_schema(google)
    if schema is None:
        return OutputFormat()
    return OutputFormat(schema=an_object(schema, "generationConfig.responseJsonSchema"))


def _reasoning(generation: dict[str, object]) -> Reasoning | None:
    if "thinkingConfig" not in generation:
        return None
    config = message(generation.pop("thinkingConfig"), "generationConfig.thinkingConfig")
    budget, visible = config.get("thinkingBudget"), config.get("includeThoughts")
    level = text_of(config, "thinkingLevel").lower()
    return Reasoning(
        effort=level if level and level != "thinking_level_unspecified" else None,
        budget=budget if type(budget) is int else None,
        visible=visible if isinstance(visible, bool) else None,
    )


def json_object(text: str) -> dict[str, object] | None:
    """The JSON object that a text is; None where it is none."""
    if text.lstrip()[:1] != "{":
        return None
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None
