"""Requests that clients of Bedrock's Converse and ConverseStream send, such as boto3.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html

Cache points are blocks of their own here, and become the `cache` of the block before them; where
none before them can have one they are passed over, since they change no answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import orjson

from kong_ai_proxy.formats.bedrock import media as bedrock_media
from kong_ai_proxy.formats.conversation import (
    Block,
    Conversation,
    Media,
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

_INFERENCE = {
    "maxTokens": "max_tokens",
    "temperature": "temperature",
    "topP": "top_p",
    "stopSequences": "stop",
}
_ADDITIONAL = "additionalModelRequestFields"
_EFFORTS = {"max": "xhigh"}
_ROLES: Mapping[str, Role] = {"user": "user", "assistant": "assistant", "system": "system"}
_READ = frozenset({"messages", "system", "toolConfig", "inferenceConfig", _ADDITIONAL})

Json = Mapping[str, object]


def parse(body: Json, model: str, stream: bool) -> Conversation:
    """A client's request. Raises FormatError."""
    tools, native_tools, choice = _tool_config(body.get("toolConfig"))
    settings: dict[str, object] = {
        name: value for name, value in body.items() if name not in _READ and value is not None
    }
    output, effort = _output(settings)
    reasoning = _additional(body.get(_ADDITIONAL), settings) or effort
    _inference(body.get("inferenceConfig"), settings)
    tier = settings.get("serviceTier")
    if isinstance(tier, dict) and isinstance(tier.get("type"), str):
        settings["service_tier"] = tier["type"]
        del settings["serviceTier"]
    return Conversation(
        messages=(*_system(body.get("system")), *_messages(body.get("messages"))),
        model=model,
        stream=stream,
        wants_usage=True,
        tools=tools,
        native_tools=native_tools,
        tool_choice=choice,
        output=output,
        reasoning=reasoning,
        settings=settings,
    )


# --- messages ---


def _system(value: object) -> tuple[Message, ...]:
    blocks: list[Block] = []
    for where, block in objects(value, "system"):
        _add(blocks, block, where, ("text", "guardContent", "cachePoint"))
    return (Message("system", tuple(blocks)),) if blocks else ()


def _messages(value: object) -> list[Message]:
    found: list[Message] = []
    for where, message in objects(value, "messages"):
        role = _role(message.get("role"), f"{where}.role")
        blocks: list[Block] = []
        for place, block in objects(message.get("content"), f"{where}.content"):
            _add(blocks, block, place, _ALLOWED[role])
        found.append(Message(role, tuple(blocks)))
    return found


def _role(value: object, where: str) -> Role:
    role = _ROLES.get(a_text(value, where).lower())
    return role or wrong(where, "user, assistant or system")


def _add(blocks: list[Block], block: Json, where: str, allowed: tuple[str, ...]) -> None:
    """One block more, or the cache point of the ones so far."""
    name = next((name for name, value in block.items() if value is not None), "")
    if name not in allowed:
        wrong(where, f"a block of one of {', '.join(allowed)}; {name!r} cannot be carried over")
    value, place = block[name], f"{where}.{name}"
    if name == "cachePoint":
        _cache(blocks, an_object(value, place))
    elif name in bedrock_media.BLOCKS:
        blocks.append(bedrock_media.parsed(name, value, place))
    else:
        blocks.append(_BLOCKS[name](value, place))


def _cache(blocks: list[Block], point: Json) -> None:
    lifetime = text_of(point, "ttl")
    for place in reversed(range(len(blocks))):
        block = blocks[place]
        if isinstance(block, Text | Media | ToolCall | ToolResult):
            blocks[place] = replace(block, cache=lifetime)
            return


def _text(value: object, where: str) -> Text:
    return Text(a_text(value, where))


def _guarded(value: object, where: str) -> Text | Media:
    """What a guardrail looks at is also what the model reads."""
    content = an_object(value, where)
    if content.get("image") is not None:
        return bedrock_media.parsed("image", content["image"], f"{where}.image")
    text = an_object(content.get("text"), f"{where}.text")
    return Text(a_text(text.get("text"), f"{where}.text.text"))


def _thought(value: object, where: str) -> Thinking:
    content = an_object(value, where)
    if content.get("redactedContent") is not None:
        data = a_text(content["redactedContent"], f"{where}.redactedContent")
        return Thinking("", redacted=data)
    thought = an_object(content.get("reasoningText"), f"{where}.reasoningText")
    text = a_text(thought.get("text"), f"{where}.reasoningText.text")
    return Thinking(text, text_of(thought, "signature"))


def _call(value: object, where: str) -> ToolCall:
    call = an_object(value, where)
    given = call.get("input")
    return ToolCall(
        a_text(call.get("toolUseId"), f"{where}.toolUseId"),
        a_text(call.get("name"), f"{where}.name"),
        json_text(an_object({} if given is None else given, f"{where}.input")),
    )


def _result(value: object, where: str) -> ToolResult:
    result = an_object(value, where)
    content: list[Text | Media] = []
    for place, part in objects(result.get("content"), f"{where}.content"):
        content.append(_result_part(part, place))
    return ToolResult(
        a_text(result.get("toolUseId"), f"{where}.toolUseId"),
        tuple(content),
        is_error=result.get("status") == "error",
    )


def _result_part(part: Json, where: str) -> Text | Media:
    name = next((name for name, value in part.items() if value is not None), "")
    if name == "text":
        return Text(a_text(part[name], f"{where}.text"))
    if name == "json":
        return Text(json_text(part[name]))
    if name in bedrock_media.BLOCKS:
        return bedrock_media.parsed(name, part[name], f"{where}.{name}")
    if name != "searchResult":
        wrong(where, f"text, json, image, document, video or searchResult, not {name!r}")
    return _search_result(part[name], f"{where}.{name}")


def _search_result(value: object, where: str) -> Text:
    """Something found, as a text that says where."""
    found = an_object(value, where)
    parts = [text_of(found, "title"), text_of(found, "source")]
    parts += [text_of(each, "text") for _, each in objects(found.get("content"), where)]
    return Text("\n".join(part for part in parts if part))


def _cited(value: object, where: str) -> Text:
    """What the assistant said; the citations of it are notes for a reader."""
    content = objects(an_object(value, where).get("content"), f"{where}.content")
    return Text("".join(text_of(part, "text") for _, part in content))


_BLOCKS: Mapping[str, Callable[[object, str], Block]] = {
    "text": _text,
    "guardContent": _guarded,
    "reasoningContent": _thought,
    "toolUse": _call,
    "toolResult": _result,
    "citationsContent": _cited,
    "searchResult": _search_result,
}
_MEDIA = tuple(sorted(bedrock_media.BLOCKS))
_ALLOWED: Mapping[Role, tuple[str, ...]] = {
    "system": ("text", "guardContent", "cachePoint"),
    "user": ("text", *_MEDIA, "toolResult", "guardContent", "searchResult", "cachePoint"),
    "assistant": (
        "text",
        *_MEDIA,
        "toolUse",
        "reasoningContent",
        "citationsContent",
        "guardContent",
        "cachePoint",
    ),
}


# --- tools ---


def _tool_config(
    value: object,
) -> tuple[tuple[Tool, ...], tuple[Json, ...], ToolChoice | None]:
    if value is None:
        return (), (), None
    config = an_object(value, "toolConfig")
    tools: list[Tool] = []
    native_tools: list[Json] = []
    for where, tool in objects(config.get("tools"), "toolConfig.tools"):
        if tool.get("toolSpec") is not None:
            tools.append(_tool(an_object(tool["toolSpec"], f"{where}.toolSpec"), where))
        elif tool.get("cachePoint") is None:
            native_tools.append(tool)
        elif tools:
            lifetime = text_of(object_of(tool, "cachePoint"), "ttl")
            tools[-1] = replace(tools[-1], cache=lifetime)
    return tuple(tools), tuple(native_tools), _choice(config.get("toolChoice"))


def _tool(spec: Json, where: str) -> Tool:
    schema = object_of(spec, "inputSchema").get("json")
    strict = spec.get("strict")
    return Tool(
        name=a_text(spec.get("name"), f"{where}.toolSpec.name"),
        description=text_of(spec, "description"),
        parameters=None
        if schema is None
        else an_object(schema, f"{where}.toolSpec.inputSchema.json"),
        strict=strict if isinstance(strict, bool) else None,
    )


def _choice(value: object) -> ToolChoice | None:
    if value is None:
        return None
    choice = an_object(value, "toolConfig.toolChoice")
    if choice.get("any") is not None:
        return ToolChoice("required")
    if choice.get("tool") is not None:
        tool = an_object(choice["tool"], "toolConfig.toolChoice.tool")
        return ToolChoice("tool", a_text(tool.get("name"), "toolConfig.toolChoice.tool.name"))
    return ToolChoice("auto")


# --- settings ---


def _inference(value: object, settings: dict[str, object]) -> None:
    if value is None:
        return
    for name, found in an_object(value, "inferenceConfig").items():
        if found is not None:
            settings[_INFERENCE.get(name, name)] = found
    if "stop" in settings:
        an_array(settings["stop"], "inferenceConfig.stopSequences")


def _additional(value: object, settings: dict[str, object]) -> Reasoning | None:
    """The model's own settings: those that other models have too under their usual names, the rest
    as it came."""
    if value is None:
        return None
    left = dict(an_object(value, _ADDITIONAL))
    inference = object_of(left, "inferenceConfig")
    found = left.pop("top_k", None) or left.pop("k", None) or inference.get("topK")
    if found is not None:
        settings["top_k"] = found
        if list(inference) == ["topK"]:
            del left["inferenceConfig"]
    reasoning = _reasoning(left)
    if left:
        settings[_ADDITIONAL] = left
    return reasoning


def _reasoning(left: dict[str, object]) -> Reasoning | None:
    """How much Claude, Nova or gpt-oss is asked to think; takes it out of `left`."""
    effort = text_of(object_of(left, "output_config"), "effort")
    claude = left.get("thinking") or left.get("reasoning_config")
    if isinstance(claude, dict):
        left.pop("thinking", None)
        left.pop("reasoning_config", None)
        budget = claude.get("budget_tokens")
        if claude.get("type") == "disabled":
            return Reasoning(budget=0)
        if isinstance(budget, int):
            return Reasoning(budget=budget)
        if list(object_of(left, "output_config")) == ["effort"]:
            del left["output_config"]
        return Reasoning(effort=_EFFORTS.get(effort, effort) or "high")
    nova = left.pop("reasoningConfig", None)
    if isinstance(nova, dict):
        on = nova.get("type") == "enabled"
        return Reasoning(effort=text_of(nova, "maxReasoningEffort") or "medium" if on else "none")
    told = left.pop("reasoning_effort", None)
    return Reasoning(effort=told) if isinstance(told, str) else None


def _output(settings: dict[str, object]) -> tuple[OutputFormat | None, Reasoning | None]:
    """What `outputConfig` says of the answer's form and of effort."""
    config = settings.pop("outputConfig", None)
    if config is None:
        return None, None
    said = an_object(config, "outputConfig")
    effort = text_of(said, "effort")
    reasoning = Reasoning(effort=_EFFORTS.get(effort, effort)) if effort else None
    if said.get("textFormat") is None:
        return None, reasoning
    where = "outputConfig.textFormat.structure.jsonSchema"
    shape = object_of(object_of(said, "textFormat"), "structure").get("jsonSchema")
    found = an_object(shape, where)
    schema = _schema(found.get("schema"), f"{where}.schema")
    name, description = text_of(found, "name"), text_of(found, "description")
    return OutputFormat(schema=schema, name=name, description=description), reasoning


def _schema(value: object, where: str) -> Json:
    try:
        return an_object(orjson.loads(a_text(value, where)), where)
    except orjson.JSONDecodeError:
        wrong(where, "a JSON Schema as a text")
