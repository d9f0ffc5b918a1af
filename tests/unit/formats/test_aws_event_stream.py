"""botocore reads what is written here, and reads the same from what is read here."""

from __future__ import annotations

import struct
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kong_ai_proxy.formats.aws_event_stream import (
    EventStreamError,
    EventStreamReader,
    HeaderValue,
    Message,
    encode,
)
from tests.unit.formats.bedrock import oracle
from tests.unit.formats.strategies import cuts, halves

NAMES = st.text("abc:-é", min_size=1, max_size=8)
PAYLOADS = st.binary(max_size=60)
VALUES = st.one_of(
    st.tuples(st.just(0), st.just(True)),
    st.tuples(st.just(1), st.just(False)),
    st.tuples(st.just(2), st.integers(-128, 127)),
    st.tuples(st.just(3), st.integers(-(2**15), 2**15 - 1)),
    st.tuples(st.just(4), st.integers(-(2**31), 2**31 - 1)),
    st.tuples(st.just(5), st.integers(-(2**63), 2**63 - 1)),
    st.tuples(st.just(6), st.binary(max_size=8)),
    st.tuples(st.just(7), st.text(max_size=8)),
    st.tuples(st.just(8), st.integers(0, 2**50)),
    st.tuples(st.just(9), st.binary(min_size=16, max_size=16)),
)
NUMBERS = {2: "!b", 3: "!h", 4: "!i", 5: "!q", 8: "!q"}


def raw_header(name: str, kind: int, value: HeaderValue) -> bytes:
    """A header of any type, as the page on event streams describes it."""
    key = name.encode()
    head = bytes([len(key)]) + key + bytes([kind])
    if kind in NUMBERS:
        return head + struct.pack(NUMBERS[kind], value)
    if kind in (6, 7):
        data = value.encode() if isinstance(value, str) else value
        assert isinstance(data, bytes)
        return head + struct.pack("!H", len(data)) + data
    return head + (value if isinstance(value, bytes) else b"")


def raw_message(headers: bytes, payload: bytes) -> bytes:
    prelude = struct.pack("!II", 16 + len(headers) + len(payload), len(headers))
    whole = prelude + struct.pack("!I", crc32(prelude)) + headers + payload
    return whole + struct.pack("!I", crc32(whole))


def botocore_reads(data: bytes) -> list[Message]:
    return [Message(*message) for message in oracle.messages(data)]


def read(chunks: list[bytes]) -> list[Message]:
    reader = EventStreamReader()
    found = [message for chunk in chunks for message in reader.feed(chunk)]
    reader.end()
    return found


STREAM = (
    encode({":message-type": "event", ":event-type": "messageStart"}, b'{"role":"assistant"}')
    + encode({":message-type": "event", ":event-type": "é"}, b"")
    + encode({}, bytes(range(256)))
)


@given(st.lists(st.tuples(st.dictionaries(NAMES, st.text(max_size=9)), PAYLOADS), max_size=4))
def test_botocore_reads_what_is_written(messages: list[tuple[dict[str, str], bytes]]) -> None:
    data = b"".join(encode(headers, payload) for headers, payload in messages)
    assert botocore_reads(data) == [Message(*message) for message in messages]


@given(st.dictionaries(NAMES, VALUES, max_size=4), PAYLOADS, st.data())
def test_reads_every_type_of_header_as_botocore_does(
    headers: dict[str, tuple[int, HeaderValue]], payload: bytes, data: st.DataObject
) -> None:
    encoded = b"".join(raw_header(name, kind, value) for name, (kind, value) in headers.items())
    stream = raw_message(encoded, payload)
    found = read(data.draw(cuts(stream)))
    assert found == botocore_reads(stream)
    assert found == [Message({name: value for name, (_, value) in headers.items()}, payload)]


def test_a_stream_cut_at_every_byte_is_the_same_messages() -> None:
    whole = botocore_reads(STREAM)
    assert len(whole) == 3
    assert all(read(chunks) == whole for chunks in halves(STREAM))


def test_a_stream_that_comes_byte_by_byte() -> None:
    assert read([STREAM[at : at + 1] for at in range(len(STREAM))]) == botocore_reads(STREAM)


@pytest.mark.parametrize("at", range(len(encode({"a": "b"}, b"payload"))))
def test_any_changed_byte_is_noticed(at: int) -> None:
    stream = bytearray(encode({"a": "b"}, b"payload"))
    stream[at] ^= 1
    reader = EventStreamReader()
    with pytest.raises(EventStreamError, match="checksum"):
        reader.feed(bytes(stream))
    with pytest.raises(EventStreamError, match="checksum"):
        reader.end()


def test_messages_before_a_wrong_one_are_given_first() -> None:
    good, bad = encode({}, b"good"), encode({}, b"bad")[:-1] + b"\0"
    reader = EventStreamReader()
    assert reader.feed(good + bad) == [Message({}, b"good")]
    with pytest.raises(EventStreamError):
        reader.feed(good)


def test_json_in_place_of_a_stream_is_noticed() -> None:
    with pytest.raises(EventStreamError, match="no AWS event stream"):
        EventStreamReader().feed(b'{"message":"The model is not ready"}')


def test_a_stream_that_ends_within_a_message_is_noticed() -> None:
    reader = EventStreamReader()
    reader.feed(STREAM[:-1])
    with pytest.raises(EventStreamError, match="within a message"):
        reader.end()


def test_a_message_longer_than_the_limit_is_refused_before_it_came() -> None:
    reader = EventStreamReader(max_message=1000)
    with pytest.raises(EventStreamError, match="1016 bytes is longer than 1000"):
        reader.feed(encode({}, bytes(1000))[:12])


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param(b"\1a", id="no type"),
        pytest.param(b"\1a\7\0\5ab", id="value too short"),
        pytest.param(b"\1a\4\0", id="number too short"),
        pytest.param(b"\1a\11abc", id="UUID too short"),
        pytest.param(b"\1a\12", id="unknown type"),
        pytest.param(b"\1\xff\0", id="name not UTF-8"),
        pytest.param(b"\1a\0\1a\1", id="twice"),
    ],
)
def test_headers_that_make_no_sense_are_refused(headers: bytes) -> None:
    with pytest.raises(EventStreamError, match="header"):
        EventStreamReader().feed(raw_message(headers, b""))


def test_headers_longer_than_their_message_are_refused() -> None:
    prelude = struct.pack("!II", 20, 5)
    with pytest.raises(EventStreamError, match="5 bytes of headers"):
        EventStreamReader().feed(prelude + struct.pack("!I", crc32(prelude)) + bytes(8))
