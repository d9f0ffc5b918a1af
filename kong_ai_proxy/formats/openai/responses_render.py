"""OpenAI's Responses, a request for a provider.

https://platform.openai.com/docs/api-reference/responses/create. What the format has no member for:

- Nothing is stored unless the client asked for it, as in all other formats.
- Cache points are left out, and named: models before those that know them refuse them.
- Thoughts of other providers stay out of the history, and OpenAI's own where nothing follows them,
  which it refuses.
- An error of a tool is marked by its first word.
- Functions are strict unless they say otherwise, which is the other way round elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from kong_ai_proxy.formats.conversation import (
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
    effort,
)
from kong_ai_proxy.formats.errors import FormatError
from kong_ai_proxy.formats.fields import data_url
from kong_ai_proxy.formats.openai.responses_items import Item, own_reasoning
from kong_ai_proxy.formats.openai.responses_request import ENCRYPTED, LOGPROBS
from kong_ai_proxy.formats.openai.responses_tools import HOSTED

_SETTINGS = frozenset(
    {
        "access_programs",
        "context_management",
        "image",
        "max_tool_calls",
        "metadata",
        "moderation",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "temperature",
        "top_logprobs",
        "top_p",
        "truncation",
        "user",
    }
)
"""Settings that the format has under the hub's name."""
_OTHERS = frozenset({"include", "logprobs", "max_tokens", "store", "stream_options", "verbosity"})
"""Those that it has in another way."""
_NO_PARAMETERS: Mapping[str, object] = {"type": "object", "properties": {}}


def render_request(conversation: Conversation) -> Rendered:
    """See ChatProvider."""
    settings = conversation.settings
    body: dict[str, object] = {"model": conversation.model} if conversation.model else {}
    body["input"] = list(_input(conversation.messages))
    body.update((name, value) for name, value in settings.items() if name in _SETTINGS)
    body["store"] = settings.get("store", False)
    if "max_tokens" in settings:
        body["max_output_tokens"] = settings["max_tokens"]
    if conversation.stream:
        body["stream"] = True
        if "stream_options" in settings:
            body["stream_options"] = settings["stream_options"]
    _add_tools(body, conversation)
    _add_text(body, conversation)
    _add_reasoning(body, conversation.reasoning)
    _add_include(body, settings)
    return Rendered(body, tuple(_dropped(conversation)))


def _dropped(conversation: Conversation) -> Iterator[str]:
    for name in conversation.settings:
        if name not in _SETTINGS and name not in _OTHERS:
            yield name
    if conversation.has_cache_points:
        yield "cache_control"
    if conversation.has_names:
        yield "name"


def _add_text(body: dict[str, object], conversation: Conversation) -> None:
    options: dict[str, object] = {}
    if conversation.output is not None:
        options["format"] = _format(conversation.output)
    if "verbosity" in conversation.settings:
        options["verbosity"] = conversation.settings["verbosity"]
    if options:
        body["text"] = options


def _format(output: OutputFormat) -> Item:
    if output.schema is None:
        return {"type": "json_object"}
    schema: Item = {"type": "json_schema", "name": output.name or "response"}
    if output.description:
        schema["description"] = output.description
    schema["schema"] = output.schema
    if output.strict is not None:
        schema["strict"] = output.strict
    return schema


def _add_reasoning(body: dict[str, object], reasoning: Reasoning | None) -> None:
    """Who asks for thoughts gets them in a form that can come back; models without any refuse to
    be asked for that."""
    if reasoning is None:
        return
    asked = reasoning.effort
    if asked is None and reasoning.budget is not None:
        asked = effort(reasoning.budget)
    options: dict[str, object] = {} if asked is None else {"effort": asked}
    if reasoning.visible:
        options["summary"] = "auto"
    if options:
        body["reasoning"] = options
        if asked != "none":
            body["include"] = [ENCRYPTED]


def _add_include(body: dict[str, object], settings: Mapping[str, object]) -> None:
    asked = body.get("include")
    include = list(asked) if isinstance(asked, list) else []
    if settings.get("logprobs") is True:
        include.append(LOGPROBS)
    told = settings.get("include")
    include += [each for each in told if each not in include] if isinstance(told, list) else []
    if include:
        body["include"] = include


# ---- tools


def _add_tools(body: dict[str, object], conversation: Conversation) -> None:
    """What is said about tools has to be left out where there are none."""
    tools: list[object] = [_tool(tool) for tool in conversation.tools]
    for tool in conversation.native_tools:
        if tool.get("type") not in HOSTED or (tool["type"] == "custom" and "name" not in tool):
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


def _tool(tool: Tool) -> Item:
    function: Item = {"type": "function", "name": tool.name}
    if tool.description:
        function["description"] = tool.description
    function["parameters"] = _NO_PARAMETERS if tool.parameters is None else tool.parameters
    function["strict"] = tool.strict or False
    return function


def _tool_choice(choice: ToolChoice) -> object:
    if choice.mode == "tool":
        return {"type": "function", "name": choice.name}
    return choice.mode


# ---- input


def _input(messages: Iterable[Message]) -> Iterator[Item]:
    """All items. A thought waits for what it led to."""
    thoughts: list[Item] = []
    for item in _items(messages):
        if item["type"] == "reasoning":
            thoughts.append(item)
            continue
        if item["type"] == "function_call" or item.get("role") == "assistant":
            yield from thoughts
        thoughts.clear()
        yield item


def _items(messages: Iterable[Message]) -> Iterator[Item]:
    for index, message in enumerate(messages):
        where = f"messages[{index}]"
        if message.role == "assistant":
            yield from _assistant(message, where)
        else:
            yield from _said(message, where)


def _said(message: Message, where: str) -> Iterator[Item]:
    """What system and users say: results are items of their own, the rest around them messages."""
    parts: list[Item] = []
    for index, block in enumerate(message.blocks):
        if not isinstance(block, ToolResult):
            parts.append(_part(block, f"{where}.content[{index}]"))
            continue
        if parts:
            yield _message(message.role, parts)
            parts = []
        yield _result(block, where)
    if parts:
        yield _message(message.role, parts)


def _message(role: str, parts: list[Item]) -> Item:
    """A text alone is a string."""
    alone = len(parts) == 1 and parts[0]["type"] == "input_text"
    return {"type": "message", "role": role, "content": parts[0]["text"] if alone else parts}


def _part(block: Block, where: str) -> Item:
    if isinstance(block, Text):
        return {"type": "input_text", "text": block.text}
    if not isinstance(block, Media):
        raise FormatError(f"{where}: only texts, media and tool results can be the user's")
    if block.kind == "image":
        return _image(block)
    if block.kind == "file":
        return _file(block)
    raise FormatError(f"{where}: expected a text, image or file; this format takes no {block.kind}")


def _image(media: Media) -> Item:
    part: Item = {"type": "input_image", "detail": media.detail or "auto"}
    if media.file_id:
        return {**part, "file_id": media.file_id}
    return {**part, "image_url": data_url(media)}


def _file(media: Media) -> Item:
    """A file that is sent itself has to have a name."""
    part: Item = {"type": "input_file"}
    if media.name:
        part["filename"] = media.name
    if media.file_id:
        return {**part, "file_id": media.file_id}
    if media.url:
        return {**part, "file_url": media.url}
    unnamed = "file.pdf" if media.media_type == "application/pdf" else "file"
    return {"filename": unnamed, **part, "file_data": data_url(media)}


def _result(result: ToolResult, where: str) -> Item:
    parts = [_part(part, f"{where}: a tool result's content") for part in result.content]
    if result.is_error:
        first = parts.pop(0)["text"] if parts and parts[0]["type"] == "input_text" else ""
        parts.insert(0, {"type": "input_text", "text": f"Error: {first}".rstrip()})
    output: object = parts
    if all(part["type"] == "input_text" for part in parts) and len(parts) < 2:
        output = parts[0]["text"] if parts else ""
    return {"type": "function_call_output", "call_id": result.call_id, "output": output}


def _assistant(message: Message, where: str) -> Iterator[Item]:
    """Texts that follow each other are one text in pieces, as where the model cites."""
    texts: list[str] = []
    for index, block in enumerate(message.blocks):
        if isinstance(block, Text):
            texts.append(block.text)
            continue
        if texts:
            yield _spoken("".join(texts))
            texts = []
        item = _made(block, f"{where}.content[{index}]")
        if item is not None:
            yield item
    if texts:
        yield _spoken("".join(texts))


def _spoken(content: object) -> Item:
    return {"type": "message", "role": "assistant", "content": content}


def _made(block: Block, where: str) -> Item | None:
    if isinstance(block, ToolCall):
        return {
            "type": "function_call",
            "call_id": block.id,
            "name": block.name,
            "arguments": block.arguments,
        }
    if isinstance(block, Thinking):
        return own_reasoning(block)
    if isinstance(block, Refusal):
        return _spoken([{"type": "refusal", "refusal": block.text}])
    raise FormatError(
        f"{where}: this format takes only texts, thoughts and calls from the assistant; leave it "
        "out or send it as the user's"
    )
