"""What the client gets of a provider's answer that the relay carries."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable
from typing import Any

import brotli
import orjson
import pytest

from kong_ai_proxy import config
from kong_ai_proxy.exchange.answer import MAX_READ
from kong_ai_proxy.exchange.attempt import Attempt
from kong_ai_proxy.exchange.messages import (
    Abort,
    Action,
    Commit,
    Data,
    Emit,
    End,
    Fail,
    Finish,
    Head,
    Lost,
    ResponseHead,
)
from kong_ai_proxy.exchange.plan import Plan
from tests.unit.exchange.exchanges import ai_proxy, request

Json = dict[str, Any]

STATISTICS = {"log_statistics": True}
USAGE = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}
ANSWER = orjson.dumps(
    {
        "id": "chatcmpl-1",
        "model": "gpt-4o-2024-08-06",
        "choices": [{"message": {"role": "assistant", "content": "é" * 500}}],
        "usage": USAGE,
    }
)
EVENTS = [
    b'data: {"id":"1","choices":[{"delta":{"content":"one "}}],"usage":null}\n\n',
    b'data: {"id":"1","choices":[{"delta":{"content":"two"}}],"usage":null}\n\n',
    b'data: {"id":"1","choices":[],"usage":' + orjson.dumps(USAGE) + b"}\n\n",
    b"data: [DONE]\n\n",
]
STREAM = b"".join(EVENTS)
STRIPPED = (
    b'data: {"id":"1","choices":[{"delta":{"content":"one "}}]}\n\n'
    b'data: {"id":"1","choices":[{"delta":{"content":"two"}}]}\n\n'
    b"data: [DONE]\n\n"
)

ENCODE = {
    "gzip": gzip.compress,
    "br": brotli.compress,
    "deflate": zlib.compress,
}


def attempt(logging: Json | None = None, *, stream: bool = False, **fields: Any) -> Attempt:
    """An attempt of the relay that has been started."""
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}], "stream": stream}
    raw = orjson.dumps(body)
    plan = Plan(config.parse("ai-proxy", ai_proxy(logging=logging or {})))
    started = plan.attempt(request(raw, **fields), raw, relayed=True)
    started.start()
    return started


def head(status: int = 200, **headers: str) -> Head:
    named = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return Head(ResponseHead(status, named))


def run(attempted: Attempt, first: Head, chunks: Iterable[bytes]) -> list[Action]:
    """Everything that is done about an answer."""
    actions = [*attempted.feed(first)]
    for chunk in chunks:
        actions += attempted.feed(Data(chunk))
    return [*actions, *attempted.feed(End())]


def emitted(actions: Iterable[Action]) -> bytes:
    return b"".join(action.chunk for action in actions if isinstance(action, Emit))


def committed(actions: list[Action]) -> ResponseHead:
    assert isinstance(actions[0], Commit)
    return actions[0].head


def one_shot_head(encoding: str | None = None) -> Head:
    coded: Json = {"content_encoding": encoding} if encoding else {}
    return head(content_type="application/json", **coded)


def test_an_answer_nobody_reads_is_the_very_same_bytes() -> None:
    actions = run(attempt(), one_shot_head(), [ANSWER])
    assert isinstance(actions[1], Emit)
    assert actions[1].chunk is ANSWER
    assert isinstance(actions[-1], Finish)


def test_an_answer_that_is_read_is_the_very_same_bytes() -> None:
    attempted = attempt(STATISTICS)
    actions = run(attempted, one_shot_head(), [ANSWER])
    assert isinstance(actions[1], Emit)
    assert actions[1].chunk is ANSWER
    found = attempted.usage
    assert found is not None
    assert (found.prompt_tokens, found.completion_tokens, found.total_tokens) == (5, 7, 12)
    assert attempted.reading is not None
    assert attempted.reading.model == "gpt-4o-2024-08-06"


@pytest.mark.parametrize("encoding", [*ENCODE])
@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_a_compressed_answer_passes_compressed_to_who_takes_it(encoding: str, size: int) -> None:
    attempted = attempt(STATISTICS, headers={"accept-encoding": "gzip, br, deflate"})
    raw = ENCODE[encoding](ANSWER)
    chunks = [raw[at : at + size] for at in range(0, len(raw), size)]
    actions = run(attempted, one_shot_head(encoding), chunks)
    assert emitted(actions) == raw
    assert committed(actions).header("content-encoding") == encoding
    assert (found := attempted.usage) is not None
    assert found.total_tokens == 12


@pytest.mark.parametrize("logging", [STATISTICS, {}])
@pytest.mark.parametrize("encoding", [*ENCODE, "gzip, br"])
@pytest.mark.parametrize("size", [1, 10_000])
def test_who_does_not_take_it_gets_it_decompressed(encoding: str, size: int, logging: Json) -> None:
    attempted = attempt(logging)
    raw = ANSWER
    for each in encoding.split(", "):
        raw = ENCODE[each](raw)
    chunks = [raw[at : at + size] for at in range(0, len(raw), size)]
    first = head(
        content_type="application/json",
        content_encoding=encoding,
        content_length=str(len(raw)),
    )
    actions = run(attempted, first, chunks)
    assert emitted(actions) == ANSWER
    assert isinstance(actions[0], Commit)
    assert actions[0].length is None
    assert committed(actions).header("content-encoding") is None
    assert committed(actions).header("content-length") is None


@pytest.mark.parametrize("encoding", [*ENCODE])
@pytest.mark.parametrize("accepted", ["gzip, br, deflate", "identity"])
def test_a_stream_is_never_compressed(encoding: str, accepted: str) -> None:
    attempted = attempt(STATISTICS, stream=True, headers={"accept-encoding": accepted})
    raw = ENCODE[encoding](STREAM)
    first = head(content_type="text/event-stream; charset=utf-8", content_encoding=encoding)
    actions = run(attempted, first, [raw[at : at + 1] for at in range(len(raw))])
    assert emitted(actions) == STRIPPED
    assert committed(actions).header("content-encoding") is None
    assert (found := attempted.usage) is not None
    assert found.total_tokens == 12


@pytest.mark.parametrize("at", range(1, len(STREAM)))
def test_a_stream_split_anywhere_loses_the_usage_that_only_the_relay_asked_for(at: int) -> None:
    attempted = attempt(STATISTICS, stream=True)
    actions = run(attempted, head(content_type="text/event-stream"), [STREAM[:at], STREAM[at:]])
    assert emitted(actions) == STRIPPED
    assert (found := attempted.usage) is not None
    assert found.completion_tokens == 7


def test_events_of_a_stream_are_not_held_back() -> None:
    attempted = attempt({"log_payloads": True}, stream=True)
    first = head(content_type="text/event-stream")
    [*attempted.feed(first)]
    for event in EVENTS:
        [action] = attempted.feed(Data(event))
        assert isinstance(action, Emit)
        assert action.chunk is event


def test_an_error_of_the_provider_keeps_status_body_and_type() -> None:
    body = b'{"error":{"message":"slow down"}}'
    first = head(429, content_type="application/json", retry_after="3", content_length="33")
    actions = run(attempt(STATISTICS, stream=True), first, [body])
    assert emitted(actions) == body
    assert committed(actions).status == 429
    assert committed(actions).header("content-type") == "application/json"
    assert committed(actions).header("retry-after") == "3"


def test_the_model_header_stands_on_status_200_only() -> None:
    for status, expected in ((200, "openai/gpt-4o"), (201, None), (429, None)):
        answer = committed(run(attempt(), head(status, content_type="application/json"), []))
        assert answer.header("x-kong-llm-model") == expected


@pytest.mark.parametrize(
    "name",
    ["set-cookie", "x-accel-redirect", "x-accel-buffering", "x-kong-proxy-latency", "connection"],
)
def test_headers_that_are_not_the_clients_business_end_here(name: str) -> None:
    actions = run(attempt(), Head(ResponseHead(200, ((name, "x"), ("x-kept", "1")))), [])
    assert committed(actions).header(name) is None
    assert committed(actions).header("x-kept") == "1"


def test_an_answer_in_a_coding_that_nobody_knows_passes_to_who_takes_it() -> None:
    attempted = attempt(STATISTICS, headers={"accept-encoding": "zstd"})
    actions = run(attempted, one_shot_head("zstd"), [b"(zstd)"])
    assert emitted(actions) == b"(zstd)"
    assert committed(actions).header("content-encoding") == "zstd"


def test_it_is_no_answer_to_who_does_not() -> None:
    [action] = attempt(STATISTICS).feed(one_shot_head("zstd"))
    assert isinstance(action, Fail)
    assert action.answer.status == 502


def test_a_corrupt_answer_breaks_off() -> None:
    attempted = attempt(STATISTICS)
    raw = gzip.compress(ANSWER)
    [*attempted.feed(one_shot_head("gzip"))]
    actions = [*attempted.feed(Data(raw[:40])), *attempted.feed(End())]
    assert isinstance(actions[-1], Abort)


def test_a_corrupt_answer_that_passes_compressed_is_the_clients_to_judge() -> None:
    attempted = attempt(STATISTICS, headers={"accept-encoding": "gzip"})
    actions = run(attempted, one_shot_head("gzip"), [b"no gzip"])
    assert emitted(actions) == b"no gzip"
    assert attempted.usage is None


def test_a_bomb_is_not_read_to_its_end() -> None:
    attempted = attempt(STATISTICS, headers={"accept-encoding": "gzip"})
    packer = zlib.compressobj(9, wbits=31)
    bomb = b"".join(packer.compress(bytes(2**20)) for _ in range(MAX_READ // 2**20 + 8))
    actions = run(attempted, one_shot_head("gzip"), [bomb])
    assert emitted(actions) == bomb
    assert attempted.usage is None


def test_a_bomb_is_unpacked_no_faster_than_the_client_reads() -> None:
    attempted = attempt()
    [*attempted.feed(one_shot_head("gzip"))]
    packer = zlib.compressobj(9, wbits=31)
    bomb = b"".join(packer.compress(bytes(2**20)) for _ in range(256))
    actions = attempted.feed(Data(bomb))
    for _ in range(3):
        action = next(actions)
        assert isinstance(action, Emit)
        assert len(action.chunk) <= 64 * 1024


def test_a_stream_that_breaks_off_ends_with_an_error_and_without_done() -> None:
    attempted = attempt(STATISTICS, stream=True)
    [*attempted.feed(head(content_type="text/event-stream"))]
    [*attempted.feed(Data(EVENTS[0]))]
    actions = [*attempted.feed(Lost("error", "reset"))]
    assert isinstance(actions[-1], Abort)
    told = emitted(actions)
    assert b'data: {"error":{"message":"the provider\'s answer broke off"}}\n\n' in told
    assert b"[DONE]" not in told


def test_an_answer_in_one_piece_that_breaks_off_just_breaks_off() -> None:
    attempted = attempt(STATISTICS)
    [*attempted.feed(one_shot_head())]
    assert [*attempted.feed(Lost("timeout", "slow"))] == [Abort()]


@pytest.mark.parametrize(
    ("criterion", "status"), [("error", 502), ("timeout", 504), ("invalid_header", 502)]
)
def test_no_answer_at_all_is_an_error_of_the_gateway(criterion: Any, status: int) -> None:
    [action] = attempt().feed(Lost(criterion, "why"))
    assert isinstance(action, Fail)
    assert (action.criterion, action.answer.status) == (criterion, status)


def test_the_words_of_a_stream_without_usage_are_counted() -> None:
    attempted = attempt(STATISTICS, stream=True)
    events = [EVENTS[0], EVENTS[1], EVENTS[3]]
    run(attempted, head(content_type="text/event-stream"), events)
    found = attempted.usage
    assert found is not None
    assert found.estimated
    assert (found.prompt_tokens, found.completion_tokens) == (2, 2)
