"""Anthropic's Messages as InvokeModel and InvokeModelWithResponseStream carry them."""

from __future__ import annotations

from base64 import b64decode
from typing import Any

import anthropic.types
import orjson
import pytest
from hypothesis import given
from pydantic import TypeAdapter

from kong_ai_proxy.formats.anthropic import MESSAGES
from kong_ai_proxy.formats.bedrock import ANTHROPIC, ServerSentEvents
from kong_ai_proxy.formats.codec import Context
from kong_ai_proxy.formats.conversation import Conversation, Message, Text
from kong_ai_proxy.formats.deltas import (
    CallArguments,
    CallStarted,
    Delta,
    Failed,
    Finished,
    Started,
    TextPiece,
    Used,
    collect,
)
from kong_ai_proxy.formats.errors import ProviderError
from kong_ai_proxy.formats.sse import SseReader
from kong_ai_proxy.formats.usage import Usage
from tests.unit.formats.bedrock import oracle
from tests.unit.formats.bedrock.support import CLAUDE, chunks, event, exception, lines, said
from tests.unit.formats.strategies import delta_lists, halves, read

INVOKED = "InvokeModelWithResponseStream"
STREAM = chunks(lines("anthropic"))
CONTEXT = Context(model=CLAUDE, id="abc", now=1)


def deltas(data: bytes) -> list[Delta]:
    return read(ANTHROPIC.reader(), [data])


def sent(chunks_of: list[bytes]) -> bytes:
    events = ServerSentEvents()
    return b"".join(events.feed(chunk) for chunk in chunks_of) + events.end()


def values(data: bytes) -> list[Any]:
    """The events of Anthropic's that boto3's caller finds in a stream."""
    return [
        orjson.loads(each["chunk"]["bytes"])
        for each in oracle.events(INVOKED, data)
        if "chunk" in each
    ]


# --- requests ---


def test_a_request_has_a_version_and_neither_model_nor_stream() -> None:
    conversation = said(stream=True, settings={"max_tokens": 5})
    body = ANTHROPIC.render_request(conversation).body
    plain = MESSAGES.render_request(conversation).body
    assert (plain["model"], plain["stream"]) == (CLAUDE, True)
    rest = {name: value for name, value in plain.items() if name not in ("model", "stream")}
    assert body == {"anthropic_version": "bedrock-2023-05-31", **rest}


def test_a_clients_request_is_read() -> None:
    body = {
        "anthropic_version": "bedrock-2023-05-31",
        "max_tokens": 5,
        "messages": [{"role": "user", "content": "Hi"}],
    }
    found = ANTHROPIC.parse_request(body, model=CLAUDE, stream=True)
    assert (found.model, found.stream) == (CLAUDE, True)
    assert found.messages == (Message("user", (Text("Hi"),)),)
    assert found.settings == {"max_tokens": 5}


# --- streams of providers ---


def test_a_stream_is_read() -> None:
    assert deltas(STREAM) == [
        Started("msg_bdrk_01", "claude-sonnet-4-5-20250929"),
        Used(Usage(prompt_tokens=14, completion_tokens=1, total_tokens=15)),
        TextPiece("Grüezi "),
        TextPiece("🎵"),
        CallStarted(0, "toolu_bdrk_1", "top_song"),
        CallArguments(0, '{"sign":"W"}'),
        Finished("tool_calls"),
        Used(Usage(prompt_tokens=14, completion_tokens=9, total_tokens=23)),
    ]


def test_a_stream_cut_at_every_byte_is_the_same() -> None:
    whole, events = deltas(STREAM), sent([STREAM])
    for cut in halves(STREAM):
        assert read(ANTHROPIC.reader(), cut) == whole
        assert sent(cut) == events


def test_a_stream_becomes_the_events_that_anthropic_would_have_sent() -> None:
    out = sent([STREAM])
    assert read(MESSAGES.reader(), [out]) == deltas(STREAM)
    found = SseReader().feed(out)
    told = TypeAdapter(anthropic.types.RawMessageStreamEvent)
    for each, value in zip(found, lines("anthropic"), strict=True):
        assert each.name.decode() == value["type"]
        told.validate_json(each.data or b"")
    assert orjson.loads(found[-1].data or b"") == {"type": "message_stop"}


@pytest.mark.parametrize("name", ["throttlingException", "modelTimeoutException"])
def test_an_exception_is_the_end(name: str) -> None:
    data = chunks(lines("anthropic")[:3]) + exception(name, "No.") + STREAM
    status = {"throttlingException": 429, "modelTimeoutException": 408}[name]
    error = ProviderError("No.", name[0].upper() + name[1:], status)
    assert deltas(data)[-1] == Failed(error)
    assert read(MESSAGES.reader(), [sent([data])])[-1] == Failed(
        ProviderError(
            "No.",
            {429: "rate_limit_error", 408: "invalid_request_error"}[status],
            {429: 429, 408: 400}[status],
        )
    )


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(b"", "ended before its answer did", id="nothing"),
        pytest.param(STREAM[:300], "within a message", id="cut"),
        pytest.param(chunks(lines("anthropic")[:3]), "ended before its answer did", id="no end"),
        pytest.param(b'{"message":"Not found"}', "no AWS event stream", id="JSON"),
        pytest.param(event("chunk", {"bytes": "e30"}), "not a JSON object", id="no base64"),
        pytest.param(event("chunk", {"bytes": "W10="}), "not a JSON object", id="no object"),
        pytest.param(event("chunk", {"p": "ab"}), "not a JSON object", id="no bytes"),
        pytest.param(event("chunk", []), "not a JSON object", id="an array"),
    ],
)
def test_a_stream_that_cannot_be_read_fails_and_says_why(data: bytes, message: str) -> None:
    for cut in halves(data):
        reader = ANTHROPIC.reader()
        found = read(reader, cut)
        last = found[-1]
        assert isinstance(last, Failed)
        assert message in last.error.message
        assert sum(isinstance(each, Failed) for each in found) == 1
        assert reader.feed(STREAM) == reader.end() == []


@pytest.mark.parametrize("data", [STREAM[:300], b'{"message":"Not found"}'])
def test_a_client_of_a_stream_that_breaks_off_gets_an_error_event(data: bytes) -> None:
    *_, last = SseReader().feed(sent([data]))
    assert last.name == b"error"


# --- streams for clients ---


@given(delta_lists(choices=1, call_signatures=False, logprobs=False))
def test_clients_get_the_events_in_frames(pieces: list[Delta]) -> None:
    writer, plain = ANTHROPIC.writer(CONTEXT), MESSAGES.writer(CONTEXT)
    data = b"".join(writer.feed([piece]) for piece in pieces) + writer.end()
    events = b"".join(plain.feed([piece]) for piece in pieces) + plain.end()
    assert values(data) == [orjson.loads(each.data or b"") for each in SseReader().feed(events)]
    assert collect(deltas(data)) == collect(read(MESSAGES.reader(), [events]))


def test_a_failure_is_an_exception_and_no_good_end() -> None:
    writer = ANTHROPIC.writer(CONTEXT)
    error = ProviderError("Busy", "overloaded_error", 529)
    data = writer.feed([Started(), TextPiece("Half"), Failed(error)]) + writer.end()
    assert values(data)[-1]["delta"] == {"type": "text_delta", "text": "Half"}
    assert oracle.events(INVOKED, data)[-1]["Error"] == {
        "Code": "serviceUnavailableException",
        "Message": "Busy",
    }
    assert writer.feed([TextPiece("more")]) == b""


def test_errors_are_bedrocks() -> None:
    error = ANTHROPIC.parse_error(429, b'{"message":"Slow"}')
    assert error == ProviderError("Slow", "ThrottlingException", 429)
    assert ANTHROPIC.render_error(error) == {"__type": "ThrottlingException", "message": "Slow"}


def test_whole_answers_are_anthropics() -> None:
    body = {"type": "message", "id": "m", "content": [{"type": "text", "text": "Hi"}]}
    assert ANTHROPIC.parse_answer(body) == MESSAGES.parse_answer(body)
    answer = collect(MESSAGES.parse_answer(body))
    assert ANTHROPIC.render_answer(answer, CONTEXT) == MESSAGES.render_answer(answer, CONTEXT)


def test_the_base64_of_frames_is_whole() -> None:
    data = ANTHROPIC.writer(CONTEXT).feed([Started()])
    ((_, payload),) = oracle.messages(data)
    assert orjson.loads(b64decode(orjson.loads(payload)["bytes"]))["type"] == "message_start"


def test_an_empty_conversation_is_refused_as_anthropics_is() -> None:
    with pytest.raises(ValueError, match="messages"):
        ANTHROPIC.render_request(Conversation(messages=()))
