"""A stream of server-sent events is cut into events, and its bytes stay what they were."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kong_ai_proxy.formats.sse import Event, SseError, SseReader

CHAT = (
    b": ping\n\n"
    b'data: {"choices":[{"delta":{"content":"h\xc3\xa9"}}]}\n\n'
    b'event: response.completed\ndata: {"usage":{}}\n\n'
    b"data: first\ndata:second\ndata\nid: 7\nretry: 10\n\n"
    b"data: [DONE]\n\n"
)
CHAT_EVENTS = [
    (b"", None),
    (b"", b'{"choices":[{"delta":{"content":"h\xc3\xa9"}}]}'),
    (b"response.completed", b'{"usage":{}}'),
    (b"", b"first\nsecond\n"),
    (b"", b"[DONE]"),
]
LINE_ENDS = [b"\n", b"\r\n", b"\r"]


def read(chunks: Iterable[bytes], max_event: int = 1 << 20) -> list[Event]:
    reader = SseReader(max_event)
    return [event for chunk in chunks for event in reader.feed(chunk)] + reader.end()


def what(events: Iterable[Event]) -> list[tuple[bytes, bytes | None]]:
    return [(event.name, event.data) for event in events]


def browser(stream: bytes) -> list[tuple[bytes, bytes]]:
    """What a browser dispatches, by the letter of 9.2.6, one byte at a time; the unfinished last
    event included."""
    text = stream.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    events, name, data = [], b"", b""
    for line in [*text.split(b"\n"), b""]:
        if not line:
            if data:
                events.append((name, data[:-1]))
            name, data = b"", b""
            continue
        field, _, value = line.partition(b":")
        value = value[1:] if value[:1] == b" " else value
        if field == b"event":
            name = value
        elif field == b"data":
            data += value + b"\n"
    return events


pieces = st.sampled_from(
    [
        *(b"\n", b"\r", b"\r\n", b"\n\n", b"\r\n\r\n", b"\xef\xbb\xbf", b"\xef"),
        *(b"data", b"data: ", b"event:", b"event: ", b":", b" x", b"y", b"id: 1"),
        *(b"data: {}\n\n", b"event: e\ndata: {}\n\n"),
    ]
)
streams = st.lists(pieces, max_size=30).map(b"".join)


def cut(stream: bytes, at: Iterable[int]) -> list[bytes]:
    offsets = [0, *sorted({offset % (len(stream) + 1) for offset in at}), len(stream)]
    return [stream[a:b] for a, b in pairwise(offsets)]


@pytest.mark.parametrize("line_end", LINE_ENDS)
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "byte order mark"])
def test_a_stream_cut_in_two_anywhere_gives_the_same_events(line_end: bytes, mark: bytes) -> None:
    stream = mark + CHAT.replace(b"\n", line_end)
    whole = read([stream])
    assert what(whole) == CHAT_EVENTS
    assert b"".join(event.raw for event in whole) == stream
    for at in range(len(stream) + 1):
        assert read([stream[:at], stream[at:]]) == whole


@pytest.mark.parametrize("line_end", LINE_ENDS)
def test_a_stream_that_comes_byte_by_byte_gives_the_same_events(line_end: bytes) -> None:
    stream = CHAT.replace(b"\n", line_end)
    assert read(stream[at : at + 1] for at in range(len(stream))) == read([stream])


@given(streams, st.lists(st.integers(0, 500), max_size=8))
def test_any_bytes_cut_anywhere_give_the_same_events_and_the_same_bytes(
    stream: bytes, at: list[int]
) -> None:
    events = read(cut(stream, at))
    assert events == read([stream])
    assert b"".join(event.raw for event in events) == stream


@given(streams)
def test_events_are_those_that_a_browser_would_see(stream: bytes) -> None:
    assert [(name, data) for name, data in what(read([stream])) if data is not None] == browser(
        stream
    )


@pytest.mark.parametrize("line_end", LINE_ENDS)
def test_an_event_is_given_with_the_byte_that_ends_it(line_end: bytes) -> None:
    reader = SseReader()
    raw = b"data: a" + line_end * 2
    for _ in range(3):
        assert reader.feed(raw[:-1]) == []
        assert reader.feed(raw[-1:]) == [Event(raw, b"", b"a")]


def test_a_blank_line_whose_crlf_is_cut_waits_for_its_lf() -> None:
    reader = SseReader()
    assert reader.feed(b"data: a\r\n\r") == []
    assert reader.feed(b"\ndata: b\r\n\r\n") == [
        Event(b"data: a\r\n\r\n", b"", b"a"),
        Event(b"data: b\r\n\r\n", b"", b"b"),
    ]


def test_line_ends_may_be_mixed() -> None:
    stream = b"data: a\r\n\ndata: b\n\r\ndata: c\r\r\ndata: d\n\rdata: e\n\n"
    data = [event.data for event in read([stream]) if event.data is not None]
    assert data == [b"a", b"b", b"c", b"d", b"e"]


def test_a_carriage_return_inside_a_chunk_ends_a_line() -> None:
    reader = SseReader()
    reader.feed(b"data: warm\n\n")
    assert what(reader.feed(b"data: a\rdata: b\n\n")) == [(b"", b"a\nb")]


def test_a_byte_order_mark_counts_only_at_the_start() -> None:
    events = read([b"\xef\xbb\xbfdata: a\n\n\xef\xbb\xbfdata: b\n\n"])
    assert what(events) == [(b"", b"a"), (b"", None)]


def test_data_without_a_value_is_an_event_and_none_is_not() -> None:
    assert what(read([b"data\n\ndata:\n\nevent: a\n\n"])) == [
        (b"", b""),
        (b"", b""),
        (b"a", None),
    ]


def test_one_space_after_the_colon_is_not_part_of_the_value() -> None:
    assert what(read([b"data:  a\n\n"])) == [(b"", b" a")]


def test_an_event_whose_blank_line_never_came_is_given_at_the_end() -> None:
    reader = SseReader()
    assert reader.feed(b"data: [DONE]") == []
    assert reader.end() == [Event(b"data: [DONE]", b"", b"[DONE]")]


def test_an_ended_stream_leaves_nothing() -> None:
    assert read([]) == []
    assert read([b""]) == []
    assert [event.raw for event in read([b"data: a\n\n"])] == [b"data: a\n\n"]


@pytest.mark.parametrize("size", [1, 7, 100, 10_000])
def test_an_event_over_the_limit_is_an_error_however_it_is_cut(size: int) -> None:
    stream = b"data: a\n\ndata: " + b"x" * 95 + b"\n\ndata: b\n\n"
    reader = SseReader(max_event=100)
    events: list[Event] = []

    def feed_all() -> None:
        for at in range(0, len(stream), size):
            events.extend(reader.feed(stream[at : at + size]))
        reader.end()

    with pytest.raises(SseError, match="longer than 100 bytes") as caught:
        feed_all()
    assert what(events) == [(b"", b"a")]
    assert stream.startswith(events[0].raw + caught.value.raw)
    assert len(caught.value.raw) > 100


def test_an_event_of_just_the_limit_is_read() -> None:
    raw = b"data: " + b"x" * 92 + b"\n\n"
    assert [event.raw for event in read([raw, raw[:50], raw[50:]], max_event=100)] == [raw, raw]


def test_after_an_error_every_byte_is_given_back() -> None:
    reader = SseReader(max_event=10)
    with pytest.raises(SseError) as first:
        reader.feed(b"data: 1234567890\n\n")
    with pytest.raises(SseError) as second:
        reader.feed(b"data: a\n\n")
    assert (first.value.raw, second.value.raw) == (b"data: 1234567890\n\n", b"data: a\n\n")


def test_memory_is_bounded_by_the_longest_event() -> None:
    reader = SseReader(max_event=1 << 16)
    chunk = b"data: " + b"x" * 1000 + b"\n\ndata: " + b"y" * 30_000
    tracemalloc.start()
    try:
        for _ in range(300):
            reader.feed(chunk)
            reader.feed(b"\r\n\r\n")
        assert tracemalloc.get_traced_memory()[1] < 500_000
    finally:
        tracemalloc.stop()
