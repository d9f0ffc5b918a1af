"""Random conversations and answers of the hub, for properties that every format has to keep.

What a format cannot say is left out by naming the feature: `conversations(names=False,
media_kinds=())`. Without any name everything is in: see Features.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Final, get_args

import orjson
from hypothesis import strategies as st

from kong_ai_proxy.formats.codec import StreamReader
from kong_ai_proxy.formats.conversation import (
    Block,
    Conversation,
    Media,
    MediaKind,
    Message,
    OutputFormat,
    Reasoning,
    Refusal,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    merged,
)
from kong_ai_proxy.formats.deltas import (
    Answer,
    CallArguments,
    CallStarted,
    Choice,
    Delta,
    Finished,
    FinishReason,
    Logprobs,
    MediaPiece,
    RefusalPiece,
    Said,
    Started,
    TextPiece,
    ThinkingPiece,
    ThinkingRedacted,
    ThinkingSigned,
    Used,
)
from kong_ai_proxy.formats.usage import Usage

SETTINGS: Final = {
    "temperature": st.sampled_from([0, 0.25, 1, 1.5]),
    "top_p": st.sampled_from([0.1, 0.5, 1]),
    "top_k": st.integers(1, 100),
    "max_tokens": st.integers(1, 100_000),
    "stop": st.lists(st.text("abc.\n", min_size=1, max_size=4), min_size=1, max_size=3),
    "seed": st.integers(0, 2**31 - 1),
    "n": st.integers(1, 4),
    "presence_penalty": st.sampled_from([-1, 0, 0.5]),
    "frequency_penalty": st.sampled_from([-1, 0, 0.5]),
    "logprobs": st.just(True),
    "top_logprobs": st.integers(0, 5),
    "user": st.text("abcdef", min_size=1, max_size=8),
}
"""The usual settings, for `Features.settings`."""

_MEDIA_TYPES: dict[MediaKind, tuple[str, ...]] = {
    "image": ("image/png", "image/jpeg", "image/gif", "image/webp"),
    "audio": ("audio/wav", "audio/mp3"),
    "video": ("video/mp4",),
    "file": ("application/pdf",),
}


@dataclass(frozen=True, kw_only=True)
class Features:
    """What the random conversations and answers may have in them."""

    names: bool = True
    """Message.name."""
    systems: bool = True
    """System messages at all, before the first turn."""
    late_systems: bool = True
    """System messages between the turns too."""
    several_systems: bool = True
    """More than one of them, and with several texts."""
    alternating: bool = False
    """Neighbouring messages always have different roles, as they have after `merged`."""
    several_texts: bool = True
    """Texts next to each other in one message."""
    free_order: bool = True
    """Thoughts, texts and calls of the assistant in any order; else thoughts, refusals, texts,
    media, calls."""
    empty_assistant: bool = False
    """Messages of the assistant without any block."""
    media_kinds: tuple[MediaKind, ...] = get_args(MediaKind)
    """Kinds of media of users."""
    media_data: bool = True
    media_urls: bool = True
    media_files: bool = True
    """Media by `file_id`."""
    media_details: bool = True
    """Media.detail of images."""
    media_names: bool = True
    """Media.name of files."""
    assistant_media: bool = False
    """Images that the assistant made."""
    result_media: bool = True
    """Images in results of tools."""
    refusals: bool = True
    thinking: bool = True
    signatures: bool = True
    """Thoughts with a signature. Where `thinking` is True and this is not, none has one."""
    unsigned: bool = True
    """Thoughts without a signature."""
    redacted: bool = True
    calls: bool = True
    parallel_calls: bool = True
    call_signatures: bool = True
    """Gemini's signatures of calls."""
    call_ids: st.SearchStrategy[str] = st.integers(0, 9999).map(lambda n: f"call_{n:04}")  # noqa: RUF009
    """They are unique in a conversation."""
    result_names: bool = False
    """ToolResult.name is set, to the name of its call; see also `named_results`."""
    result_errors: bool = True
    """ToolResult.is_error."""
    empty_results: bool = True
    """Results without content."""
    several_results_texts: bool = True
    """Results with more than one block."""
    shuffled_results: bool = True
    """Results in another order than their calls."""
    mixed_results: bool = True
    """Other blocks beside the results of one message, in any order; else only results."""
    cache: bool = True
    """Cache points: blocks and tools."""
    cache_lifetimes: tuple[str, ...] = ("", "5m", "1h")
    tools: bool = True
    strict: bool = True
    """Tool.strict and OutputFormat.strict."""
    tool_choices: tuple[str, ...] = ("auto", "none", "required", "tool")
    parallel_tool_calls: bool = True
    outputs: tuple[str, ...] = ("object", "schema")
    """OutputFormat without and with a schema."""
    efforts: tuple[str, ...] = ("none", "minimal", "low", "medium", "high", "xhigh")
    """Reasoning.effort."""
    budgets: tuple[int, ...] = (0, 1024, 2048, 20_000)
    """Reasoning.budget. A conversation has an effort or a budget."""
    settings: tuple[str, ...] = tuple(SETTINGS)
    """Of SETTINGS."""
    stream: bool = True
    logprobs: bool = True
    """Of answers."""
    choices: int = 3
    """Most alternatives of an answer."""
    stop_sequences: bool = False
    """Of answers: Finished.stop_sequence."""


@cache
def texts(max_size: int = 20) -> st.SearchStrategy[str]:
    """Any text but an empty one."""
    # No control characters: those that are white space alone say nothing, and are left out.
    alphabet = st.characters(codec="utf-8", exclude_categories=["Cc", "Zl", "Zp"])
    return st.text(alphabet, min_size=1, max_size=max_size)


@cache
def opaque() -> st.SearchStrategy[str]:
    """Base64, as signatures are and data is."""
    return st.sampled_from(["AAAA", "iVBORw0KGgo=", "c2lnbmVk", "/9j/4AAQSkY=", "Zm9vYmE+/w=="])


@cache
def identifiers() -> st.SearchStrategy[str]:
    """Names of tools, users and schemas."""
    return st.text("abcxyz_", min_size=1, max_size=6).map(lambda text: f"a{text}")


@cache
def json_objects() -> st.SearchStrategy[dict[str, object]]:
    """JSON objects, as arguments of calls are; empty arrays and objects among their values."""
    scalars: st.SearchStrategy[object] = st.one_of(
        st.none(), st.booleans(), st.integers(-(2**53), 2**53), st.floats(-1e6, 1e6), texts(6)
    )
    values: st.SearchStrategy[object] = st.recursive(
        scalars,
        lambda inner: (
            st.lists(inner, max_size=2) | st.dictionaries(identifiers(), inner, max_size=2)
        ),
        max_leaves=4,
    )
    return st.dictionaries(identifiers(), values, max_size=3)


@cache
def schemas() -> st.SearchStrategy[dict[str, object]]:
    """JSON Schemas of objects, some without properties."""
    kinds = st.sampled_from(["string", "number", "integer", "boolean"])
    properties = st.dictionaries(identifiers(), st.builds(lambda kind: {"type": kind}, kinds))
    return st.builds(
        lambda found: {"type": "object", "properties": found, "required": sorted(found)[:1]},
        properties,
    )


@cache
def arguments() -> st.SearchStrategy[str]:
    """Arguments of a call, as orjson writes them."""
    return json_objects().map(lambda value: orjson.dumps(value).decode())


def conversations(**features: Any) -> st.SearchStrategy[Conversation]:
    """Random conversations; see Features for the names. Every call has its result in the next
    message of the user, the last message is the user's."""
    return _conversation(Features(**features))


def answers(**features: Any) -> st.SearchStrategy[Answer]:
    """Random whole answers."""
    return _answer(Features(**features))


def delta_lists(**features: Any) -> st.SearchStrategy[list[Delta]]:
    """Random answers as streams give them, without Failed. Arguments of parallel calls and the
    choices come interleaved; with `free_order` text, thoughts and calls follow each other in any
    order."""
    return _deltas(Features(**features))


def normal(conversation: Conversation) -> Conversation:
    """With neighbours of one role merged, for comparing: formats cut messages differently."""
    return replace(conversation, messages=tuple(merged(conversation.messages)))


def cuts(data: bytes) -> st.SearchStrategy[list[bytes]]:
    """`data` in random pieces, also empty ones."""
    places = st.lists(st.integers(0, len(data)), max_size=8).map(sorted)
    return places.map(
        lambda at: [data[i:j] for i, j in zip([0, *at], [*at, len(data)], strict=True)]
    )


def halves(data: bytes) -> Iterator[list[bytes]]:
    """`data` split in two at every byte."""
    for at in range(len(data) + 1):
        yield [data[:at], data[at:]]


def read(reader: StreamReader, chunks: list[bytes]) -> list[Delta]:
    """All that a reader makes of a stream."""
    found = [delta for chunk in chunks for delta in reader.feed(chunk)]
    return found + reader.end()


def joined(deltas: list[Delta]) -> list[Delta]:
    """With neighbouring pieces of the same text as one, for comparing streams."""
    found: list[Delta] = []
    for delta in deltas:
        last = found[-1] if found else None
        if isinstance(delta, TextPiece | ThinkingPiece | RefusalPiece) and type(last) is type(
            delta
        ):
            assert isinstance(last, TextPiece | ThinkingPiece | RefusalPiece)
            if last.choice == delta.choice:
                found[-1] = last._replace(text=last.text + delta.text)
                continue
        found.append(delta)
    return found


# --- requests ---


@st.composite
def _conversation(draw: st.DrawFn, can: Features) -> Conversation:
    messages = draw(_messages(can))
    tools = draw(st.lists(_tool(can), max_size=3, unique_by=lambda t: t.name)) if can.tools else []
    return Conversation(
        messages=messages,
        model=draw(st.sampled_from(["gpt-4o", "some-model:1"])),
        stream=can.stream and draw(st.booleans()),
        tools=tuple(tools),
        tool_choice=draw(_tool_choice(can, tools)),
        parallel_tool_calls=draw(_maybe(st.booleans()))
        if tools and can.parallel_tool_calls
        else None,
        output=draw(_output(can)),
        reasoning=draw(_reasoning(can)),
        settings=draw(st.fixed_dictionaries({}, optional={n: SETTINGS[n] for n in can.settings})),
    )


def _maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


@st.composite
def _messages(draw: st.DrawFn, can: Features) -> tuple[Message, ...]:
    used: set[str] = set()
    found: list[Message] = []
    if can.systems:
        found += draw(st.lists(_system(can), max_size=2 if can.several_systems else 1))
    for _ in range(draw(st.integers(0, 3))):
        found.append(draw(_user(can)))
        calls = draw(_calls(can, used))
        found.append(draw(_assistant(can, calls)))
        while calls:
            found.append(draw(_results(can, calls)))
            calls = draw(_calls(can, used)) if draw(st.booleans()) else []
            if calls or can.alternating:
                found.append(draw(_assistant(can, calls)))
        if can.systems and can.late_systems and draw(st.booleans()):
            found.append(draw(_system(can)))
    found.append(draw(_user(can)))
    return tuple(merged(found)) if can.alternating else tuple(found)


@st.composite
def _system(draw: st.DrawFn, can: Features) -> Message:
    most = 2 if can.several_systems and can.several_texts else 1
    return Message("system", tuple(draw(st.lists(_text(can), min_size=1, max_size=most))))


@st.composite
def _user(draw: st.DrawFn, can: Features) -> Message:
    kinds: st.SearchStrategy[Block] = _text(can)
    if can.media_kinds and (can.media_data or can.media_urls or can.media_files):
        kinds |= _media(can, can.media_kinds)
    blocks = draw(st.lists(kinds, min_size=1, max_size=3))
    return Message("user", _cleaned(can, blocks), draw(_name(can)))


@st.composite
def _assistant(draw: st.DrawFn, can: Features, calls: list[ToolCall]) -> Message:
    least = 0 if calls or can.empty_assistant else 1
    blocks: list[Block] = list(draw(st.lists(_text(can), min_size=least, max_size=2)))
    if can.thinking:
        blocks = [*draw(st.lists(_thinking(can), max_size=2)), *blocks]
    if can.refusals and not calls and draw(st.booleans()):
        blocks = [*[b for b in blocks if isinstance(b, Thinking)], Refusal(draw(texts()))]
    if can.assistant_media and draw(st.booleans()):
        blocks.append(
            draw(_media(replace(can, media_files=False, media_details=False), ("image",)))
        )
    blocks += calls
    if can.free_order:
        blocks = draw(st.permutations(blocks))
        numbers = iter(calls)
        blocks = [next(numbers) if isinstance(block, ToolCall) else block for block in blocks]
    return Message("assistant", _cleaned(can, blocks), draw(_name(can)))


def _cleaned(can: Features, blocks: list[Block]) -> tuple[Block, ...]:
    if can.several_texts:
        return tuple(blocks)
    kept: list[Block] = []
    for block in blocks:
        if not (kept and isinstance(block, Text) and isinstance(kept[-1], Text)):
            kept.append(block)
    return tuple(kept)


@st.composite
def _results(draw: st.DrawFn, can: Features, calls: list[ToolCall]) -> Message:
    answered = draw(st.permutations(calls)) if can.shuffled_results else calls
    blocks: list[Block] = [draw(_result(can, call)) for call in answered]
    if can.mixed_results:
        beside = _text(can) | _plain_image(can) if "image" in can.media_kinds else _text(can)
        others = draw(st.lists(beside, max_size=2))
        blocks = draw(st.permutations([*blocks, *others]))
    return Message("user", _cleaned(can, blocks))


@st.composite
def _result(draw: st.DrawFn, can: Features, call: ToolCall) -> ToolResult:
    kinds: st.SearchStrategy[Text | Media] = texts().map(Text)
    if can.result_media:
        kinds |= _media(
            replace(can, media_files=False, media_details=False, cache=False), ("image",)
        )
    most = 2 if can.several_results_texts else 1
    content = draw(st.lists(kinds, min_size=0 if can.empty_results else 1, max_size=most))
    return ToolResult(
        call.id,
        tuple(content),
        name=call.name if can.result_names else "",
        is_error=can.result_errors and draw(st.booleans()),
        cache=draw(_cache(can)),
    )


@st.composite
def _calls(draw: st.DrawFn, can: Features, used: set[str]) -> list[ToolCall]:
    most = (3 if can.parallel_calls else 1) if can.calls else 0
    calls = []
    for _ in range(draw(st.integers(0, most))):
        identity = draw(can.call_ids.filter(lambda each: each not in used))
        used.add(identity)
        signature = draw(st.just("") | opaque()) if can.call_signatures else ""
        name, text = draw(identifiers()), draw(arguments())
        calls.append(ToolCall(identity, name, text, signature, draw(_cache(can))))
    return calls


@cache
def _cache(can: Features) -> st.SearchStrategy[str | None]:
    return _maybe(st.sampled_from(can.cache_lifetimes)) if can.cache else st.none()


@cache
def _name(can: Features) -> st.SearchStrategy[str]:
    return st.just("") | identifiers() if can.names else st.just("")


@cache
def _text(can: Features) -> st.SearchStrategy[Text]:
    return st.builds(Text, texts(), _cache(can))


@st.composite
def _media(draw: st.DrawFn, can: Features, kinds: tuple[MediaKind, ...]) -> Media:
    ways = [
        *(["data"] if can.media_data else []),
        *(["url"] if can.media_urls else []),
        *(["file"] if can.media_files else []),
    ]
    kind, way = draw(st.sampled_from(kinds)), draw(st.sampled_from(ways or ["data"]))
    detail = draw(st.sampled_from(["", "low", "high"]))
    media = Media(
        kind=kind,
        detail=detail if can.media_details and kind == "image" else "",
        name="report.pdf" if can.media_names and kind == "file" else "",
        cache=draw(_cache(can)),
    )
    if way == "url":
        return replace(media, url=f"https://example.com/{draw(identifiers())}")
    if way == "file":
        return replace(media, file_id=f"file-{draw(identifiers())}")
    return replace(media, data=draw(opaque()), media_type=draw(_media_type(kind)))


def _plain_image(can: Features) -> st.SearchStrategy[Media]:
    return _media(replace(can, media_files=False, media_details=False), ("image",))


@cache
def _media_type(kind: MediaKind) -> st.SearchStrategy[str]:
    return st.sampled_from(_MEDIA_TYPES[kind])


@st.composite
def _thinking(draw: st.DrawFn, can: Features) -> Thinking:
    ways = [
        *(["signed"] if can.signatures else []),
        *(["unsigned"] if can.unsigned else []),
        *(["redacted"] if can.redacted else []),
    ]
    way = draw(st.sampled_from(ways))
    if way == "redacted":
        return Thinking("", redacted=draw(opaque()))
    return Thinking(draw(texts()), draw(opaque()) if way == "signed" else "")


@st.composite
def _tool(draw: st.DrawFn, can: Features) -> Tool:
    return Tool(
        name=draw(identifiers()),
        description=draw(st.just("") | texts()),
        parameters=draw(_maybe(schemas())),
        strict=draw(_maybe(st.booleans())) if can.strict else None,
        cache=draw(_cache(can)),
    )


@st.composite
def _tool_choice(draw: st.DrawFn, can: Features, tools: list[Tool]) -> ToolChoice | None:
    if not tools or not can.tool_choices or draw(st.booleans()):
        return None
    mode = draw(st.sampled_from(can.tool_choices))
    if mode == "tool":
        return ToolChoice("tool", tools[-1].name)
    assert mode in ("auto", "none", "required")
    return ToolChoice(mode)  # type: ignore[arg-type]


@st.composite
def _output(draw: st.DrawFn, can: Features) -> OutputFormat | None:
    kind = draw(_maybe(st.sampled_from(can.outputs))) if can.outputs else None
    if kind != "schema":
        return OutputFormat() if kind else None
    strict = draw(_maybe(st.booleans())) if can.strict else None
    return OutputFormat(schema=draw(schemas()), name=draw(identifiers()), strict=strict)


@st.composite
def _reasoning(draw: st.DrawFn, can: Features) -> Reasoning | None:
    ways = [Reasoning(effort=each) for each in can.efforts]
    ways += [Reasoning(budget=each) for each in can.budgets]
    return draw(_maybe(st.sampled_from(ways))) if ways else None


# --- answers ---


@cache
def _usage() -> st.SearchStrategy[Usage]:
    def usage(prompt: int, completion: int, cached: int, reasoning: int) -> Usage:
        return Usage(
            prompt_tokens=prompt + cached,
            completion_tokens=completion + reasoning,
            total_tokens=prompt + completion + cached + reasoning,
            prompt_details={"cached_tokens": cached} if cached else {},
            completion_details={"reasoning_tokens": reasoning} if reasoning else {},
        )

    count = st.integers(0, 10_000)
    return st.builds(usage, count, count, count, count)


@st.composite
def _answer(draw: st.DrawFn, can: Features) -> Answer:
    used: set[str] = set()
    count = draw(st.integers(1, can.choices))
    return Answer(
        id=f"id-{draw(identifiers())}",
        model="some-model:1",
        created=draw(st.integers(1, 2**31)),
        choices=tuple(draw(_choice(can, used)) for _ in range(count)),
        usage=draw(_maybe(_usage())),
    )


@st.composite
def _choice(draw: st.DrawFn, can: Features, used: set[str]) -> Choice:
    calls = draw(_calls(replace(can, cache=False), used))
    message = draw(_assistant(replace(can, cache=False, names=False), calls))
    said: list[Said] = []
    for block in message.blocks:
        if said and type(block) is type(said[-1]) and isinstance(block, Text | Refusal):
            continue  # they would be one block
        if said and isinstance(block, Thinking) and _goes_on(said[-1], block):
            continue
        assert not isinstance(block, ToolResult)
        said.append(block)
    reason: FinishReason = (
        "tool_calls" if calls else draw(st.sampled_from(["stop", "length", "content_filter"]))
    )
    stopped = can.stop_sequences and reason == "stop" and draw(st.booleans())
    token = {"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}
    told = can.logprobs and any(isinstance(block, Text) for block in said) and draw(st.booleans())
    return Choice(tuple(said), reason, "END" if stopped else None, (token,) if told else ())


def _goes_on(last: Said, block: Thinking) -> bool:
    """Whether pieces of both would be one thought."""
    is_open = isinstance(last, Thinking) and not last.redacted and not last.signature
    return is_open and not block.redacted


@st.composite
def _deltas(draw: st.DrawFn, can: Features) -> list[Delta]:
    answer = draw(_answer(can))
    queues = [draw(_choice_deltas(choice, number)) for number, choice in enumerate(answer.choices)]
    found: list[Delta] = [Started(answer.id, answer.model, answer.created)]
    while queues:
        queue = draw(st.sampled_from(queues))
        found.append(queue.pop(0))
        queues = [each for each in queues if each]
    if answer.usage:
        found.append(Used(answer.usage))
    return found


@st.composite
def _choice_deltas(draw: st.DrawFn, choice: Choice, number: int) -> list[Delta]:
    found: list[Delta] = []
    held: list[CallArguments] = []
    calls = 0
    for block in choice.said:
        if isinstance(block, ToolCall):
            found.append(CallStarted(calls, block.id, block.name, block.signature, number))
            held += [CallArguments(calls, part, number) for part in draw(_parts(block.arguments))]
            if draw(st.booleans()):
                found += held
                held = []
            calls += 1
            continue
        found += draw(_block_deltas(block, number))
    by_call = [[piece for piece in held if piece.number == call] for call in range(calls)]
    while by_call := [queue for queue in by_call if queue]:
        found.append(draw(st.sampled_from(by_call)).pop(0))
    if choice.logprobs:
        found.append(Logprobs(list(choice.logprobs), number))
    found.append(Finished(choice.finish_reason, choice.stop_sequence, number))
    return found


@st.composite
def _block_deltas(
    draw: st.DrawFn, block: Text | Thinking | Refusal | Media, number: int
) -> list[Delta]:
    match block:
        case Text(text):
            return [TextPiece(part, number) for part in draw(_parts(text))]
        case Refusal(text):
            return [RefusalPiece(part, number) for part in draw(_parts(text))]
        case Media():
            return [MediaPiece(block, number)]
        case Thinking(text, signature, redacted):
            if redacted:
                return [ThinkingRedacted(redacted, number)]
            found: list[Delta] = [ThinkingPiece(part, number) for part in draw(_parts(text))]
            return found + ([ThinkingSigned(signature, number)] if signature else [])


def _parts(text: str) -> st.SearchStrategy[list[str]]:
    """A text in one to three pieces."""
    places = st.lists(st.integers(1, max(len(text) - 1, 1)), max_size=2, unique=True).map(sorted)
    return places.map(
        lambda at: [text[i:j] for i, j in zip([0, *at], [*at, len(text)], strict=True) if text[i:j]]
    )
