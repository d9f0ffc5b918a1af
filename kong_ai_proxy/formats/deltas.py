"""The hub, answers: what a model says, piece by piece, whatever format it comes in.

A stream is read into these pieces and written out of them; an answer in one piece is the same
pieces at once, so that both are treated alike. Named tuples: hundreds are made for one answer.

The order of an answer: Started once, then pieces of content in any order, of each choice its
Finished, Used at any place (a later one replaces an earlier one). Failed may come at any place and
is the last. Text, thoughts and calls follow each other as the model made them: a piece of another
kind, or CallStarted, ends the block before. `choice` numbers the alternatives of `n` > 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, NamedTuple

from kong_ai_proxy.formats.conversation import Media, Refusal, Text, Thinking, ToolCall
from kong_ai_proxy.formats.errors import ProviderError
from kong_ai_proxy.formats.usage import Usage

FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]

_NOTHING: Mapping[str, object] = MappingProxyType({})


class Started(NamedTuple):
    """The answer begins. What the provider does not tell is "" or 0."""

    id: str = ""
    model: str = ""
    created: int = 0
    """Seconds since 1970."""


class TextPiece(NamedTuple):
    """More of what the model says."""

    text: str
    choice: int = 0


class ThinkingPiece(NamedTuple):
    """More of what it thinks."""

    text: str
    choice: int = 0


class ThinkingSigned(NamedTuple):
    """The signature of the thought before, which ends with it."""

    signature: str
    choice: int = 0


class ThinkingRedacted(NamedTuple):
    """A whole thought that only the provider can read."""

    data: str
    choice: int = 0


class RefusalPiece(NamedTuple):
    """More of why the model declines."""

    text: str
    choice: int = 0


class CallStarted(NamedTuple):
    """A tool call begins; calls of a choice are numbered from 0 without gaps."""

    number: int
    id: str
    """"" where the provider tells none: the writer makes one up."""
    name: str
    signature: str = ""
    """See ToolCall."""
    choice: int = 0


class CallArguments(NamedTuple):
    """More JSON text of a call's arguments. A call without any has "{}"."""

    number: int
    text: str
    choice: int = 0


class MediaPiece(NamedTuple):
    """An image or sound that the model made, whole."""

    media: Media
    choice: int = 0


class Logprobs(NamedTuple):
    """Log probabilities of the text before, as OpenAI's `logprobs.content` has them."""

    content: list[object]
    choice: int = 0


class Finished(NamedTuple):
    """A choice is complete."""

    reason: FinishReason
    stop_sequence: str | None = None
    """The text that ended it, where the provider tells."""
    choice: int = 0


class Used(NamedTuple):
    """The usage of the whole answer so far: replaces what was told before."""

    usage: Usage
    extra: Mapping[str, object] = _NOTHING
    """What else the provider tells of the whole answer, under its own names: Bedrock's `trace` of
    a guardrail. OpenAI clients get it at the top level of the answer; in a stream, of the chunk
    that tells the usage. Others leave it out."""


class Failed(NamedTuple):
    """The provider, or reading what it sent, failed. Nothing follows."""

    error: ProviderError


Delta = (
    Started
    | TextPiece
    | ThinkingPiece
    | ThinkingSigned
    | ThinkingRedacted
    | RefusalPiece
    | CallStarted
    | CallArguments
    | MediaPiece
    | Logprobs
    | Finished
    | Used
    | Failed
)

CONTENT = (
    TextPiece,
    ThinkingPiece,
    ThinkingRedacted,
    RefusalPiece,
    CallStarted,
    MediaPiece,
)
"""The pieces by which a client knows that the model has begun to answer."""

Said = Text | Thinking | ToolCall | Refusal | Media


@dataclass(frozen=True, slots=True)
class Choice:
    """One whole alternative of an answer."""

    said: tuple[Said, ...] = ()
    """In order. Neighbouring pieces of one kind are one block."""
    finish_reason: FinishReason = "stop"
    stop_sequence: str | None = None
    logprobs: tuple[object, ...] = ()

    @property
    def text(self) -> str:
        """All that was said, as one text."""
        return "".join(block.text for block in self.said if isinstance(block, Text))

    @property
    def thinking(self) -> str:
        """All thoughts that can be read, as one text."""
        return "".join(block.text for block in self.said if isinstance(block, Thinking))

    @property
    def refusal(self) -> str:
        """Why the model declined; "" where it did not."""
        return "".join(block.text for block in self.said if isinstance(block, Refusal))

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """The tool calls in order."""
        return tuple(block for block in self.said if isinstance(block, ToolCall))


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One whole answer."""

    id: str = ""
    model: str = ""
    created: int = 0
    choices: tuple[Choice, ...] = ()
    usage: Usage | None = None
    extra: Mapping[str, object] = field(default_factory=dict)
    """See Used."""


class AnswerFailed(Exception):  # noqa: N818 - said by the provider, not a fault of the program
    """The pieces end with Failed."""

    def __init__(self, error: ProviderError) -> None:
        super().__init__(error.message)
        self.error = error


def collect(deltas: Iterable[Delta]) -> Answer:
    """All pieces as one answer. Raises AnswerFailed."""
    collector = Collector()
    for delta in deltas:
        collector.add(delta)
    return collector.answer()


class _Growing:
    """One choice under way."""

    __slots__ = ("calls", "finished", "kind", "logprobs", "parts", "said")

    def __init__(self) -> None:
        self.said: list[Said] = []
        self.parts: list[str] = []
        self.kind: type[TextPiece | ThinkingPiece | RefusalPiece] | None = None
        self.calls: dict[int, tuple[int, list[str]]] = {}  # place in `said`, arguments
        self.finished = Finished("stop")
        self.logprobs: list[object] = []

    def piece(self, delta: TextPiece | ThinkingPiece | RefusalPiece) -> None:
        if self.kind is not type(delta):
            self.close()
            self.kind = type(delta)
        self.parts.append(delta.text)

    def close(self, signature: str = "") -> None:
        text = "".join(self.parts)
        if self.kind is TextPiece and text:
            self.said.append(Text(text))
        elif self.kind is RefusalPiece and text:
            self.said.append(Refusal(text))
        if self.kind is ThinkingPiece:
            self.said.append(Thinking(text, signature))
        elif signature:  # Gemini signs what it says without telling what it thought
            self.said.append(Thinking("", signature))
        self.kind = None
        self.parts = []

    def whole(self, block: Said) -> None:
        self.close()
        self.said.append(block)

    def call(self, delta: CallStarted) -> None:
        self.whole(ToolCall(delta.id, delta.name, "", delta.signature))
        self.calls[delta.number] = (len(self.said) - 1, [])

    def arguments(self, delta: CallArguments) -> None:
        if delta.number in self.calls:
            self.calls[delta.number][1].append(delta.text)

    def choice(self) -> Choice:
        self.close()
        for place, parts in self.calls.values():
            call = self.said[place]
            assert isinstance(call, ToolCall)
            text = "".join(parts) or "{}"
            self.said[place] = ToolCall(call.id, call.name, text, call.signature)
        reason, stop_sequence, _ = self.finished
        return Choice(tuple(self.said), reason, stop_sequence, tuple(self.logprobs))


class Collector:
    """Puts the pieces of an answer together."""

    def __init__(self) -> None:
        self._started = Started()
        self._usage: Usage | None = None
        self._extra: Mapping[str, object] = _NOTHING
        self._choices: dict[int, _Growing] = {}

    def add(self, delta: Delta) -> None:
        """Take the next piece. Raises AnswerFailed."""
        if isinstance(delta, Started):
            self._started = delta
        elif isinstance(delta, Used):
            self._usage = delta.usage
            self._extra = delta.extra
        elif isinstance(delta, Failed):
            raise AnswerFailed(delta.error)
        else:
            _grow(self._choices.setdefault(delta.choice, _Growing()), delta)

    def answer(self) -> Answer:
        """What came so far."""
        choices = [self._choices[number].choice() for number in sorted(self._choices)]
        identity, model, created = self._started
        return Answer(
            id=identity,
            model=model,
            created=created,
            choices=tuple(choices),
            usage=self._usage,
            extra=dict(self._extra),
        )


def _grow(
    choice: _Growing,
    delta: TextPiece
    | ThinkingPiece
    | ThinkingSigned
    | ThinkingRedacted
    | RefusalPiece
    | CallStarted
    | CallArguments
    | MediaPiece
    | Logprobs
    | Finished,
) -> None:
    match delta:
        case TextPiece() | ThinkingPiece() | RefusalPiece():
            choice.piece(delta)
        case ThinkingSigned(signature):
            choice.close(signature)
        case ThinkingRedacted(data):
            choice.whole(Thinking("", redacted=data))
        case CallStarted():
            choice.call(delta)
        case CallArguments():
            choice.arguments(delta)
        case MediaPiece(media):
            choice.whole(media)
        case Logprobs(content):
            choice.logprobs.extend(content)
        case Finished():
            choice.finished = delta


def pieces(answer: Answer) -> Sequence[Delta]:
    """A whole answer as pieces: what a client that asked for a stream is sent of it."""
    found: list[Delta] = [Started(answer.id, answer.model, answer.created)]
    for number, choice in enumerate(answer.choices):
        calls = 0
        for block in choice.said:
            if isinstance(block, ToolCall):
                found.append(CallStarted(calls, block.id, block.name, block.signature, number))
                found.append(CallArguments(calls, block.arguments, number))
                calls += 1
            else:
                found.extend(_block_pieces(block, number))
        if choice.logprobs:
            found.append(Logprobs(list(choice.logprobs), number))
        found.append(Finished(choice.finish_reason, choice.stop_sequence, number))
    if answer.usage:
        found.append(Used(answer.usage, answer.extra))
    return found


def _block_pieces(block: Text | Thinking | Refusal | Media, choice: int) -> list[Delta]:
    match block:
        case Text(text):
            return [TextPiece(text, choice)]
        case Refusal(text):
            return [RefusalPiece(text, choice)]
        case Media():
            return [MediaPiece(block, choice)]
        case Thinking(text, signature, redacted):
            if redacted:
                return [ThinkingRedacted(redacted, choice)]
            signed: list[Delta] = [ThinkingSigned(signature, choice)] if signature else []
            return [ThinkingPiece(text, choice), *signed]
