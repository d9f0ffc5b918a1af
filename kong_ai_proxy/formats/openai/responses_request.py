"""OpenAI's Responses, a client's request read.

https://platform.openai.com/docs/api-reference/responses/create. Only requests that are converted
are read here, so there is nobody who keeps what was said before: the whole conversation has to be
in `input`, and what refers to something stored is an error, as is a tool that OpenAI runs. That an
answer is not stored is no error as long as storing it was not asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

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
    ToolResult,
    merged,
)
from kong_ai_proxy.formats.errors import FormatError
from kong_ai_proxy.formats.fields import (
    a_text,
    an_array,
    an_object,
    media_of_url,
    objects,
    text_of,
    wrong,
)
from kong_ai_proxy.formats.openai import responses_items as items
from kong_ai_proxy.formats.openai import responses_tools

Object = Mapping[str, object]

LOGPROBS = "message.output_text.logprobs"
ENCRYPTED = "reasoning.encrypted_content"
"""Entries of `include`."""

_ROLES: Mapping[str, Role] = {
    "user": "user",
    "system": "system",
    "developer": "system",
    "assistant": "assistant",
}
_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh")
_DETAILS: Mapping[str, str] = {"low": "low", "high": "high", "original": "high"}
"""Of images. The last is known to Responses alone; auto is what all do of themselves."""
_STATELESS = "this route keeps no responses"
_ITEMS = (
    "a message, function_call, function_call_output, custom_tool_call, custom_tool_call_output or "
    "reasoning: other items, such as calls of hosted tools, cannot be carried over to this "
    "provider; leave them out"
)


def parse_request(body: Object, *, model: str, stream: bool | None) -> Conversation:
    """See ChatClient."""
    said = {name: value for name, value in body.items() if value is not None}
    _refuse_stored(said)
    tools = responses_tools.read(said)
    spoken = tuple(_together(_input(said.pop("input", None))))
    if not spoken:
        wrong("input", "something that is said")
    messages = (*_instructions(said), *tools.messages, *spoken)
    named = openai.requested_model({"model": said.pop("model", None)}) or ""
    asked = bool(said.pop("stream", False))
    said.pop("tools", None)
    choice = responses_tools.choice(said.pop("tool_choice", None), tools)
    return Conversation(
        messages=messages,
        model=model or named,
        stream=asked if stream is None else stream,
        wants_usage=True,
        tools=tuple(tools.functions),
        native_tools=tuple(tools.native),
        tool_choice=choice,
        parallel_tool_calls=_flag(said, "parallel_tool_calls"),
        output=_text_options(said),
        reasoning=_reasoning(said),
        extra=an_object(said.pop("extra_body", {}), "extra_body"),
        settings=_settings(said),
    )


def _refuse_stored(said: dict[str, object]) -> None:
    """What is only for OpenAI to do. What asks for nothing else than happens anyway is gone."""
    for name in ("previous_response_id", "conversation"):
        if name in said:
            raise FormatError(f"{name}: {_STATELESS}; send the whole conversation in input instead")
    if _flag(said, "store"):
        raise FormatError(f"store: {_STATELESS}; leave it out, or set it to false")
    if _flag(said, "background"):
        raise FormatError(
            f"background: {_STATELESS}, so none can be fetched later; leave it out, or set it to "
            "false, and use stream for long answers"
        )
    if "prompt" in said:
        raise FormatError(
            "prompt: stored prompts are not known to this provider; send instructions and input"
        )


def _flag(said: dict[str, object], name: str) -> bool | None:
    value = said.pop(name, None)
    if value is not None and not isinstance(value, bool):
        wrong(name, "true or false")
    return value


def _settings(said: dict[str, object]) -> dict[str, object]:
    """What is left of a request once its content is taken out, under the hub's names."""
    limit = said.pop("max_output_tokens", None)
    if limit is not None:
        said["max_tokens"] = limit
    include = an_array(said.pop("include", []), "include")
    if LOGPROBS in include or said.get("top_logprobs"):
        said["logprobs"] = True
    others = [entry for entry in include if entry not in (LOGPROBS, ENCRYPTED)]
    if others:
        said["include"] = others
    if said.get("truncation") == "disabled":  # what all others do
        del said["truncation"]
    if isinstance(said.get("stop"), str):  # not OpenAI's here, but known to nearly all others
        said["stop"] = [said["stop"]]
    if "context_management" in said:  # Anthropic has something else of that name
        said["context_management.compaction"] = said.pop("context_management")
    said.pop("stream_options", None)  # whether pieces are padded, which they are not
    return said


def _others(options: Object, name: str, *known: str) -> dict[str, object]:
    """What an object of options has beside what can be said elsewhere, by names under which it is
    told to be dropped."""
    others = ((member, value) for member, value in options.items() if member not in known)
    return {f"{name}.{member}": value for member, value in others if value is not None}


# ---- input


def _instructions(said: dict[str, object]) -> Iterator[Message]:
    instructions = said.pop("instructions", None)
    if instructions is not None:
        yield Message("system", (Text(a_text(instructions, "instructions")),))


def _input(value: object) -> Iterator[Message]:
    if isinstance(value, str):
        yield Message("user", (Text(value),))
        return
    if not isinstance(value, list) or not value:
        wrong("input", "a string or a non-empty array")
    signature = ""
    for where, item in objects(value, "input"):
        kind = item.get("type", "message")
        if kind == "reasoning":
            signature = items.call_signature(item)
            if not signature:
                yield from _thought(item)
        elif kind in responses_tools.CALLS:
            yield Message("assistant", (responses_tools.call(item, where, signature),))
            signature = ""
        else:
            signature = ""
            yield from _item(item, kind, where)


def _together(messages: Iterator[Message]) -> Iterator[Message]:
    """Thoughts, texts and calls of one turn are items of their own here and one message elsewhere,
    and so are the results of its calls."""
    run: list[Message] = []
    for message in messages:
        if run and not _belongs(run[-1], message):
            yield from merged(run)
            run = []
        run.append(message)
    yield from merged(run)


def _belongs(before: Message, after: Message) -> bool:
    """Texts that follow each other were messages of their own."""
    if before.role != after.role or not before.blocks or not after.blocks:
        return False
    last, first = before.blocks[-1], after.blocks[0]
    if after.role == "assistant":
        return not isinstance(last, Text) or not isinstance(first, Text)
    return isinstance(last, ToolResult) and isinstance(first, ToolResult)


def _item(item: Object, kind: object, where: str) -> Iterator[Message]:
    if kind == "message":
        yield _message(item, where)
    elif kind in responses_tools.RESULTS:
        yield Message("user", (_result(item, where),))
    elif kind == "image_generation_call":
        media = items.image_media(item)
        if media is not None:
            yield Message("assistant", (media,))
    elif kind == "additional_tools":
        return
    elif kind == "item_reference":
        raise FormatError(f"{where}: {_STATELESS}; send the item itself instead of item_reference")
    else:
        wrong(f"{where}.type", _ITEMS)


def _thought(item: Object) -> Iterator[Message]:
    thinking = items.thought(item)
    if thinking != Thinking(""):
        yield Message("assistant", (thinking,))


def _result(item: Object, where: str) -> ToolResult:
    call = a_text(item.get("call_id"), f"{where}.call_id")
    name = responses_tools.called(text_of(item, "name"), text_of(item, "namespace"))
    output = item.get("output")
    if isinstance(output, str):
        return ToolResult(call, (Text(output),) if output else (), name)
    if not isinstance(output, list):
        wrong(f"{where}.output", "a string or an array of parts")
    content: list[Text | Media] = []
    for place, part in objects(output, f"{where}.output"):
        block = _part(part, place)
        if isinstance(block, Refusal):
            wrong(f"{place}.type", "input_text, input_image or input_file")
        content.append(block)
    return ToolResult(call, tuple(content), name)


def _message(item: Object, where: str) -> Message:
    role = _ROLES.get(text_of(item, "role").lower())
    if role is None:
        wrong(f"{where}.role", "one of user, assistant, system, developer")
    content = item.get("content")
    if isinstance(content, str):
        return Message(role, (Text(content),) if content or role == "user" else ())
    if not isinstance(content, list):
        wrong(f"{where}.content", "a string or an array of parts")
    blocks: list[Block] = []
    for place, part in objects(content, f"{where}.content"):
        block = _part(part, place)
        if role == "system" and not isinstance(block, Text):
            wrong(f"{place}.type", "input_text: a system message has only texts")
        if role == "user" and isinstance(block, Refusal):
            wrong(f"{place}.type", "input_text, input_image or input_file: only models refuse")
        blocks.append(block)
    return Message(role, tuple(blocks))


def _part(part: Object, where: str) -> Text | Media | Refusal:
    kind = part.get("type")
    if kind in ("input_text", "output_text", "text"):
        return Text(a_text(part.get("text"), f"{where}.text"), _cache(part))
    if kind == "refusal":
        return Refusal(a_text(part.get("refusal"), f"{where}.refusal"))
    if kind == "input_image":
        return _image(part, where)
    if kind != "input_file":
        wrong(f"{where}.type", "input_text, input_image, input_file, output_text or refusal")
    return _file(part, where)


def _image(part: Object, where: str) -> Media:
    detail = _DETAILS.get(text_of(part, "detail"), "")
    if identity := text_of(part, "file_id"):
        return Media(kind="image", file_id=identity, detail=detail, cache=_cache(part))
    url = part.get("image_url")
    if not isinstance(url, str):
        wrong(f"{where}.image_url", "a URL or a data URL, or file_id")
    media = _from_url("image", url, f"{where}.image_url")
    return Media(
        kind="image",
        data=media.data,
        url=media.url,
        media_type=media.media_type,
        detail=detail,
        cache=_cache(part),
    )


def _file(part: Object, where: str) -> Media:
    name, cache = text_of(part, "filename"), _cache(part)
    if identity := text_of(part, "file_id"):
        return Media(kind="file", file_id=identity, name=name, cache=cache)
    if url := text_of(part, "file_url"):
        return Media(kind="file", url=url, name=name, cache=cache)
    data = part.get("file_data")
    if not isinstance(data, str):
        wrong(f"{where}.file_data", "the file as a data URL, or file_url or file_id")
    if not data.startswith("data:"):
        return Media(kind="file", data=data, name=name, cache=cache)
    media = _from_url("file", data, f"{where}.file_data")
    return Media(kind="file", data=media.data, media_type=media.media_type, name=name, cache=cache)


def _from_url(kind: MediaKind, url: str, where: str) -> Media:
    try:
        return media_of_url(kind, url)
    except FormatError as error:
        raise FormatError(f"{where}: {error}") from None


def _cache(part: Object) -> str | None:
    """A cache point. Twelve hours is longer than anybody else keeps it, who keep it one hour at
    most; half an hour is OpenAI's usual."""
    point = part.get("prompt_cache_breakpoint")
    if not isinstance(point, dict):
        return None
    return "1h" if point.get("ttl") == "12h" else ""


# ---- options


def _text_options(said: dict[str, object]) -> OutputFormat | None:
    options = an_object(said.pop("text", {}), "text")
    if options.get("verbosity") is not None:
        said["verbosity"] = options["verbosity"]
    said.update(_others(options, "text", "format", "verbosity"))
    asked = options.get("format")
    if asked is None:
        return None
    asked = an_object(asked, "text.format")
    kind = asked.get("type")
    if kind == "text":
        return None
    if kind == "json_object":
        return OutputFormat()
    if kind != "json_schema":
        wrong("text.format.type", "text, json_object or json_schema")
    strict = asked.get("strict")
    return OutputFormat(
        schema=an_object(asked.get("schema"), "text.format.schema"),
        name=text_of(asked, "name"),
        description=text_of(asked, "description"),
        strict=strict if isinstance(strict, bool) else None,
    )


def _reasoning(said: dict[str, object]) -> Reasoning | None:
    """How detailed a summary is asked for cannot be said elsewhere, only that there is one."""
    asked = an_object(said.pop("reasoning", {}), "reasoning")
    said.update(_others(asked, "reasoning", "effort", "summary", "generate_summary"))
    effort = asked.get("effort")
    if effort == "max":  # above xhigh, which is the most that the other formats know
        effort = "xhigh"
    if effort is not None and effort not in _EFFORTS:
        wrong("reasoning.effort", ", ".join(_EFFORTS) + " or max")
    shown = asked.get("summary") or asked.get("generate_summary")
    if effort is None and not shown:
        return None
    return Reasoning(effort=str(effort) if effort else None, visible=True if shown else None)
