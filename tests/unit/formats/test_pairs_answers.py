"""Answers from every format into every other: whole and streamed, however it was cut, a client is
told the same, as far as its format can say it."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kong_ai_proxy.formats import llama2, ollama
from kong_ai_proxy.formats.aws_event_stream import encode
from kong_ai_proxy.formats.codec import ChatCodec, ChatProvider, Context
from kong_ai_proxy.formats.conversation import Media
from kong_ai_proxy.formats.deltas import (
    Answer,
    AnswerFailed,
    Choice,
    Delta,
    collect,
)
from tests.unit.formats import strategies
from tests.unit.formats.pairs_formats import CLIENTS, FORMATS, squeezed

CONTEXT = Context(model="asked-model", id="abcdefghijklmnopqrstuvwx", now=1, wants_usage=True)


@dataclass(frozen=True, kw_only=True)
class Tells:
    """What answers in a format can tell."""

    choices: bool = False
    calls: bool = True
    thinking: bool = False
    reasons: tuple[str, ...] = ("stop", "length", "tool_calls", "content_filter")
    """Others are a stop to it."""
    whole_prompt: bool = True
    """Tokens of the prompt, in whole answers."""
    whole_reason: bool = True
    """The finish reason, in whole answers."""
    usage: bool = True


_TEXT = {"calls": False, "reasons": ("stop", "length", "content_filter")}
_TOLD: Final = {
    "openai/chat": Tells(choices=True, thinking=True),
    "openai/completions": Tells(choices=True, **_TEXT),  # type: ignore[arg-type]
    "openai/responses": Tells(),
    "anthropic/messages": Tells(thinking=True),
    "anthropic/complete": Tells(usage=False, calls=False, reasons=("stop", "length")),
    "gemini/generate": Tells(choices=True, thinking=True),
    "gemini/generate-array": Tells(choices=True, thinking=True),
    "bedrock/converse": Tells(thinking=True),
    "bedrock/anthropic": Tells(thinking=True),
    "cohere/chat": Tells(thinking=True, reasons=("stop", "length", "tool_calls")),
    "cohere/generate": Tells(choices=True, whole_reason=False, **_TEXT),  # type: ignore[arg-type]
    "huggingface/generate": Tells(calls=False, reasons=("stop", "length"), whole_prompt=False),
}


def codec(name: str) -> ChatCodec:
    """A format that has both halves."""
    return cast(ChatCodec, FORMATS[name].codec)


def heard(answer: Answer, *formats: str, whole: bool = False) -> list[tuple[object, ...]]:
    """What a client is told, as far as these formats can say it."""
    can = [_TOLD[name] for name in formats]
    choices = answer.choices if all(each.choices for each in can) else answer.choices[:1]
    found: list[tuple[object, ...]] = [_choice(choice, can, whole) for choice in choices]
    used = answer.usage
    if used is not None and all(each.usage for each in can):
        untold = whole and not all(each.whole_prompt for each in can)
        prompt = 0 if untold else used.prompt_tokens
        if prompt or used.completion_tokens:  # some formats have zeros where nothing was told
            found.append((prompt, used.completion_tokens))
    return found


def _is_failure(name: str, answer: Answer) -> bool:
    """Cohere's chat has no other word than ERROR for an answer that was cut off by a filter."""
    reasons = {choice.finish_reason for choice in answer.choices[:1]}
    return name == "cohere/chat" and "content_filter" in reasons


def _choice(choice: Choice, can: list[Tells], whole: bool) -> tuple[object, ...]:
    calls = [(call.name, orjson.loads(call.arguments)) for call in choice.calls]
    identities = [call.id for call in choice.calls]
    assert len(set(identities)) == len(identities)
    assert all(identities)
    reason: str = choice.finish_reason
    for each in can:
        is_told = reason in each.reasons and not (whole and not each.whole_reason)
        reason = reason if is_told else "stop"
    return (
        squeezed(choice.text + choice.refusal),
        calls if all(each.calls for each in can) else [],
        identities if all(each.calls for each in can) else [],
        squeezed(choice.thinking) if all(each.thinking for each in can) else "",
        reason,
    )


def _written(name: str, deltas: list[Delta]) -> bytes:
    writer = codec(name).writer(CONTEXT)
    return writer.feed(deltas) + writer.end()


def _read(provider: ChatProvider, chunks: list[bytes]) -> Answer:
    return collect(strategies.read(provider.reader(), chunks))


def _whole(name: str, answer: Answer) -> Answer:
    value = codec(name).render_answer(answer, CONTEXT)
    return collect(codec(name).parse_answer(orjson.loads(orjson.dumps(value))))


def _said(name: str) -> st.SearchStrategy[list[Delta]]:
    can = _TOLD[name]
    return strategies.delta_lists(
        choices=2 if can.choices else 1,
        calls=can.calls,
        thinking=can.thinking,
        redacted=False,
        signatures=False,
        call_signatures=False,
        refusals=False,
        logprobs=False,
    ).filter(lambda deltas: not _is_failure(name, collect(deltas)))


@pytest.mark.parametrize("name", CLIENTS)
@given(data=st.data())
@settings(max_examples=12, deadline=None)
def test_an_answer_is_the_same_whole_and_streamed_in_every_other_format(
    name: str, data: st.DataObject
) -> None:
    deltas = data.draw(_said(name))
    stream = _written(name, deltas)
    streamed = _read(codec(name), data.draw(strategies.cuts(stream)))
    whole = _whole(name, collect(deltas))
    assert heard(streamed, name) == heard(collect(deltas), name)
    assert heard(whole, name, whole=True) == heard(streamed, name, whole=True)
    pieces = strategies.read(codec(name).reader(), [stream])
    for other in CLIENTS:
        if _is_failure(other, streamed):
            continue
        written = _written(other, pieces)
        streamed_again, whole_again = _read(codec(other), [written]), _whole(other, whole)
        assert heard(streamed_again, name, other) == heard(streamed, name, other), other
        expected = heard(streamed, name, other, whole=True)
        assert heard(whole_again, name, other, whole=True) == expected, other


# ---- streams of the references


def _frames(path: Path) -> bytes:
    """A fixture of AWS: JSON lines, to be framed."""
    lines = [orjson.loads(line) for line in path.read_bytes().splitlines()[1:]]
    if path.stem == "anthropic":
        chunks = ({"bytes": b64encode(orjson.dumps(line)).decode()} for line in lines)
        return b"".join(_frame("event", "chunk", chunk) for chunk in chunks)
    return b"".join(
        _frame("exception", *next(iter(value.items())))
        if kind == "exception"
        else _frame("event", kind, value)
        for line in lines
        for kind, value in line.items()
    )


def _frame(kind: str, name: str, payload: object) -> bytes:
    headers = {f":{kind}-type": name, ":content-type": "application/json", ":message-type": kind}
    return encode(headers, orjson.dumps(payload))


def _fixtures() -> Iterator[Any]:
    here = Path(__file__).parent
    for path in sorted(here.glob("*/fixtures/*")):
        provider = _provider(path)
        if path.suffix in (".sse", ".ndjson", ".jsonl") and provider is not None:
            data = _frames(path) if path.suffix == ".jsonl" else path.read_bytes()
            yield pytest.param(provider, data, id=f"{path.parts[-3]}-{path.stem}")


_BY_FOLDER: Final = {
    "anthropic": "anthropic/messages",
    "bedrock": "bedrock/converse",
    "cohere": "cohere/chat",
    "gemini": "gemini/generate",
    "huggingface": "huggingface/generate",
    "openai": "openai/chat",
    "openai_responses": "openai/responses",
}
_BY_FILE: Final[dict[str, ChatProvider]] = {
    "anthropic/complete.sse": FORMATS["anthropic/complete"].codec,
    "bedrock/anthropic.jsonl": FORMATS["bedrock/anthropic"].codec,
    "llama2/stream.sse": llama2.RAW,
    "ollama/chat_stream.ndjson": ollama.CHAT,
    "ollama/error_stream.ndjson": ollama.CHAT,
    "ollama/generate_stream.ndjson": ollama.GENERATE,
    "ollama/thinking_stream.ndjson": ollama.CHAT,
    "openai/completion.sse": FORMATS["openai/completions"].codec,
}


def _provider(path: Path) -> ChatProvider | None:
    folder = path.parts[-3]
    if found := _BY_FILE.get(f"{folder}/{path.name}"):
        return found
    return FORMATS[_BY_FOLDER[folder]].codec if folder in _BY_FOLDER else None


@pytest.mark.parametrize(("provider", "data"), [*_fixtures()])
def test_every_stream_is_one_of_every_client_however_it_was_cut(
    provider: ChatProvider, data: bytes
) -> None:
    readings = [_batches(provider, chunks) for chunks in _ways(data)]
    deltas = [delta for batch in readings[0] for delta in batch]
    for name in CLIENTS:
        written = [_fed(name, batches) for batches in readings]
        assert all(each == written[0] for each in written[1:]), name
        _check_stream(name, written[0], deltas)


def _ways(data: bytes) -> Iterator[list[bytes]]:
    yield [data]
    yield [data[at : at + 1] for at in range(len(data))]
    for step in range(1, 8):
        at = len(data) * step // 8
        yield [data[:at], data[at:]]


def _batches(provider: ChatProvider, chunks: list[bytes]) -> list[list[Delta]]:
    reader = provider.reader()
    found = [reader.feed(chunk) for chunk in chunks]
    return [*found, reader.end()]


def _fed(name: str, batches: list[list[Delta]]) -> bytes:
    writer = codec(name).writer(CONTEXT)
    return b"".join([writer.feed(batch) for batch in batches]) + writer.end()


def _check_stream(name: str, written: bytes, deltas: list[Delta]) -> None:
    """That the format's own reader finds in it what there was, or an error where there was one."""
    try:
        expected = collect(deltas)
    except AnswerFailed:
        with pytest.raises(AnswerFailed):
            _read(codec(name), [written])
        return
    if _is_failure(name, expected) or _has_media(expected):
        _check_partly(name, written, expected)
        return
    found = _read(codec(name), [written])
    texts = [squeezed(choice.text + choice.refusal) for choice in expected.choices]
    assert squeezed(found.choices[0].text + found.choices[0].refusal) == texts[0], name
    if _TOLD[name].calls:
        assert _calls(found) == _calls(expected), name


def _calls(answer: Answer) -> list[tuple[str, object]]:
    return [(call.name, orjson.loads(call.arguments)) for call in answer.choices[0].calls]


def _has_media(answer: Answer) -> bool:
    return any(isinstance(block, Media) for choice in answer.choices for block in choice.said)


def _check_partly(name: str, written: bytes, expected: Answer) -> None:
    """That it ends with an error, or has in its texts what it has no other place for."""
    try:
        found = _read(codec(name), [written])
    except AnswerFailed:
        return
    assert squeezed(expected.choices[0].text) in squeezed(found.choices[0].text), name
