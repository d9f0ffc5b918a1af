"""Chat completions, a request for a provider.

https://platform.openai.com/docs/api-reference/chat/create. What the format has no member for:

- Cache points are left out, and named: OpenAI caches by itself, and servers that check their input
  refuse `cache_control`.
- Thoughts stay out of the history, but for those without a signature, made by a server of this
  format, in a turn in which a tool was called: DeepSeek demands `reasoning_content` back there
  (https://api-docs.deepseek.com/guides/thinking_mode), and nobody wants it elsewhere.
- Results of tools are text. Images in them follow in a message of the user that says whose they
  are; an error is marked by its first word.
- Texts next to each other are one string: not every server of this format takes parts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

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
    effort,
    with_extra,
)
from kong_ai_proxy.formats.errors import FormatError
from kong_ai_proxy.formats.fields import data_url

SETTINGS = frozenset(
    {
        "audio",
        "frequency_penalty",
        "logit_bias",
        "logprobs",
        "max_tokens",
        "metadata",
        "modalities",
        "moderation",
        "n",
        "prediction",
        "presence_penalty",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",
        "seed",
        "service_tier",
        "stop",
        "store",
        "stream_options",
        "temperature",
        "top_k",
        "top_logprobs",
        "top_p",
        "user",
        "verbosity",
        "web_search_options",
    }
)
"""Settings that the format has. `top_k` is not OpenAI's own, but nearly everybody else's."""

_FORMATS = {
    "audio/wav": "wav",
    "audio/x-wav": "wav",
    "audio/wave": "wav",
    "audio/mp3": "mp3",
    "audio/mpeg": "mp3",
}


def render_request(conversation: Conversation) -> Rendered:
    """See ChatProvider."""
    body: dict[str, object] = {"model": conversation.model} if conversation.model else {}
    body["messages"] = list(_messages(conversation.messages))
    settings = conversation.settings
    body.update((name, value) for name, value in settings.items() if name in SETTINGS)
    if conversation.stream:
        body["stream"] = True
        if conversation.wants_usage:
            options = settings.get("stream_options")
            options = options if isinstance(options, dict) else {}
            body["stream_options"] = {**options, "include_usage": True}
    else:
        body.pop("stream_options", None)
    _add_tools(body, conversation)
    if conversation.output is not None:
        body["response_format"] = _response_format(conversation.output)
    _add_reasoning(body, conversation)
    dropped = [name for name in settings if name not in SETTINGS]
    if conversation.has_cache_points:
        dropped.append("cache_control")
    return Rendered(with_extra(body, conversation.extra), tuple(dropped))


def _add_reasoning(body: dict[str, object], conversation: Conversation) -> None:
    reasoning = conversation.reasoning
    if reasoning is None:
        return
    if reasoning.effort is not None:
        body["reasoning_effort"] = reasoning.effort
    elif reasoning.budget is not None:
        body["reasoning_effort"] = effort(reasoning.budget)


# ---- tools


def _add_tools(body: dict[str, object], conversation: Conversation) -> None:
    """What is said about tools has to be left out where there are none."""
    tools: list[object] = [_tool(tool) for tool in conversation.tools]
    for tool in conversation.native_tools:
        if not isinstance(tool.get("custom"), dict):
            kind = tool.get("type") or ", ".join(tool)
            raise FormatError(f"tools: {kind!r} is no function, and only functions can be used")
        tools.append(tool)
    if tools:
        body["tools"] = tools
        if conversation.parallel_tool_calls is not None:
            body["parallel_tool_calls"] = conversation.parallel_tool_calls
    choice = conversation.tool_choice
    if choice is not None and (tools or choice.mode in ("required", "tool")):
        body["tool_choice"] = _tool_choice(choice)


def _tool(tool: Tool) -> dict[str, object]:
    function: dict[str, object] = {"name": tool.name}
    if tool.description:
        function["description"] = tool.description
    if tool.parameters is not None:
        function["parameters"] = tool.parameters
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _tool_choice(choice: ToolChoice) -> object:
    if choice.mode == "tool":
        return {"type": "function", "function": {"name": choice.name}}
    return choice.mode


def _response_format(output: OutputFormat) -> dict[str, object]:
    if output.schema is None:
        return {"type": "json_object"}
    schema: dict[str, object] = {"name": output.name or "response"}
    if output.description:
        schema["description"] = output.description
    schema["schema"] = output.schema
    if output.strict is not None:
        schema["strict"] = output.strict
    return {"type": "json_schema", "json_schema": schema}


# ---- messages


def _messages(messages: tuple[Message, ...]) -> Iterator[dict[str, object]]:
    joined = list(_joined(messages))
    thoughts_wanted = _turns_with_calls([message for _, message in joined])
    for index, (place, message) in enumerate(joined):
        where = f"messages[{place}]"
        if message.role == "user":
            yield from _user(message, where)
            continue
        said = (
            _system(message)
            if message.role == "system"
            else _assistant(message, where, index in thoughts_wanted)
        )
        if len(said) > 1:
            yield _named(said, message)


def _joined(messages: Iterable[Message]) -> Iterator[tuple[int, Message]]:
    """The messages with their places. Calls made together have to be in one message, and nothing
    may stand between their results."""
    last: tuple[int, Message] | None = None
    for index, message in enumerate(messages):
        if last is not None and _belong_together(last[1], message):
            last = last[0], replace(last[1], blocks=last[1].blocks + message.blocks)
            continue
        if last is not None:
            yield last
        last = index, message
    if last is not None:
        yield last


def _belong_together(one: Message, other: Message) -> bool:
    if (one.role, one.name) != (other.role, other.name):
        return False
    return one.role == "assistant" or (_has(one, ToolResult) and _has(other, ToolResult))


def _named(said: dict[str, object], message: Message) -> dict[str, object]:
    return {**said, "name": message.name} if message.name else said


def _turns_with_calls(messages: list[Message]) -> frozenset[int]:
    """Places of the messages of turns in which a tool was called. A turn begins with a message in
    which the user says something and answers no call."""
    found: set[int] = set()
    turn: list[int] = []
    called = False
    for index, message in enumerate(messages):
        if message.role == "user" and not _has(message, ToolResult):
            turn, called = [], False
        turn.append(index)
        called = called or _has(message, ToolCall)
        if called:
            found.update(turn)
    return frozenset(found)


def _has(message: Message, kind: type[Block]) -> bool:
    return any(isinstance(block, kind) for block in message.blocks)


def _system(message: Message) -> dict[str, object]:
    texts = [block.text for block in message.blocks if isinstance(block, Text)]
    return {"role": "system", "content": "\n\n".join(texts)} if texts else {"role": "system"}


def _user(message: Message, where: str) -> Iterator[dict[str, object]]:
    """Results come first: they have to follow their calls at once."""
    results = [block for block in message.blocks if isinstance(block, ToolResult)]
    parts: list[dict[str, object]] = []
    for result in results:
        yield {"role": "tool", "tool_call_id": result.call_id, "content": _result_text(result)}
        parts.extend(_result_media(result, where))
    others = [
        (f"{where}.content[{index}]", block)
        for index, block in enumerate(message.blocks)
        if not isinstance(block, ToolResult)
    ]
    parts.extend(_part(block, place) for place, block in others)
    if parts:
        yield _named({"role": "user", "content": _content(parts)}, message)


def _content(parts: list[dict[str, object]]) -> object:
    """Texts alone are one string."""
    texts = [part["text"] for part in parts if part["type"] == "text"]
    return "\n\n".join(map(str, texts)) if len(texts) == len(parts) else parts


def _result_text(result: ToolResult) -> str:
    text = "\n\n".join(part.text for part in result.content if isinstance(part, Text))
    if any(isinstance(part, Media) for part in result.content):
        text = f"{text}\n\n(with files, in the next message)".strip()
    if result.is_error:
        return f"Error: {text}".rstrip()
    return text


def _result_media(result: ToolResult, where: str) -> Iterator[dict[str, object]]:
    media = [part for part in result.content if isinstance(part, Media)]
    if media:
        yield {"type": "text", "text": f"Files of the tool result {result.call_id}:"}
    for part in media:
        yield _part(part, f"{where}: a tool result's content")


def _part(block: Block, where: str) -> dict[str, object]:
    if isinstance(block, Text):
        return {"type": "text", "text": block.text}
    if not isinstance(block, Media):
        raise FormatError(f"{where}: only texts, media and tool results can be the user's")
    if block.kind == "file":
        return _file(block, where)
    if block.file_id:
        raise FormatError(
            f"{where}: expected the {block.kind} itself or its URL; "
            "a provider of OpenAI's format takes no id of an uploaded one"
        )
    if block.kind == "audio" and block.data:
        return _audio(block, where)
    kind = f"{block.kind}_url"
    detail = {"detail": block.detail} if block.detail else {}
    return {"type": kind, kind: {"url": data_url(block), **detail}}


def _file(media: Media, where: str) -> dict[str, object]:
    named = {"filename": media.name} if media.name else {}
    if media.file_id:
        return {"type": "file", "file": {**named, "file_id": media.file_id}}
    if media.url:
        raise FormatError(
            f"{where}: expected the file itself; "
            "a provider of OpenAI's format does not fetch files from a URL"
        )
    return {"type": "file", "file": {**named, "file_data": data_url(media)}}


def _audio(media: Media, where: str) -> dict[str, object]:
    named = _FORMATS.get(media.media_type, media.media_type.rpartition("/")[2])
    if not named:
        raise FormatError(f"{where}: expected audio whose media type is known")
    return {"type": "input_audio", "input_audio": {"data": media.data, "format": named}}


def _assistant(message: Message, where: str, thoughts: bool) -> dict[str, object]:
    """Only the role where nothing is left to be said: such a message is left out."""
    said: dict[str, object] = {"role": "assistant"}
    content = _assistant_text(message.blocks, where)
    calls = [_call(block) for block in message.blocks if isinstance(block, ToolCall)]
    refusal = "".join(block.text for block in message.blocks if isinstance(block, Refusal))
    audio = _spoken(message.blocks)
    if content or calls or refusal or audio:
        said["content"] = content or None
    unsigned = _unsigned(message.blocks) if thoughts and said.keys() > {"role"} else ""
    if unsigned:
        said["reasoning_content"] = unsigned
    if refusal:
        said["refusal"] = refusal
    if audio:
        said["audio"] = {"id": audio}
    if calls:
        said["tool_calls"] = calls
    return said


def _assistant_text(blocks: Iterable[Block], where: str) -> str:
    """Texts of the assistant that follow each other are one text in pieces, as where it cites;
    those around something else are paragraphs."""
    paragraphs: list[list[str]] = [[]]
    for index, block in enumerate(blocks):
        if isinstance(block, Text):
            paragraphs[-1].append(block.text)
            continue
        paragraphs.append([])
        if isinstance(block, Media) and not (block.kind == "audio" and block.file_id):
            raise FormatError(
                f"{where}.content[{index}]: a provider of OpenAI's format takes no {block.kind} "
                "in a message of the assistant; leave it out or send it as the user's"
            )
    return "\n\n".join("".join(paragraph) for paragraph in paragraphs if paragraph)


def _spoken(blocks: Iterable[Block]) -> str:
    """The id of an answer that was spoken."""
    return next((b.file_id for b in blocks if isinstance(b, Media) and b.kind == "audio"), "")


def _unsigned(blocks: Iterable[Block]) -> str:
    thoughts = (block for block in blocks if isinstance(block, Thinking))
    return "".join(thought.text for thought in thoughts if not thought.signature)


def _call(call: ToolCall) -> dict[str, object]:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": call.id, "type": "function", "function": function}
