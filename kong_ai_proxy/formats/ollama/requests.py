"""Requests to Ollama's own API.

Members, roles and options: https://github.com/ollama/ollama/blob/main/docs/api.md; the levels of
`think`: https://docs.ollama.com/capabilities/thinking.
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
    ToolResult,
    effort,
    merged,
    named_results,
    with_extra,
)
from kong_ai_proxy.formats.embeddings import EmbeddingsRequest
from kong_ai_proxy.formats.errors import FormatError
from kong_ai_proxy.formats.fields import arguments_object, wrong

_OPTIONS: Mapping[str, str] = {
    "max_tokens": "num_predict",
    **{
        name: name
        for name in (
            "frequency_penalty",
            "min_p",
            "num_ctx",
            "num_keep",
            "num_predict",
            "presence_penalty",
            "repeat_last_n",
            "repeat_penalty",
            "seed",
            "stop",
            "temperature",
            "top_k",
            "top_p",
            "typical_p",
        )
    },
}
"""Settings that are members of `options`, and their names there."""
_TOP_LEVEL = frozenset({"format", "keep_alive", "think"})
"""Settings that are members of the request."""
_LOGPROBS = frozenset({"logprobs", "top_logprobs"})
_LEVELS = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "high"}


def chat(conversation: Conversation) -> Rendered:
    """A request for /api/chat. Raises FormatError."""
    dropped = _check(conversation)
    body: dict[str, object] = {
        "model": conversation.model,
        "messages": list(_messages(conversation.messages)),
        "stream": conversation.stream,
    }
    choice = conversation.tool_choice
    # There is no `tool_choice`, but who is not to call anything can do without the tools.
    if conversation.tools and not (choice and choice.mode == "none"):
        body["tools"] = [_tool(tool) for tool in conversation.tools]
    if choice and choice.mode in ("required", "tool"):
        dropped.add("tool_choice")
    if conversation.parallel_tool_calls is False:
        dropped.add("parallel_tool_calls")
    return _finished(body, conversation, _TOP_LEVEL, dropped)


def generate(conversation: Conversation) -> Rendered:
    """A request for /api/generate, which continues one prompt. Raises FormatError."""
    turns = conversation.turns
    if len(turns) != 1 or turns[0].role != "user" or conversation.tools:
        raise FormatError("messages: expected one prompt and no tools, Ollama only continues it")
    dropped = _check(conversation)
    if any(isinstance(block, ToolResult) for block in turns[0].blocks):
        wrong("messages[0].content", "a text, not the result of a tool")
    body: dict[str, object] = {
        "model": conversation.model,
        "prompt": _text(turns[0].blocks),
        "stream": conversation.stream,
    }
    if images := _images(turns[0].blocks):
        body["images"] = images
    if conversation.system:
        body["system"] = _text(conversation.system)
    return _finished(
        body, conversation, _TOP_LEVEL | {"context", "raw", "suffix", "template"}, dropped
    )


def embed(request: EmbeddingsRequest) -> Rendered:
    """A request for /api/embed. Raises FormatError."""
    if request.tokens:
        wrong("input", "texts: Ollama does not read token numbers")
    texts: object = list(request.inputs)
    if not request.is_array and len(request.inputs) == 1:
        texts = request.inputs[0]
    body: dict[str, object] = {"model": request.model, "input": texts}
    if request.dimensions is not None:
        body["dimensions"] = request.dimensions
    known = ("keep_alive", "options", "truncate")
    body |= {name: request.settings[name] for name in known if name in request.settings}
    dropped = request.settings.keys() - body.keys()
    if request.input_type:
        dropped |= {"input_type"}
    return Rendered(with_extra(body, request.extra), tuple(sorted(dropped)))


# --- what both kinds of request have ---


def _finished(
    body: dict[str, object], conversation: Conversation, known: Iterable[str], dropped: set[str]
) -> Rendered:
    settings = conversation.settings
    if conversation.output:
        body["format"] = _format(conversation.output)
    if conversation.reasoning:
        body |= _think(conversation.reasoning)
    body |= {name: settings[name] for name in known if name in settings}
    body |= _logprobs(settings)
    options = {_OPTIONS[name]: value for name, value in settings.items() if name in _OPTIONS}
    own = settings.get("options")
    if isinstance(own, dict):
        options |= own
    if options:
        body["options"] = options
    # Who asked for an echo of the prompt gets it where the answer is written.
    carried = {*known, *_LOGPROBS, *_OPTIONS, "options", "echo"}
    dropped |= settings.keys() - carried
    return Rendered(with_extra(body, conversation.extra), tuple(sorted(dropped)))


def _format(output: OutputFormat) -> object:
    return "json" if output.schema is None else output.schema


def _think(reasoning: Reasoning) -> dict[str, object]:
    """Ollama's own endpoint for OpenAI clients reads efforts as these levels, too."""
    if reasoning.budget is not None and reasoning.budget < 0:
        return {"think": True}
    wanted = reasoning.effort
    if wanted is None and reasoning.budget is not None:
        wanted = effort(reasoning.budget)
    if wanted is None:
        return {}
    return {"think": _LEVELS.get(wanted, False)}


def _logprobs(settings: Mapping[str, object]) -> dict[str, object]:
    """OpenAI's completions ask for a number of alternatives, chats for both."""
    asked = settings.get("logprobs")
    if isinstance(asked, int) and not isinstance(asked, bool):
        return {"logprobs": True, "top_logprobs": asked}
    return {name: settings[name] for name in _LOGPROBS if name in settings}


def _check(conversation: Conversation) -> set[str]:
    """Names of what is lost of messages and tools. Raises FormatError for what must not be."""
    lost = {"cache_control" for tool in conversation.tools if tool.cache is not None}
    if conversation.native_tools:
        wrong("tools", "functions only: Ollama has no tools of its own")
    for index, message in enumerate(conversation.messages):
        if message.name:
            lost.add("name")
        for number, block in enumerate(message.blocks):
            _check_media(block, f"messages[{index}].content[{number}]")
            lost.update(_lost(block))
    return lost


def _check_media(block: Block, where: str) -> None:
    inner = block.content if isinstance(block, ToolResult) else (block,)
    for media in inner:
        if isinstance(media, Media) and not (media.kind == "image" and media.data):
            wrong(
                where, "text, or an image as base64 data: Ollama takes no URLs and no other files"
            )


def _lost(block: Block) -> Iterator[str]:
    if getattr(block, "cache", None) is not None:
        yield "cache_control"
    if isinstance(block, ToolResult) and block.is_error:
        yield "is_error"
    if isinstance(block, Thinking) and block.redacted:
        yield "redacted_thinking"


# --- messages ---


def _messages(messages: Iterable[Message]) -> Iterator[dict[str, object]]:
    called: dict[str, int] = {}
    for index, message in enumerate(merged(named_results(messages))):
        if message.role == "assistant":
            for block in message.blocks:
                if isinstance(block, ToolCall):
                    called[block.id] = len(called)
            yield _assistant(message.blocks, f"messages[{index}]")
        elif message.role == "system":
            yield {"role": "system", "content": _text(message.blocks)}
        else:
            yield from _user(message.blocks, called)


def _user(blocks: tuple[Block, ...], called: Mapping[str, int]) -> Iterator[dict[str, object]]:
    """Results are messages of their own. Older versions know which call they answer by the tool's
    name and by their order only, so they come in the order of the calls."""
    results = sorted(
        (block for block in blocks if isinstance(block, ToolResult)),
        key=lambda result: called.get(result.call_id, len(called)),
    )
    ordered = iter(results)
    said: list[Block] = []
    for block in blocks:
        if not isinstance(block, ToolResult):
            said.append(block)
            continue
        if said:
            yield _message("user", said)
            said = []
        result = next(ordered)
        names = {"tool_name": result.name, "tool_call_id": result.call_id}
        yield _message("tool", result.content) | {name: own for name, own in names.items() if own}
    if said:
        yield _message("user", said)


def _message(role: str, blocks: Iterable[Block]) -> dict[str, object]:
    blocks = tuple(blocks)
    images = _images(blocks)
    message: dict[str, object] = {"role": role, "content": _text(blocks)}
    return {**message, "images": images} if images else message


def _assistant(blocks: tuple[Block, ...], where: str) -> dict[str, object]:
    message = _message("assistant", blocks)
    thinking = "".join(block.text for block in blocks if isinstance(block, Thinking))
    if thinking:
        message["thinking"] = thinking
    calls = [_call(call, place) for call, place in _calls(blocks, where)]
    if calls:
        message["tool_calls"] = calls
    return message


def _calls(blocks: Iterable[Block], where: str) -> Iterator[tuple[ToolCall, str]]:
    calls = (block for block in blocks if isinstance(block, ToolCall))
    for number, call in enumerate(calls):
        yield call, f"{where}.tool_calls[{number}].function.arguments"


def _call(call: ToolCall, where: str) -> dict[str, object]:
    function = {"name": call.name, "arguments": arguments_object(call.arguments, where)}
    return {"id": call.id, "function": function} if call.id else {"function": function}


def _text(blocks: Iterable[Block]) -> str:
    """Ollama takes one text where others take a list."""
    return "\n".join(block.text for block in blocks if isinstance(block, Text | Refusal))


def _images(blocks: Iterable[Block]) -> list[str]:
    return [block.data for block in blocks if isinstance(block, Media)]


def _tool(tool: Tool) -> dict[str, object]:
    function: dict[str, object] = {"name": tool.name}
    if tool.description:
        function["description"] = tool.description
    function["parameters"] = {"type": "object", "properties": {}, **(tool.parameters or {})}
    return {"type": "function", "function": function}
