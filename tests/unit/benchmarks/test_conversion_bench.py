"""What the figures of conversions rest on, with little of everything; nothing is timed here."""

from __future__ import annotations

import orjson
import pytest

from benchmarks.conversion import chats, measure, memory, report
from benchmarks.conversion.streams import ALL, ANTHROPIC, Streams
from kong_ai_proxy.formats.codec import ChatProvider
from kong_ai_proxy.formats.deltas import Finished, collect


@pytest.mark.parametrize("streams", ALL, ids=lambda each: each.name)
@pytest.mark.parametrize("chunks", [10, 100])
def test_a_stream_is_a_whole_answer_of_so_many_chunks(streams: Streams, chunks: int) -> None:
    made = streams.make(chunks)
    reader = streams.codec.reader()
    deltas = [delta for chunk in made for delta in reader.feed(chunk)] + reader.end()
    choice = collect(deltas).choices[0]
    assert len(made) == chunks
    assert choice.text == streams.says(chunks)
    assert any(isinstance(delta, Finished) for delta in deltas)


@pytest.mark.parametrize("streams", ALL, ids=lambda each: each.name)
def test_the_relays_way_writes_what_the_codecs_write(streams: Streams) -> None:
    made = streams.make(20)
    assert measure.passed(streams, made) == measure.converted(streams, made) > 0


@pytest.mark.parametrize(("label", "provider"), measure.PROVIDERS)
@pytest.mark.parametrize("messages", [5, 50])
def test_a_conversation_goes_to_every_provider(
    label: str, provider: ChatProvider, messages: int
) -> None:
    body = chats.conversation(messages, 20_000)
    assert len(orjson.loads(body)["messages"]) == messages
    assert 10_000 < len(body) < 30_000
    assert 10_000 < len(measure.request(provider, body)) < 30_000, label


@pytest.mark.parametrize(("label", "provider"), measure.PROVIDERS)
def test_an_image_goes_to_every_provider(label: str, provider: ChatProvider) -> None:
    body = chats.image(20_000)
    data = orjson.loads(body)["messages"][0]["content"][1]["image_url"]["url"].partition(",")[2]
    assert data.encode() in measure.request(provider, body), label


@pytest.mark.usefixtures("one_round")
def test_every_length_and_provider_has_a_row_beside_its_goal() -> None:
    rows = list(measure.chunk_rows(0.0, lengths=(10, 20)))
    table = list(report.chunks(rows))
    for streams in ALL:
        assert sum(line.startswith(f"| {streams.label} |") for line in table) == 2
    assert all(len(row.passed.rounds) == 1 for row in rows)


@pytest.mark.usefixtures("one_round")
def test_every_request_and_provider_has_a_row_beside_its_goal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(measure, "MESSAGES", (5, 20))
    rows = list(measure.request_rows(0.0, size=2_000))
    table = list(report.requests(rows))
    for label, _ in measure.PROVIDERS:
        assert sum(f"| {label} |" in line for line in table) == len(measure.MESSAGES) + 1


def test_a_missed_goal_is_said() -> None:
    good, bad = measure.Timed([9.0, 8.0, 30.0]), measure.Timed([11.0, 12.0, 13.0])
    rows = [measure.ChunkRow("Anthropic", 10, good, good, each) for each in (good, bad)]
    met, missed = list(report.chunks(rows))[-2:]
    assert met.endswith("| 9.0 (8.0 to 30.0) | 10 |")
    assert missed.endswith("| 12.0 (11.0 to 13.0) | 10, missed |")


@pytest.mark.parametrize(("chunks", "size"), [(10, 0), (0, 1_000)])
def test_memory_is_measured_in_a_process_of_its_own(chunks: int, size: int) -> None:
    row = memory._in_a_child(ANTHROPIC, chunks, size)
    assert (row.label, row.chunks) == ("Anthropic", chunks)
    assert row.size > 0


@pytest.mark.parametrize("streams", ALL, ids=lambda each: each.name)
def test_an_answer_in_one_piece_is_converted(streams: Streams) -> None:
    assert memory.row(streams, 0, 1_000).size > 0.001
