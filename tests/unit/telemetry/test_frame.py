"""The frame between the relay and the shim."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kong_ai_proxy.telemetry.bounded import encoded, shortened
from kong_ai_proxy.telemetry.frame import MAX_FRAME, frame

MARKER = "0123456789abcdef0123456789abcdef"
PAYLOAD, TRIED = "ai.proxy.payload", "ai.proxy.tried_targets"


def content(raw: bytes) -> dict[str, Any]:
    """What a frame holds; its length field must be right."""
    head, _, body = raw.partition(b"\n")
    assert head == b"\x1e" + MARKER.encode() + b" " + b"%08x" % len(body)
    parsed: dict[str, Any] = orjson.loads(body)
    return parsed


def test_the_frame_s_bytes() -> None:
    assert frame(MARKER, {"ai.proxy.meta": {"a": 1}}) == (
        b'\x1e0123456789abcdef0123456789abcdef 00000019\n{"ai.proxy.meta":{"a":1}}'
    )


def test_no_fields_are_an_empty_object() -> None:
    assert content(frame(MARKER, {})) == {}


@pytest.mark.parametrize("text", ["x", "\u20ac", "\x00", '"', "\udcff", "\U0001f600"])
def test_too_long_payloads_are_cut_to_the_bound(text: str) -> None:
    payload = {"request": text * 3_000_000, "response": text * 3_000_000}
    raw = frame(MARKER, {"ai.proxy.meta": {"a": 1}, PAYLOAD: payload})
    assert MAX_FRAME * 0.8 < len(raw) <= MAX_FRAME
    found = content(raw)
    assert found["ai.proxy.meta"] == {"a": 1}
    assert found[PAYLOAD]["request"].endswith("... [cut, 3000000 characters in all]")
    assert found[PAYLOAD]["response"].endswith("... [cut, 3000000 characters in all]")


def test_a_short_payload_stays_whole_beside_a_long_one() -> None:
    payload = {"request": "short", "response": "x" * 5_000_000}
    found = content(frame(MARKER, {PAYLOAD: payload}))
    assert found[PAYLOAD]["request"] == "short"
    assert len(found[PAYLOAD]["response"]) > MAX_FRAME * 0.99


def test_what_no_cut_payload_makes_fit_goes() -> None:
    meta = {"ai.proxy.meta": {"a": 1}}
    found = content(frame(MARKER, {**meta, TRIED: ["x" * MAX_FRAME], PAYLOAD: {"request": "r"}}))
    assert found == meta


def test_what_nothing_makes_fit_is_empty() -> None:
    assert content(frame(MARKER, {"ai.proxy.meta": "x" * MAX_FRAME})) == {}


@given(st.text(st.characters(), max_size=2000), st.integers(0, 3000))
def test_a_shortened_text_fits(text: str, most: int) -> None:
    short = shortened(text, most)
    assert short == "" or len(encoded({"": short}, 1 << 30)) - len(b'{"":}') <= most
    assert short == "" or text.startswith(short.partition("... [cut")[0])
