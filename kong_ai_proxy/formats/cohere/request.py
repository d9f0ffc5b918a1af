"""Requests of Cohere's chat, API v2: https://docs.cohere.com/reference/chat."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from kong_ai_proxy.formats.cohere.common import SAME, render_settings, settings_from
from kong_ai_proxy.formats.conversation import (
    BUDGETS,
    Block,
    Conversation,
    Media,
    Message,
    OutputFormat,
    Reasoning,
    Refusal,
    Rendered,
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
    data_url,
    json_text,
    media_of_url,
    object_of,
    objects,
    text_of,
    wrong,
)

_KNOWN = frozenset(
    {
        "extra_body",
        "messages",
        "model",
        "response_format",
        "stream",
        "strict_tools",
        "thinking",
        "tool_choice",
        "tools",
    }
)
_NAMES = {"p": "top_p", "k": "top_k", "stop_sequences": "stop"}
_THEIR_NAMES = {ours: theirs for theirs, ours in _NAMES.items()}
_TAKEN = SAME | _THEIR_NAMES.keys() | {"citation_options", "documents", "priority", "safety_mode"}

_MAX_EFFORT = 31_000
"""Most tokens of thinking that leave room for an answer:
https://docs.cohere.com/docs/reasoning#thinking-budgets."""


# ---- of a client


def parse(body: Mapping[str, object], model: str, stream: bool | None) -> Conversation:
    """A client's request. Raises FormatError."""
    settings = settings_from(body, _KNOWN, _NAMES)
    if "stop" in settings:
        stops = an_array(settings["stop"], "stop_sequences")
        settings["stop"] = [a_text(each, "stop_sequences") for each in stops]
    strict = body.get("strict_tools") is True or None
    return Conversation(
        messages=tuple(
            _message(value, where) for where, value in objects(body.get("messages"), "messages")
        ),
        model=text_of(body, "model") or model,
        stream=body.get("stream") is True if stream is None else stream,
        wants_usage=True,
        tools=tuple(
            _tool(value, where, strict) for where, value in objects(body.get("tools"), "tools")
        ),
        tool_choice=_tool_choice(body.get("tool_choice")),
        output=_output(body.get("response_format")),
        reasoning=_reasoning(body.get("thinking")),
        settings=settings,
        extra=object_of(body, "extra_body"),
    )


def _message(value: Mapping[str, object], where: str) -> Message:
    role = a_text(value.get("role"), f"{where}.role").lower()
    content = f"{where}.content"
    if role == "system":
        return Message("system", tuple(_texts(value.get("content"), content)))
    if role == "user":
        return Message("user", tuple(_user_blocks(value.get("content"), content)))
    if role == "assistant":
        return Message("assistant", tuple(_assistant_blocks(value, where)))
    if role != "tool":
        wrong(f"{where}.role", "system, user, assistant or tool")
    call = a_text(value.get("tool_call_id"), f"{where}.tool_call_id")
    return Message("user", (ToolResult(call, tuple(_texts(value.get("content"), content))),))


def _blocks(value: object, where: str) -> Iterator[tuple[str, str, Mapping[str, object]]]:
    """Each content block with its place and type. One that stands alone may come without array."""
    for place, block in objects([value] if isinstance(value, dict) else value, where):
        yield place, a_text(block.get("type"), f"{place}.type"), block


def _texts(value: object, where: str) -> Iterator[Text]:
    if isinstance(value, str):
        yield Text(value)
        return
    for place, kind, block in _blocks(value, where):
        if kind == "text":
            yield Text(a_text(block.get("text"), f"{place}.text"))
        elif kind == "document":
            yield Text(_document(an_object(block.get("document"), f"{place}.document")))
        else:
            wrong(f"{place}.type", "text or document")


def _document(document: Mapping[str, object]) -> str:
    """What the model is told of it: its data, and its id where it has one to be cited by. Cohere's
    own examples have JSON as a text there (https://docs.cohere.com/v2/docs/tool-use-overview)."""
    told = document if document.get("id") else document.get("data", document)
    return told if isinstance(told, str) else json_text(told)


def _user_blocks(value: object, where: str) -> Iterator[Block]:
    if isinstance(value, str):
        yield Text(value)
        return
    for place, kind, block in _blocks(value, where):
        if kind == "text":
            yield Text(a_text(block.get("text"), f"{place}.text"))
        elif kind == "image_url":
            image = an_object(block.get("image_url"), f"{place}.image_url")
            url = a_text(image.get("url"), f"{place}.image_url.url")
            yield media_of_url("image", url, detail=text_of(image, "detail"))
        else:
            wrong(f"{place}.type", "text or image_url")


def _assistant_blocks(value: Mapping[str, object], where: str) -> Iterator[Block]:
    yield from _said(value.get("content"), f"{where}.content")
    if plan := text_of(value, "tool_plan"):
        yield Text(plan)
    for place, call in objects(value.get("tool_calls"), f"{where}.tool_calls"):
        function = an_object(call.get("function"), f"{place}.function")
        yield ToolCall(
            a_text(call.get("id"), f"{place}.id"),
            a_text(function.get("name"), f"{place}.function.name"),
            text_of(function, "arguments") or "{}",
        )


def _said(value: object, where: str) -> Iterator[Text | Thinking]:
    if isinstance(value, str):
        if value:
            yield Text(value)
        return
    for place, kind, block in _blocks(value, where):
        if kind == "text":
            yield Text(a_text(block.get("text"), f"{place}.text"))
        elif kind == "thinking":
            yield Thinking(a_text(block.get("thinking"), f"{place}.thinking"))
        else:
            wrong(f"{place}.type", "text or thinking")


def _tool(value: Mapping[str, object], where: str, strict: bool | None) -> Tool:
    function = an_object(value.get("function"), f"{where}.function")
    parameters = function.get("parameters")
    return Tool(
        name=a_text(function.get("name"), f"{where}.function.name"),
        description=text_of(function, "description"),
        parameters=an_object(parameters, f"{where}.function.parameters") if parameters else None,
        strict=strict,
    )


def _tool_choice(value: object) -> ToolChoice | None:
    if value is None:
        return None
    mode = a_text(value, "tool_choice").upper()
    if mode not in ("REQUIRED", "NONE"):
        wrong("tool_choice", "REQUIRED or NONE")
    return ToolChoice("required" if mode == "REQUIRED" else "none")


def _output(value: object) -> OutputFormat | None:
    if value is None:
        return None
    wanted = an_object(value, "response_format")
    if wanted.get("type") != "json_object":
        return None
    # The guide of structured outputs calls it `schema`, the API reference `json_schema`.
    schema = wanted.get("json_schema") or wanted.get("schema")
    return OutputFormat(schema=an_object(schema, "response_format.json_schema") if schema else None)


def _reasoning(value: object) -> Reasoning | None:
    if value is None:
        return None
    thinking = an_object(value, "thinking")
    if thinking.get("type") == "disabled":
        return Reasoning(budget=0)
    budget = thinking.get("token_budget")
    return Reasoning(budget=budget if type(budget) is int else -1)


# ---- for a provider


def render(conversation: Conversation) -> Rendered:
    """A provider's request. Raises FormatError."""
    body: dict[str, object] = {"model": conversation.model} if conversation.model else {}
    body["messages"] = list(_messages(conversation))
    body["stream"] = conversation.stream
    dropped = _render_tools(conversation, body)
    if conversation.output:
        schema = conversation.output.schema
        body["response_format"] = {
            "type": "json_object",
            **({"json_schema": schema} if schema is not None else {}),
        }
    if thinking := _thinking(conversation.reasoning):
        body["thinking"] = thinking
    dropped += render_settings(conversation.settings, body, _THEIR_NAMES, _takes)
    if conversation.has_names:
        dropped.append("name")
    if conversation.has_cache_points:
        dropped.append("cache_control")
    body.update(conversation.extra)
    return Rendered(body, tuple(dropped))


def _takes(name: str, value: object) -> bool:
    """`logprobs` is a number in requests for completions."""
    return name in _TAKEN or (name == "logprobs" and isinstance(value, bool))


def _messages(conversation: Conversation) -> Iterator[dict[str, object]]:
    """One system message, which has to be the first ("system turn must be the first in the list",
    https://docs.cohere.com/reference/errors), and the turns. Results of tools follow their calls,
    so they go before whatever else the user says in the same turn."""
    if system := conversation.system:
        yield {"role": "system", "content": _text_content(system)}
    results: list[dict[str, object]] = []
    others: list[dict[str, object]] = []
    for index, message in enumerate(conversation.messages):
        if message.role == "user":
            _split(message, f"messages[{index}]", results, others)
        elif message.role == "assistant":
            yield from (*results, *others)
            results, others = [], []
            if said := _assistant(message, f"messages[{index}]"):
                yield said
    yield from (*results, *others)


def _split(
    message: Message,
    where: str,
    results: list[dict[str, object]],
    others: list[dict[str, object]],
) -> None:
    content: list[dict[str, object]] = []
    for index, block in enumerate(message.blocks):
        place = f"{where}.content[{index}]"
        if isinstance(block, ToolResult):
            results.append(_result(block, place))
        elif isinstance(block, Text):
            content.append({"type": "text", "text": block.text})
        elif isinstance(block, Media):
            content.append(_image(block, place))
        else:
            wrong(place, "text, an image or a tool's result")
    if content or not message.blocks:
        others.append({"role": "user", "content": _shortest(content)})


def _shortest(content: list[dict[str, object]]) -> object:
    """A string where it is one text: what all models take."""
    if not content:
        return ""
    return content[0]["text"] if len(content) == 1 and "text" in content[0] else content


def _text_content(texts: Iterable[Text]) -> object:
    return _shortest([{"type": "text", "text": text.text} for text in texts])


def _image(media: Media, where: str) -> dict[str, object]:
    if media.kind != "image" or media.file_id:
        wrong(where, "text or an image, by its URL or as data: Cohere takes nothing else")
    detail = {"detail": media.detail} if media.detail else {}
    return {"type": "image_url", "image_url": {"url": data_url(media), **detail}}


def _result(result: ToolResult, where: str) -> dict[str, object]:
    """An error is marked by its first word: there is no member for it."""
    texts = []
    for index, block in enumerate(result.content):
        if not isinstance(block, Text):
            wrong(f"{where}.content[{index}]", "text: Cohere takes nothing else of a tool")
        texts.append(block)
    if result.is_error:
        first = texts.pop(0).text if texts else ""
        texts.insert(0, Text(f"Error: {first}".rstrip()))
    return {"role": "tool", "tool_call_id": result.call_id, "content": _text_content(texts)}


def _assistant(message: Message, where: str) -> dict[str, object]:
    """Empty for a message that says nothing, which Cohere refuses.

    What is said beside calls is the plan of them. The signatures of thoughts, and thoughts that
    only another provider can read, have no meaning here.
    """
    has_calls = any(isinstance(block, ToolCall) for block in message.blocks)
    content: list[dict[str, object]] = []
    plans: list[str] = []
    calls: list[dict[str, object]] = []
    for index, block in enumerate(message.blocks):
        match block:
            case Text(text=text) | Refusal(text=text):
                if has_calls:
                    plans.append(text)
                elif text:
                    content.append({"type": "text", "text": text})
            case Thinking(text):
                content += [{"type": "thinking", "thinking": text}] if text else []
            case ToolCall():
                calls.append(_call(block))
            case _:
                wrong(f"{where}.content[{index}]", "text, thoughts or tool calls of the assistant")
    plan = "\n".join(plans)
    if not content and not calls:
        return {}
    return {
        "role": "assistant",
        **({"content": _shortest(content)} if content else {}),
        **({"tool_plan": plan} if plan else {}),
        **({"tool_calls": calls} if calls else {}),
    }


def _call(call: ToolCall) -> dict[str, object]:
    function = {"name": call.name, "arguments": call.arguments or "{}"}
    return {"id": call.id, "type": "function", "function": function}


def _render_tools(conversation: Conversation, body: dict[str, object]) -> list[str]:
    """Tools and how they are chosen; returns what of it cannot be said."""
    if conversation.native_tools:
        wrong("tools", "functions only: Cohere has no other tools")
    tools: Sequence[Tool] = conversation.tools
    choice = conversation.tool_choice
    if choice and choice.mode == "tool":
        # There is no way to name one: the model has to call one, and there is no other.
        tools = [tool for tool in tools if tool.name == choice.name]
        if not tools:
            raise FormatError(f"tool_choice: expected the name of one of the tools: {choice.name}")
    if tools:
        body["tools"] = [_function(tool) for tool in tools]
    if choice and choice.mode != "auto":
        body["tool_choice"] = "NONE" if choice.mode == "none" else "REQUIRED"
    dropped = [] if conversation.parallel_tool_calls is not False else ["parallel_tool_calls"]
    if any(tool.strict for tool in tools):
        if all(map(_may_be_strict, tools)):
            body["strict_tools"] = True
        else:
            dropped.append("strict")
    return dropped


def _may_be_strict(tool: Tool) -> bool:
    """All tools are strict, or none: https://docs.cohere.com/docs/structured-outputs. "You must
    specify at least one `required` parameter"."""
    return bool(tool.strict and tool.parameters and tool.parameters.get("required"))


def _function(tool: Tool) -> dict[str, object]:
    return {
        "type": "function",
        "function": {
            "name": tool.name,
            **({"description": tool.description} if tool.description else {}),
            "parameters": tool.parameters or {"type": "object", "properties": {}},
        },
    }


def _thinking(reasoning: Reasoning | None) -> dict[str, object] | None:
    if reasoning is None:
        return None
    budget = reasoning.budget
    if budget is None and reasoning.effort is not None:
        budget = min(BUDGETS.get(reasoning.effort, -1), _MAX_EFFORT)
    if budget is None:
        return None
    if budget == 0:
        return {"type": "disabled"}
    return {"type": "enabled", **({"token_budget": budget} if budget > 0 else {})}
