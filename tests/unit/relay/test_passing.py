"""A body that nobody here reads whole can be sent to another target while it is small."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from kong_ai_proxy.relay.passing import PassingBody


def passing(pieces: Sequence[bytes], most: int) -> PassingBody:
    left = [*pieces]

    async def read() -> bytes:
        return left.pop(0) if left else b""

    return PassingBody(read, most)


async def taken(body: PassingBody, pieces: int = 1000) -> bytes:
    found: list[bytes] = []
    while len(found) < pieces and (piece := await body.take()):
        found.append(piece)
    return b"".join(found)


@given(pieces=st.lists(st.binary(min_size=1, max_size=5), max_size=8), first=st.integers(0, 9))
async def test_what_was_taken_comes_again_and_then_the_rest(
    pieces: list[bytes], first: int
) -> None:
    body = passing(pieces, most=100)
    await taken(body, first)
    body.begin()
    assert await taken(body) == b"".join(pieces)
    body.begin()
    assert await taken(body) == b"".join(pieces)
    assert body.is_whole


async def test_what_is_too_much_is_not_kept() -> None:
    body = passing([b"abc", b"def", b"ghi"], most=5)
    assert await taken(body, 1) == b"abc"
    assert body.is_whole
    assert await taken(body) == b"defghi"
    assert not body.is_whole
