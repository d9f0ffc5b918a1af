"""What the relay's figures rest on: both ends read and compare what they get as they should."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from benchmarks.relay import cases, measure, report, wire
from benchmarks.relay.load import Job
from kong_ai_proxy.config import parse

TRANSLATED = [case.name for case in cases.TRANSLATED]
SECONDS = 1.5
"""Of a run: in each fifth of it an answer has to come, on a busy machine too."""
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"


def test_a_chunked_body_is_read_however_it_is_cut() -> None:
    raw = wire.chunk(b"a" * 17) + wire.chunk(b"\r\n0\r\n\r\n") + wire.LAST_CHUNK
    for first in range(len(raw) + 1):
        for second in range(first, len(raw) + 1):
            body = wire.Body(CHUNKED)
            found = b"".join(
                piece
                for part in (raw[:first], raw[first:second], raw[second:])
                for piece in body.feed(part)
            )
            assert (found, body.done) == (b"a" * 17 + b"\r\n0\r\n\r\n", True)


def test_a_body_is_not_done_before_its_last_line_end() -> None:
    body = wire.Body(CHUNKED)
    body.feed(wire.LAST_CHUNK[:-1])
    assert not body.done


def test_a_stream_without_the_usage_nobody_asked_for_is_the_same_answer() -> None:
    case = cases.BY_NAME["sse"]
    without = [event for event in case.answer if b'"choices":[]' not in event]
    assert len(without) == len(case.answer) - 1
    assert case.is_answered_by(b"".join(without))
    assert not case.is_answered_by(b"".join(without[:50] + without[51:]))
    assert not case.is_answered_by(b"".join(without[:-1]))


def test_every_case_has_a_configuration_that_is_valid() -> None:
    for name in cases.INSTANCES:
        assert parse("ai-proxy", cases.config(name, 1)).targets


@pytest.fixture(scope="module")
def bench() -> Iterator[measure.Bench]:
    with measure.bench(control=False) as found:
        yield found


@pytest.mark.parametrize("name", [name for name in cases.INSTANCES if name not in TRANSLATED])
def test_a_request_passes_whole_through_the_proxy(bench: measure.Bench, name: str) -> None:
    bench.load.do(Job(name, bench.proxy.port))


@pytest.mark.parametrize("name", cases.INSTANCES)
def test_a_request_passes_whole_through_the_relay(bench: measure.Bench, name: str) -> None:
    bench.load.do(Job(name, bench.relay.port, tickets=1))


def test_no_connection_ends_the_run(bench: measure.Bench) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(RuntimeError, match="chat200"):
        bench.load.do(Job("chat200", port))


def test_a_row_has_figures_of_both(bench: measure.Bench) -> None:
    row = bench.row(cases.BY_NAME["chat200"], 2, seconds=SECONDS)
    table = list(report.rows([row], SECONDS))
    assert len(row.ratios) == measure.ROUNDS
    assert any(line.startswith("| chat, 200 B | 2 |") for line in table)


def test_a_translated_stream_stands_beside_one_that_is_passed(bench: measure.Bench) -> None:
    row = bench.translated(cases.BY_NAME["anthropic"], 2, seconds=SECONDS)
    table = list(report.translated([row], SECONDS))
    assert len(row.ratios) == measure.ROUNDS
    assert any(line.startswith("| Anthropic | 2 |") for line in table)
