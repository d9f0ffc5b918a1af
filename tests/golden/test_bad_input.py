"""Whatever a provider sends, each of the six clients gets an answer or an error in its own words.

The answers come from the golden fixtures; see `_STREAM_FAULTS`, `_WHOLE_FAULTS` and `_ERRORS` for
what is made of them.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import orjson
import pytest

from kong_ai_proxy.exchange.messages import Data, End, Head, Lost, ResponseHead
from tests.golden import clients, fixture
from tests.golden.clients import CLIENTS, HUGGINGFACE_CHAT, Client
from tests.golden.fixture import TYPES, Golden, Played
from tests.providers.aws import frame

Json = dict[str, Any]


class Vendor(NamedTuple):
    """How one provider's format says what it says."""

    error: Json
    """A whole error body; its text has TEXT."""
    event: bytes
    """An error inside a stream, which has TEXT."""
    unknown: bytes
    """An event that nobody knows."""
    status: int
    """Of `event`, where it comes before any text."""


TEXT = "the vendor is busy"


def _sse(value: object, name: str = "") -> bytes:
    head = f"event: {name}\n".encode() if name else b""
    return head + b"data: " + orjson.dumps(value) + b"\n\n"


def _exception(name: str) -> bytes:
    headers = {
        ":exception-type": name,
        ":content-type": "application/json",
        ":message-type": "exception",
    }
    return frame(headers, orjson.dumps({"message": TEXT}))


_ANTHROPIC = {"type": "error", "error": {"type": "overloaded_error", "message": TEXT}}
_OPENAI = {"error": {"message": TEXT, "type": "server_error", "param": None, "code": None}}
_GOOGLE = {"error": {"code": 503, "message": TEXT, "status": "UNAVAILABLE"}}
_TGI = {"error": TEXT, "error_type": "overloaded"}
_GENERATE = {
    "event_type": "stream-error",
    "is_finished": True,
    "finish_reason": "ERROR",
    "err": TEXT,
}
_BUSY = {"type": "message-end", "delta": {"finish_reason": "ERROR", "error": TEXT}}

# Where: https://platform.claude.com/docs/en/api/errors,
# https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html,
# https://docs.cohere.com/reference/errors, https://docs.cohere.com/v1/reference/generate, https://ai.google.dev/gemini-api/docs/troubleshooting,
# https://docs.ollama.com/api/errors, https://huggingface.github.io/text-generation-inference/,
# https://platform.openai.com/docs/guides/error-codes.
VENDORS: Mapping[str, Vendor] = {
    "anthropic": Vendor(
        _ANTHROPIC, _sse(_ANTHROPIC, "error"), _sse({"type": "brand_new", "x": 1}, "brand_new"), 529
    ),
    "bedrock": Vendor(
        {"message": TEXT},
        _exception("throttlingException"),
        fixture.event_frame("brandNewEvent", {"x": 1}),
        429,
    ),
    "cohere": Vendor(
        {"message": TEXT},
        _sse(_BUSY, "message-end"),
        _sse({"type": "brand-new", "x": 1}, "brand-new"),
        500,
    ),
    "cohere/completions": Vendor(
        {"message": TEXT},
        orjson.dumps(_GENERATE) + b"\n",
        orjson.dumps({"event_type": "brand-new", "is_finished": False}) + b"\n",
        500,
    ),
    "vertex": Vendor(_GOOGLE, _sse(_GOOGLE), _sse({"brandNew": 1}), 503),
    "llama2-ollama": Vendor(
        {"error": TEXT},
        orjson.dumps({"error": TEXT}) + b"\n",
        orjson.dumps({"model": "llama2", "brand_new": 1, "done": False}) + b"\n",
        502,
    ),
    "llama2-raw": Vendor(_TGI, _sse(_TGI), b": comment\n\n", 429),
    "openai": Vendor(_OPENAI, _sse(_OPENAI), _sse({"id": "x", "choices": None, "model": "m"}), 500),
    "mistral-openai": Vendor(
        {"object": "error", "message": TEXT, "type": "server_error", "param": None, "code": None},
        _sse(_OPENAI),
        _sse({"id": "x", "choices": None, "model": "m"}),
        500,
    ),
}


class Pair(NamedTuple):
    """A client and a provider of other formats."""

    client: str
    row: str

    @property
    def vendor(self) -> Vendor:
        """What the provider says to this client's kind of request."""
        if self.client == "huggingface" and self.row == "cohere":
            return VENDORS["cohere/completions"]
        return VENDORS[self.row]

    @property
    def asks(self) -> Client:
        """Hugging Face's own operation continues a prompt, which some providers do not offer."""
        chats = self.client == "huggingface" and self.row in ("openai", "mistral-openai")
        return HUGGINGFACE_CHAT if chats else CLIENTS[self.client]

    def golden(self, *, stream: bool) -> Golden:
        """The fixture whose answer the provider gives."""
        completes = self.asks is CLIENTS["huggingface"]
        name = f"{self.row}/{'completions' if completes else 'chat'}"
        return fixture.load(f"{name}-stream" if stream else name)

    def play(self, chunks: list[bytes], *, stream: bool, head: Head | None = None) -> Played:
        """What the client gets of these bytes."""
        golden = self.golden(stream=stream)
        attempt, _ = clients.ask(self.client, self.asks, golden, stream=stream)
        played = fixture.play(attempt, head or golden.head(), chunks)
        assert b"golden-" not in played.body.replace(b"golden-instruct", b"")
        assert "golden-" not in repr(played.head)
        return played


_SAME_FORMAT = {
    ("gemini", "vertex"),
    ("huggingface", "mistral-openai"),
    ("huggingface", "openai"),
    ("openai", "mistral-openai"),
}
PAIRS = [
    Pair(client, row)
    for client in CLIENTS
    for row in VENDORS
    if client != row and (client, row) not in _SAME_FORMAT and row != "cohere/completions"
]
pairs = pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: f"{pair.client}-{pair.row}")


def _split(golden: Golden) -> list[bytes]:
    """A stream's events."""
    if "frames" in golden.answer:
        return [fixture.event_frame(kind, value) for kind, value in golden.answer["frames"]]
    end = b"\n" if "ndjson" in golden.answer else b"\n\n"
    return [part + end for part in golden.answered.split(end) if part.strip()]


_FIRST = ("Für".encode(), b"Its")
"""With one of these each fixture's text begins."""


def _beginning(golden: Golden) -> list[bytes]:
    """Events of a stream to behind its first text."""
    events = _split(golden)
    at = next(at for at, event in enumerate(events) if any(word in event for word in _FIRST))
    return events[: at + 1]


# ---- streams that go wrong


def _broken(golden: Golden, data: bytes) -> bytes:
    """`data` as an event's."""
    if "frames" in golden.answer:
        return frame({":event-type": "contentBlockDelta", ":message-type": "event"}, data)
    return data + b"\n" if "ndjson" in golden.answer else b"data: " + data + b"\n\n"


def _wrong_sum(golden: Golden, pair: Pair) -> bytes:
    """A message of an AWS event stream whose checksum is wrong; other formats have none."""
    if "frames" not in golden.answer:
        return _broken(golden, b'{"half": ')
    right = fixture.event_frame("contentBlockDelta", {"contentBlockIndex": 0, "delta": {}})
    return right[:-1] + bytes([right[-1] ^ 1])


def _endless(golden: Golden, pair: Pair) -> bytes:
    """A line of 3 MiB, or a message that announces 1 GiB."""
    if "frames" in golden.answer:
        prelude = struct.pack(">II", 2**30, 16)
        return prelude + struct.pack(">I", zlib.crc32(prelude)) + bytes(100)
    return b'data: {"x": "' + b"x" * (3 << 20)


_STREAM_FAULTS: Mapping[str, Callable[[Golden, Pair], bytes]] = {
    "nothing more": lambda golden, pair: b"",
    "half an event": lambda golden, pair: _split(golden)[-1][:9],
    "no JSON": lambda golden, pair: _broken(golden, b"{nonsense"),
    "half UTF-8": lambda golden, pair: _broken(golden, b'{"text": "\xc3"}'),
    "a wrong checksum": _wrong_sum,
    "no end of line": _endless,
    "an error": lambda golden, pair: pair.vendor.event,
}
stream_faults = pytest.mark.parametrize("fault", _STREAM_FAULTS)


@pairs
@stream_faults
def test_a_stream_that_goes_wrong_ends_with_an_error(pair: Pair, fault: str) -> None:
    golden = pair.golden(stream=True)
    chunks = [*_beginning(golden), _STREAM_FAULTS[fault](golden, pair)]
    played = pair.play(chunks, stream=True)
    message = clients.stream_error(pair.client, played)
    assert message
    assert fault != "an error" or TEXT in message


@pairs
@stream_faults
def test_a_stream_that_is_wrong_from_the_start_is_an_ordinary_error(pair: Pair, fault: str) -> None:
    golden = pair.golden(stream=True)
    played = pair.play([_STREAM_FAULTS[fault](golden, pair)], stream=True)
    message = clients.error_message(pair.client, played)
    assert message
    if fault == "an error":
        assert (played.head.status, TEXT in message) == (pair.vendor.status, True)


@pairs
def test_events_that_nobody_knows_are_passed_over(pair: Pair) -> None:
    golden = pair.golden(stream=True)
    events = _split(golden)
    whole = pair.play(events, stream=True)
    at = len(events) // 2
    strange = [*events[:at], pair.vendor.unknown, *events[at:]]
    assert pair.play(strange, stream=True).body == whole.body


@pairs
def test_a_stream_whose_connection_is_lost_is_not_complete(pair: Pair) -> None:
    golden = pair.golden(stream=True)
    attempt, _ = clients.ask(pair.client, pair.asks, golden, stream=True)
    actions = [*attempt.feed(golden.head())]
    for chunk in _beginning(golden):
        actions += attempt.feed(Data(chunk))
    actions += attempt.feed(Lost("error", "reset by peer"))
    played = Played(attempt, actions)
    assert not played.is_clean
    assert clients.stream_error(pair.client, played)
    assert [*attempt.feed(End())] == []


# ---- whole answers that are none

_WHOLE_FAULTS: Mapping[str, bytes] = {
    "nothing": b"",
    "half of it": b'{"id": "x", "choices": [{"mess',
    "half UTF-8": b'{"text": "\xc3"}',
    "HTML": b"<html><body>Gateway</body></html>",
    "a list": b"[1]",
    "a number": b"1",
    "null": b"null",
}


@pairs
@pytest.mark.parametrize("fault", _WHOLE_FAULTS)
@pytest.mark.parametrize("stream", [False, True])
def test_a_200_that_holds_no_answer_is_an_error(pair: Pair, fault: str, stream: bool) -> None:
    kind = "text/html" if fault == "HTML" else "application/json"
    head = Head(ResponseHead(200, (("content-type", kind),)))
    played = pair.play([_WHOLE_FAULTS[fault]], stream=stream, head=head)
    assert clients.error_message(pair.client, played)


@pairs
def test_a_200_that_holds_an_error_is_an_error(pair: Pair) -> None:
    body = orjson.dumps(pair.vendor.error)
    played = pair.play([body], stream=False, head=_head(200))
    assert TEXT in clients.error_message(pair.client, played)


@pairs
def test_an_answer_of_another_content_type_is_read(pair: Pair) -> None:
    golden = pair.golden(stream=False)
    head = Head(ResponseHead(200, (("content-type", "text/plain; charset=utf-8"),)))
    assert pair.play([golden.answered], stream=False, head=head).body == (
        pair.play([golden.answered], stream=False).body
    )


@pairs
def test_a_whole_answer_to_who_asked_for_a_stream_is_made_one(pair: Pair) -> None:
    golden = pair.golden(stream=False)
    played = pair.play([golden.answered], stream=True, head=_head(200))
    assert played.is_clean
    assert played.head.status == 200
    kind = "frames" if pair.client == "bedrock" else "sse"
    assert played.head.header("content-type") == TYPES[kind]


# ---- errors

_ERRORS = {
    "JSON": ("application/json", b""),
    "HTML": ("text/html", b"<html><head><title>503</title></head></html>"),
    "nothing": ("", b""),
    "half of it": ("application/json", b'{"error": {"mess'),
    "a list": ("application/json", b"[]"),
    "bytes": ("application/octet-stream", bytes(range(256)) * 8192),
}


def _head(status: int, kind: str = "application/json") -> Head:
    return Head(ResponseHead(status, (("content-type", kind),) if kind else ()))


@pairs
@pytest.mark.parametrize("what", _ERRORS)
@pytest.mark.parametrize(("status", "stream"), [(400, False), (429, True), (503, False)])
def test_an_error_keeps_its_status(pair: Pair, what: str, status: int, stream: bool) -> None:
    kind, body = _ERRORS[what]
    raw = body or (orjson.dumps(pair.vendor.error) if what == "JSON" else b"")
    played = pair.play([raw], stream=stream, head=_head(status, kind))
    assert played.head.status == status
    message = clients.error_message(pair.client, played)
    assert message
    assert len(message) < 10_000
    assert what != "JSON" or TEXT in message


@pytest.mark.parametrize(
    "pair",
    [pair for pair in PAIRS if pair.row in ("anthropic", "cohere", "openai")],
    ids=lambda pair: f"{pair.client}-{pair.row}",
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_key_that_the_provider_quotes_stays_here(pair: Pair, stream: bool) -> None:
    """Where formats differ; a body in the client's own format passes as it is."""
    text = "Incorrect API key provided: golden-key."
    body = orjson.dumps({"type": "error", "message": text, "error": {"message": text}})
    played = pair.play([body], stream=stream, head=_head(401))
    assert played.head.status == 401
    assert b"Incorrect API key" in played.body
