"""Rounds in turn, in CPU time: what else the machine does should not count.

The garbage collector is left on, as it is in a server, and has nothing to collect when a run of a
round begins.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median
from time import monotonic, process_time

import orjson
from typing_extensions import override

from benchmarks.conversion import chats
from benchmarks.conversion.streams import ALL, Streams
from kong_ai_proxy.exchange.learned import Learned
from kong_ai_proxy.exchange.messages import Data, Emit, End, ResponseHead
from kong_ai_proxy.exchange.translation import ChatWay, TranslatedAnswer
from kong_ai_proxy.formats import anthropic, bedrock, cohere, gemini
from kong_ai_proxy.formats.codec import ChatProvider, Context
from kong_ai_proxy.formats.openai import chat as openai_chat

ROUNDS = 7
LENGTHS = (100, 1_000, 10_000)
"""Chunks of a stream."""
MESSAGES = (500, 2_000)
"""Of a request of 1 MB."""
CONTEXT = Context(model="gpt-4o", id="B9MHDbslfkBeAs8l4bebGdFO", now=1741570283, wants_usage=True)

PROVIDERS: tuple[tuple[str, ChatProvider], ...] = (
    ("Anthropic", anthropic.MESSAGES),
    ("Gemini", gemini.GENERATE),
    ("Bedrock", bedrock.CONVERSE),
    ("Cohere", cohere.CHAT),
)


@dataclass
class Timed:
    """Times of one thing, one a round, in the unit that its table names."""

    rounds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """The middle one."""
        return median(self.rounds)

    @override
    def __str__(self) -> str:
        return f"{self.median:.1f} ({min(self.rounds):.1f} to {max(self.rounds):.1f})"


@dataclass(frozen=True)
class ChunkRow:
    """Streams of one provider and length: microseconds for a chunk."""

    label: str
    chunks: int
    read: Timed
    """The reader alone."""
    converted: Timed
    """Reader, what is learnt on the way, writer."""
    passed: Timed
    """All of it as the relay has it: bytes in, actions out."""


@dataclass(frozen=True)
class RequestRow:
    """Requests of one kind to one provider: milliseconds for all of it, JSON to JSON."""

    request: str
    label: str
    all: Timed


Run = Callable[[], object]


def rounds(runs: Sequence[Run], seconds: float, unit: float) -> list[Timed]:
    """Time each run, over and over within a round, for about `seconds` all together. `unit` of
    them are one second for a single one."""
    found = [Timed() for _ in runs]
    for run in runs:
        run()  # warm
    for _ in range(ROUNDS):
        for run, timed in zip(runs, found, strict=True):
            timed.rounds.append(_time(run, seconds / ROUNDS / len(runs)) * unit)
    return found


def _time(run: Run, seconds: float) -> float:
    """CPU seconds for one run, of as many as take about `seconds`."""
    gc.collect()
    count, end, begin = 0, monotonic() + seconds, process_time()
    while not count or monotonic() < end:
        run()
        count += 1
    return (process_time() - begin) / count


# ---- streams


def chunk_rows(seconds: float, lengths: Sequence[int] = LENGTHS) -> Iterator[ChunkRow]:
    """A row for each provider and length."""
    for streams in ALL:
        for chunks in lengths:
            made = streams.make(chunks)
            runs: list[Run] = [
                lambda s=streams, m=made: read(s, m),  # type: ignore[misc]
                lambda s=streams, m=made: converted(s, m),  # type: ignore[misc]
                lambda s=streams, m=made: passed(s, m),  # type: ignore[misc]
            ]
            yield ChunkRow(streams.label, chunks, *rounds(runs, seconds, 1e6 / chunks))


def read(streams: Streams, chunks: Sequence[bytes]) -> int:
    """How many pieces the reader makes of a stream."""
    reader = streams.codec.reader()
    return sum(len(reader.feed(chunk)) for chunk in chunks) + len(reader.end())


def converted(streams: Streams, chunks: Sequence[bytes]) -> int:
    """How many bytes an OpenAI client gets of it."""
    reader, writer = streams.codec.reader(), openai_chat.CHAT.writer(CONTEXT)
    learned, size = Learned(), 0
    for chunk in chunks:
        deltas = reader.feed(chunk)
        learned.note(deltas)
        size += len(writer.feed(deltas))
    return size + len(writer.feed(reader.end())) + len(writer.end())


def passed(streams: Streams, chunks: Sequence[bytes], *, stream: bool = True) -> int:
    """The same through all that the relay has between its two sockets. `stream`: whether the client
    asked for one, and gets one."""
    size = 0
    answer = _translated(streams, stream)
    for chunk in chunks:
        direct = answer.direct
        if direct is not None:
            size += len(direct(chunk))
            continue
        for action in answer.feed(Data(chunk)):
            if type(action) is Emit:
                size += len(action.chunk)
    for action in answer.feed(End()):
        if type(action) is Emit:
            size += len(action.chunk)
    return size


def _translated(streams: Streams, stream: bool) -> TranslatedAnswer:
    way = ChatWay(
        llm_format="openai",
        client=openai_chat.CHAT,
        provider=streams.codec,
        context=CONTEXT,
        source=f"{streams.name}://llm/v1/chat",
        wants_stream=stream,
    )
    media_type = streams.media_type if stream else "application/json"
    head = ResponseHead(200, (("content-type", media_type),))
    return TranslatedAnswer(head, way, {}, Learned())


# ---- requests


def request_rows(seconds: float, size: int = chats.MEGABYTE) -> Iterator[RequestRow]:
    """A row for each kind of request and provider."""
    bodies = {f"{count:,} messages": chats.conversation(count, size) for count in MESSAGES}
    for name, body in {**bodies, "one image": chats.image(size)}.items():
        runs: list[Run] = [
            lambda c=codec, b=body: request(c, b)  # type: ignore[misc]
            for _, codec in PROVIDERS
        ]
        timed = rounds(runs, seconds * len(runs), 1e3)
        for (label, _), each in zip(PROVIDERS, timed, strict=True):
            yield RequestRow(name, label, each)


def request(provider: ChatProvider, body: bytes) -> bytes:
    """An OpenAI client's request as the provider gets it."""
    conversation = openai_chat.CHAT.parse_request(orjson.loads(body))
    return orjson.dumps(provider.render_request(conversation).body)
