"""Conversations as requests of Gemini's generateContent.

https://ai.google.dev/api/generate-content#request-body
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from kong_ai_proxy.formats.conversation import (
    Block,
    Conversation,
    Media,
    Message,
    OutputFormat,
    Refusal,
    Rendered,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    named_results,
)
from kong_ai_proxy.formats.errors import FormatError
from kong_ai_proxy.formats.fields import arguments_object, wrong
from kong_ai_proxy.formats.gemini import models as gemini_models
from kong_ai_proxy.formats.gemini.names import SIGNED, camel, camelized, merged
from kong_ai_proxy.formats.gemini.parse import SETTINGS, json_object
from kong_ai_proxy.formats.gemini.schema import is_plain

_Json = dict[str, object]

_NAMES = {ours: theirs for theirs, ours in SETTINGS.items()}
_PASSED = frozenset(
    {"safetySettings", "cachedContent", "labels", "generationConfig", "toolConfig"}
    | {"modelArmorConfig", "serviceTier"}
)
"""What is passed on under its own name, which no other format has."""
_TOOLS = frozenset(
    {
        "codeExecution",
        "computerUse",
        "enterpriseWebSearch",
        "exaAiSearch",
        "fileSearch",
        "functionDeclarations",
        "googleMaps",
        "googleSearch",
        "googleSearchRetrieval",
        "mcpServers",
        "parallelAiSearch",
        "retrieval",
        "urlContext",
    }
)
_MODES = {"auto": "AUTO", "none": "NONE", "required": "ANY", "tool": "ANY"}
_JSON_TYPE = "application/json"

# https://ai.google.dev/gemini-api/docs/thought-signatures, "Transferring history from a different
# model": clients of other formats have no place for the signature of a call, and calls that another
# model made never had one. Without any the request is refused.
_NO_SIGNATURE = "skip_thought_signature_validator"

_FILES = "https://generativelanguage.googleapis.com/v1beta/"
_EXTENSIONS = {
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "png": "image/png",
    "webp": "image/webp",
    "gif": "image/gif",
    "heic": "image/heic",
    "pdf": "application/pdf",
    "txt": "text/plain",
    "mp3": "audio/mp3",
    "wav": "audio/wav",
    "flac": "audio/flac",
    "mp4": "video/mp4",
    "mov": "video/mov",
    "webm": "video/webm",
}


def request(conversation: Conversation) -> Rendered:
    """The request. Raises FormatError."""
    name = gemini_models.short_name(conversation.model)
    dropped: list[str] = []
    body: _Json = {"contents": []}
    contents = _contents(conversation, name)
    system = _parts_of_system(conversation, name)
    if system and (gemini_models.wants_system_in_turn(name) or not contents):
        contents = _with_system(system, contents)
    elif system:
        body["systemInstruction"] = {"parts": system}
    if not contents:
        raise FormatError("messages: expected at least one that says something")
    body["contents"] = contents
    tools = _tools(conversation)
    if tools:
        body["tools"] = tools
    if conversation.tool_choice:
        config = _function_calling(conversation.tool_choice)
        body["toolConfig"] = {"functionCallingConfig": config}
    if conversation.parallel_tool_calls is False:
        dropped.append("parallel_tool_calls")
    if conversation.has_cache_points:
        dropped.append("cache_control")
    if conversation.has_names:
        dropped.append("name")
    generation = _generation(conversation, name, dropped)
    if generation:
        body["generationConfig"] = generation
    passed = {key: value for key, value in conversation.settings.items() if camel(key) in _PASSED}
    # OpenAI's own setting of that name has other values.
    passed.pop("service_tier", None)
    body = _one_way_to_think(merged(merged(body, passed), _extra(conversation.extra)))
    return Rendered(body, tuple(dropped))


def _one_way_to_think(body: _Json) -> _Json:
    """Budget and level together are refused; `thinkingConfig` of the client's own wins whole over
    what stands for its `reasoning_effort`, which `merged` has put first."""
    generation = body.get("generationConfig")
    config = generation.get("thinkingConfig") if isinstance(generation, dict) else None
    if isinstance(config, dict) and "thinkingBudget" in config and "thinkingLevel" in config:
        del config[next(key for key in config if key in ("thinkingBudget", "thinkingLevel"))]
    return body


def _extra(extra: Mapping[str, object]) -> _Json:
    """`extra_body`, also as Google's own OpenAI endpoint reads it
    (https://ai.google.dev/gemini-api/docs/openai#extra-body)."""
    found = camelized(extra)
    google = found.pop("google", None)
    if not isinstance(google, dict):
        return found
    own = camelized(google)
    thinking = own.pop("thinkingConfig", None)
    if thinking is not None:
        own["generationConfig"] = {"thinkingConfig": thinking}
    return merged(own, found)


# --- contents ---


def _parts_of_system(conversation: Conversation, name: str) -> list[_Json]:
    parts: list[_Json] = [{"text": block.text} for block in conversation.system if block.text]
    if parts and not gemini_models.has_system_prompt(name):
        raise FormatError("system prompts aren't supported on gemini-1.0 models")
    return parts


def _with_system(system: list[_Json], contents: list[_Json]) -> list[_Json]:
    """The system's texts as the beginning of the first turn of the user."""
    if contents and contents[0]["role"] == "user":
        parts = contents[0]["parts"]
        assert isinstance(parts, list)
        return [{"role": "user", "parts": [*system, *parts]}, *contents[1:]]
    return [{"role": "user", "parts": system}, *contents]


def _contents(conversation: Conversation, name: str) -> list[_Json]:
    """The turns. Results of functions have to follow their calls at once and alone: the servers
    count them against the calls of the turn before."""
    contents: list[_Json] = []
    for role, blocks in _turns(conversation):
        if role == "assistant":
            parts = _model_parts(blocks)
            if gemini_models.checks_signatures(name):
                _sign(parts)
            _add(contents, "model", parts)
            continue
        nested = gemini_models.checks_signatures(name)
        results = [(where, each) for where, each in blocks if isinstance(each, ToolResult)]
        _add(contents, "user", [_result(each, where, nested) for where, each in results])
        others = [part for where, each in blocks for part in _user_parts(each, where, nested)]
        _add(contents, "user", others)
    return contents


def _add(contents: list[_Json], role: str, parts: list[_Json]) -> None:
    if parts:
        contents.append({"role": role, "parts": parts})


def _turns(conversation: Conversation) -> Iterator[tuple[str, list[tuple[str, Block]]]]:
    """Role and blocks of each turn, with where in the request they stand."""
    last, blocks = "", list[tuple[str, Block]]()
    messages: Iterable[Message] = conversation.messages
    if any(
        isinstance(block, ToolResult) and not block.name
        for message in messages
        for block in message.blocks
    ):
        messages = named_results(messages)
    for number, message in enumerate(messages):
        if message.role == "system":
            continue
        if message.role != last and blocks:
            yield last, blocks
            blocks = []
        last = message.role
        places = (f"messages[{number}].content[{at}]" for at in range(len(message.blocks)))
        blocks += zip(places, message.blocks, strict=True)
    if blocks:
        yield last, blocks


def _user_parts(block: Block, where: str, nested: bool) -> list[_Json]:
    match block:
        case Text(text):
            return [{"text": text}] if text else []
        case Media():
            return [media_part(block, where)]
        case ToolResult():
            media = (each for each in block.content if isinstance(each, Media))
            return [media_part(each, where) for each in media if not (nested and each.data)]
    raise FormatError(f"{where}: only a model can say this")


def _model_parts(blocks: list[tuple[str, Block]]) -> list[_Json]:
    """A signature belongs to the text after the thought that it signs, or to an empty one: thoughts
    that can be read are summaries, and never signed themselves."""
    parts: list[_Json] = []
    signature = ""
    for where, block in blocks:
        part = _model_part(block, where)
        if not part:
            continue
        if signature and "text" in part and "thought" not in part:
            part["thoughtSignature"] = signature
        elif signature:
            parts.append({"text": "", "thoughtSignature": signature})
        signature = ""
        if isinstance(block, Thinking) and block.signature.startswith(SIGNED):
            signature = block.signature.removeprefix(SIGNED)
        if part != {"text": "", "thought": True}:
            parts.append(part)
    if signature:
        parts.append({"text": "", "thoughtSignature": signature})
    return parts


def _model_part(block: Block, where: str) -> _Json:
    match block:
        case Text(text) | Refusal(text):
            return {"text": text} if text else {}
        case Thinking(text):
            return {} if block.redacted else {"text": text, "thought": True}
        case Media():
            return media_part(block, where)
        case ToolCall():
            call: _Json = {
                "name": block.name,
                "args": arguments_object(block.arguments, f"{where}: arguments"),
            }
            if block.id:
                call["id"] = block.id
            signed = {"thoughtSignature": block.signature} if block.signature else {}
            return {"functionCall": call, **signed}
    raise FormatError(f"{where}: only a user can say this")


def _sign(parts: list[_Json]) -> None:
    """Of calls made at once the first one is signed."""
    calls = [part for part in parts if "functionCall" in part]
    if calls and not any("thoughtSignature" in part for part in calls):
        calls[0]["thoughtSignature"] = _NO_SIGNATURE


def _result(block: ToolResult, where: str, nested: bool) -> _Json:
    if not block.name:
        raise FormatError(
            f"{where}: the result is of a call {block.call_id!r} that no message before has made"
        )
    text = "".join(each.text for each in block.content if isinstance(each, Text))
    response = {"error": text} if block.is_error else json_object(text)
    found: _Json = {
        "name": block.name,
        "response": {"result": text} if response is None else response,
    }
    if block.call_id:
        found["id"] = block.call_id
    media = [each for each in block.content if isinstance(each, Media)] if nested else []
    inside = [media_part(each, where) for each in media if each.data]
    if inside:
        found["parts"] = inside
    return {"functionResponse": found}


def media_part(media: Media, where: str) -> _Json:
    """`inlineData` or `fileData`. Raises FormatError."""
    if media.data:
        if not media.media_type:
            raise FormatError(f"{where}: expected data with its media type, such as image/png")
        return {"inlineData": {"mimeType": media.media_type, "data": media.data}}
    url = media.url
    if not url and media.file_id.startswith("files/"):
        url = _FILES + media.file_id
    if not url:
        raise FormatError(f"{where}: Gemini has no file {media.file_id!r}")
    ending = url.partition("?")[0].rpartition(".")[2].lower()
    media_type = media.media_type or _EXTENSIONS.get(ending, "")
    return {"fileData": {**({"mimeType": media_type} if media_type else {}), "fileUri": url}}


# --- tools ---


def _tools(conversation: Conversation) -> list[_Json]:
    found: list[_Json] = []
    if conversation.tools:
        found.append({"functionDeclarations": [_declaration(tool) for tool in conversation.tools]})
    for number, native in enumerate(conversation.native_tools):
        entry = camelized(native)
        if not entry or not entry.keys() <= _TOOLS:
            known = ", ".join(sorted(_TOOLS))
            wrong(f"tools[{len(conversation.tools) + number}]", f"a function, or one of {known}")
        found.append(entry)
    return found


def _declaration(tool: Tool) -> _Json:
    found: _Json = {"name": tool.name}
    if tool.description:
        found["description"] = tool.description
    if tool.parameters is not None:
        member = "parameters" if is_plain(tool.parameters) else "parametersJsonSchema"
        found[member] = tool.parameters
    return found


def _function_calling(choice: ToolChoice) -> _Json:
    names = {"allowedFunctionNames": [choice.name]} if choice.mode == "tool" else {}
    return {"mode": _MODES[choice.mode], **names}


# --- generationConfig ---


def _generation(conversation: Conversation, name: str, dropped: list[str]) -> _Json:
    found: _Json = {}
    for key, value in conversation.settings.items():
        if key == "logprobs":
            found |= _logprobs(value)
        elif key in _NAMES:
            found[_NAMES[key]] = value
        elif key == "modalities" and isinstance(value, list):
            found["responseModalities"] = [str(each).upper() for each in value]
        elif camel(key) not in _PASSED or key == "service_tier":
            dropped.append(key)
    if conversation.output:
        found |= _output(conversation.output)
    if conversation.reasoning:
        config = gemini_models.thinking_config(conversation.reasoning, name)
        if config is None:
            dropped.append("reasoning_effort")
        elif config:
            found["thinkingConfig"] = config
    return found


def _logprobs(value: object) -> _Json:
    """OpenAI's chat says whether, its completions how many."""
    if type(value) is int:
        return {"responseLogprobs": True, "logprobs": value}
    return {"responseLogprobs": value}


def _output(output: OutputFormat) -> _Json:
    found: _Json = {"responseMimeType": _JSON_TYPE}
    if output.schema is not None:
        member = "responseSchema" if is_plain(output.schema) else "responseJsonSchema"
        found[member] = output.schema
    return found
