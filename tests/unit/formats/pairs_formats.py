"""What each format can say, for the tests of all pairs: the table, and what of a conversation is
left where a format says less.

Two differences are everywhere and nowhere noted: blank texts and blanks around texts may go, and
texts next to each other may become one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

import orjson

from kong_ai_proxy.formats import anthropic, bedrock, cohere, gemini, huggingface, llama2, ollama
from kong_ai_proxy.formats.codec import ChatClient, ChatProvider
from kong_ai_proxy.formats.conversation import (
    Block,
    Conversation,
    Media,
    Message,
    Refusal,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
    merged,
    named_results,
)
from kong_ai_proxy.formats.fields import arguments_object
from kong_ai_proxy.formats.openai import chat as openai_chat
from kong_ai_proxy.formats.openai import completions as openai_completions
from kong_ai_proxy.formats.openai import responses as openai_responses

_EVERYTHING = ("data", "url", "file")
_SETTINGS = ("temperature", "top_p", "top_k", "max_tokens", "stop", "seed", "n", "logprobs")
_PENALTIES = ("presence_penalty", "frequency_penalty")


@dataclass(frozen=True, kw_only=True)
class Format:
    """What one format can say. What it cannot say is refused, but for knobs, which are named as
    dropped, and for what the comments here say."""

    codec: ChatProvider
    turns: Literal["all", "text", "one"] = "all"
    """text: all turns, as one text that cannot be taken apart again. one: nothing else than one
    message of the user, and system texts."""
    calls: bool = True
    late_systems: bool = False
    """System texts stay where they stand; else they come first, which all models understand."""
    in_order: bool = True
    """The assistant's texts and calls stay in their order; else its texts come first."""
    media: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Ways by kind, of a user's media."""
    kinds_of_urls: bool = True
    """Else what stands behind an URL without media type is just a file."""
    assistant_media: bool = False
    result_media: Literal["inside", "beside", "none"] = "none"
    """beside: they follow the results, in the same turn, with words that say whose they are."""
    result_errors: Literal["marked", "said"] = "marked"
    """said: as the text's first word."""
    refusals: bool = False
    """As such; else as text."""
    thinking: Literal["all", "proven", "none"] = "none"
    """proven: with a signature or redacted. Others are left out: they only help who made them."""
    names: bool = False
    cache: bool = False
    strict: bool = False
    settings: tuple[str, ...] = ()
    asks: Mapping[str, Any] = field(default_factory=dict)
    """What else its clients cannot ask for: strategies.Features."""

    @property
    def client(self) -> ChatClient | None:
        """Its other half, where it has one."""
        return self.codec if hasattr(self.codec, "parse_request") else None  # type: ignore[return-value]


_ANTHROPIC_MEDIA = {"image": _EVERYTHING, "file": _EVERYTHING}
_CLAUDE = Format(
    codec=anthropic.MESSAGES,
    media=_ANTHROPIC_MEDIA,
    result_media="inside",
    thinking="proven",
    cache=True,
    settings=("temperature", "top_p", "top_k", "max_tokens", "stop", "user"),
    asks={"efforts": (), "outputs": ()},  # of models that know them only
)
_GEMINI = Format(
    codec=gemini.GENERATE,
    media={"image": ("data", "url"), "audio": ("data", "url"), "video": ("data", "url")}
    | {"file": ("data", "url")},
    kinds_of_urls=False,
    assistant_media=True,
    result_media="beside",
    thinking="all",
    settings=(*_SETTINGS, *_PENALTIES, "top_logprobs"),
)

FORMATS: Final[Mapping[str, Format]] = {
    "openai/chat": Format(
        codec=openai_chat.CHAT,
        late_systems=True,
        in_order=False,
        # Files are not fetched, and only they have ids.
        media={"image": ("data", "url"), "audio": ("data", "url"), "video": ("data", "url")}
        | {"file": ("data", "file")},
        result_media="beside",
        result_errors="said",
        refusals=True,
        names=True,
        strict=True,
        settings=(*_SETTINGS, *_PENALTIES, "top_logprobs", "user"),
    ),
    "openai/completions": Format(
        codec=openai_completions.COMPLETIONS,
        turns="text",
        calls=False,
        settings=(*_SETTINGS, *_PENALTIES, "top_logprobs", "user"),
    ),
    "openai/responses": Format(
        codec=openai_responses.RESPONSES,
        late_systems=True,
        media={"image": _EVERYTHING, "file": _EVERYTHING},
        result_media="inside",
        result_errors="said",
        refusals=True,
        strict=True,
        settings=("temperature", "top_p", "max_tokens", "logprobs", "top_logprobs", "user"),
    ),
    "anthropic/messages": _CLAUDE,
    "anthropic/complete": Format(
        codec=anthropic.COMPLETE,
        calls=False,
        settings=("temperature", "top_p", "top_k", "max_tokens", "stop", "user"),
    ),
    "gemini/generate": _GEMINI,
    "gemini/generate-array": replace(_GEMINI, codec=gemini.GENERATE_ARRAY),
    "bedrock/converse": Format(
        codec=bedrock.CONVERSE,
        media=dict.fromkeys(("image", "audio", "video", "file"), ("data",)),
        result_media="inside",
        thinking="proven",
        cache=True,
        strict=True,
        settings=("temperature", "top_p", "max_tokens", "stop"),
    ),
    "bedrock/anthropic": replace(_CLAUDE, codec=bedrock.ANTHROPIC),
    "cohere/chat": Format(
        codec=cohere.CHAT,
        in_order=False,
        media={"image": ("data", "url")},
        thinking="all",
        result_errors="said",
        strict=True,
        settings=(
            "temperature",
            "top_p",
            "top_k",
            "max_tokens",
            "stop",
            "seed",
            "logprobs",
            *_PENALTIES,
        ),
    ),
    "cohere/generate": Format(
        codec=cohere.GENERATE,
        turns="text",
        calls=False,
        settings=("temperature", "top_p", "top_k", "max_tokens", "stop", "seed", "n", *_PENALTIES),
    ),
    "huggingface/generate": Format(
        codec=huggingface.GENERATE,
        turns="text",
        calls=False,
        settings=(
            "temperature",
            "top_p",
            "top_k",
            "max_tokens",
            "stop",
            "seed",
            "frequency_penalty",
        ),
    ),
    "ollama/chat": Format(
        codec=ollama.CHAT,
        late_systems=True,
        media={"image": ("data",)},
        result_media="inside",
        thinking="all",
        settings=(
            "temperature",
            "top_p",
            "top_k",
            "max_tokens",
            "stop",
            "seed",
            "logprobs",
            *_PENALTIES,
            "top_logprobs",
        ),
    ),
    "ollama/generate": Format(
        codec=ollama.GENERATE,
        turns="one",
        calls=False,
        media={"image": ("data",)},
        settings=(
            "temperature",
            "top_p",
            "top_k",
            "max_tokens",
            "stop",
            "seed",
            "logprobs",
            *_PENALTIES,
            "top_logprobs",
        ),
    ),
    "llama2/raw": Format(
        codec=llama2.RAW,
        turns="text",
        calls=False,
        settings=(
            "temperature",
            "top_p",
            "top_k",
            "max_tokens",
            "stop",
            "seed",
            "frequency_penalty",
            "do_sample",
        ),
    ),
}
CLIENTS: Final = tuple(name for name, each in FORMATS.items() if each.client is not None)


def features(said: Format) -> dict[str, Any]:
    """What conversations of its clients may have, for strategies.conversations."""
    return {
        "names": said.names,
        "late_systems": said.late_systems,
        "media_kinds": tuple(said.media),
        "media_data": bool(said.media),
        "media_urls": any("url" in ways for ways in said.media.values()),
        "media_files": any("file" in ways for ways in said.media.values()),
        "assistant_media": False,
        "result_media": said.result_media == "inside",
        "refusals": said.refusals,
        "thinking": said.thinking != "none",
        "signatures": said.thinking == "proven",
        "unsigned": said.thinking == "all",
        "redacted": said.thinking == "proven",
        "calls": said.calls,
        "tools": said.calls,
        "cache": said.cache,
        "strict": said.strict,
        "settings": said.settings,
        **said.asks,
    }


# ---- what is refused


def refused(conversation: Conversation, said: Format) -> bool:
    """Whether it has content that the format cannot say."""
    if conversation.tools and not said.calls:
        return True
    if said.turns == "one" and [message.role for message in conversation.turns] != ["user"]:
        return True
    return any(
        _refused(block, message, said)
        for message in conversation.messages
        for block in message.blocks
    )


def _refused(block: Block, message: Message, said: Format) -> bool:
    match block:
        case ToolCall() | ToolResult() if not said.calls:
            return True
        case ToolResult(content=content):
            media = [each for each in content if isinstance(each, Media)]
            if media and said.result_media == "none":
                return True
            return any(_way(each) not in said.media.get(each.kind, ()) for each in media)
        case Media() if message.role == "assistant":
            return not said.assistant_media
        case Media():
            return _way(block) not in said.media.get(block.kind, ())
    return False


def _way(media: Media) -> str:
    return "data" if media.data else "url" if media.url else "file"


# ---- what is told


def squeezed(text: str) -> str:
    """Without blanks."""
    return "".join(text.split())


def told(conversation: Conversation, said: Format) -> list[tuple[object, ...]]:
    """What a model is told, as far as the format can say it."""
    if said.turns == "text":
        texts = (block for message in conversation.messages for block in message.blocks)
        spoken = (block.text for block in texts if isinstance(block, Text | Refusal))
        return [("user", (("text", squeezed("".join(spoken))),))]
    messages: Iterable[Message] = named_results(conversation.messages)
    if not said.names:
        messages = (replace(message, name="") for message in messages)
    messages = [m for m in (_bare(message, said) for message in messages) if m.blocks]
    if not said.late_systems:
        messages = sorted(messages, key=lambda message: message.role != "system")
    return [(m.role, m.name, *_parts(m, said)) for m in merged(messages)]


def _bare(message: Message, said: Format) -> Message:
    """With what the format has, as it has it."""
    found: list[Block] = []
    for block in message.blocks:
        if isinstance(block, Refusal) and not said.refusals:
            block = Text(block.text)
        if isinstance(block, Thinking) and not _is_kept(block, said):
            continue
        if not isinstance(block, Text) or squeezed(block.text):
            found.append(block)
    return replace(message, blocks=tuple(found))


def _is_kept(block: Thinking, said: Format) -> bool:
    if said.thinking == "all":
        return bool(squeezed(block.text))
    return said.thinking == "proven" and bool(block.signature or block.redacted)


def _parts(message: Message, said: Format) -> Iterator[tuple[object, ...]]:
    """Results by their calls, thoughts, and the rest; texts that follow each other as one."""
    results = [block for block in message.blocks if isinstance(block, ToolResult)]
    thoughts = [block for block in message.blocks if isinstance(block, Thinking)]
    rest = [b for b in message.blocks if not isinstance(b, ToolResult | Thinking)]
    if message.role == "assistant" and not said.in_order:
        rest.sort(key=lambda block: isinstance(block, ToolCall))
    yield from sorted((_result(each, said) for each in results), key=repr)
    if thoughts:
        signs = [(each.signature, each.redacted) for each in thoughts if said.thinking == "proven"]
        yield ("thoughts", squeezed("".join(each.text for each in thoughts)), signs)
    yield from _joined(_part(block, said) for block in rest)


def _joined(parts: Iterable[tuple[object, ...]]) -> Iterator[tuple[object, ...]]:
    texts: list[str] = []
    for part in parts:
        if part[0] == "text":
            texts.append(str(part[1]))
            continue
        if texts:
            yield ("text", "".join(texts))
            texts = []
        yield part
    if texts:
        yield ("text", "".join(texts))


def _part(block: Block, said: Format) -> tuple[object, ...]:
    match block:
        case Text(text):
            return ("text", squeezed(text))
        case Refusal(text):
            return ("refusal", squeezed(text))
        case ToolCall(identity, name, arguments):
            return ("call", identity, name, arguments_object(arguments, "arguments"))
        case Media(kind=kind, data=data, url=url, file_id=file_id):
            return ("media", kind if data or said.kinds_of_urls else "", data, url, file_id)
    raise AssertionError(block)


def _result(result: ToolResult, said: Format) -> tuple[object, ...]:
    text = "".join(each.text for each in result.content if isinstance(each, Text))
    text = f"Error:{text}" if result.is_error and said.result_errors == "said" else text
    media = [_part(each, said) for each in result.content if isinstance(each, Media)]
    failed = result.is_error and said.result_errors == "marked"
    return ("result", result.call_id, result.name, squeezed(text), media, failed)


def offered(tools: Iterable[Tool]) -> list[tuple[object, ...]]:
    """The tools, without what only says that there is nothing to be said."""
    return [
        (tool.name, squeezed(tool.description), plain_schema(tool.parameters)) for tool in tools
    ]


def plain_schema(schema: Mapping[str, object] | None) -> dict[str, object]:
    """An object's schema without the members that are the same without a word."""
    found = {**(schema or {})}
    if found.get("additionalProperties") is False:
        del found["additionalProperties"]
    return {name: value for name, value in found.items() if value not in ({}, [], "object")}


# ---- what stands in a body


def strings(value: object) -> Iterator[str]:
    """All strings of a JSON value, names of members too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, member in value.items():
            yield name
            yield from strings(member)
    elif isinstance(value, list | tuple):
        for element in value:
            yield from strings(element)


def objects(value: object) -> Iterator[Mapping[str, object]]:
    """All objects of a JSON value, and those that its strings are the JSON text of."""
    if isinstance(value, dict):
        yield value
        for member in value.values():
            yield from objects(member)
    elif isinstance(value, list | tuple):
        for element in value:
            yield from objects(element)
    elif isinstance(value, str) and value.startswith("{"):
        try:
            parsed = orjson.loads(value)
        except orjson.JSONDecodeError:
            return
        yield from objects(parsed)
