"""Whatever JSON stands at any place: read, refused or passed over, but nothing breaks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from kong_ai_proxy.formats.bedrock import ANTHROPIC, CONVERSE, ServerSentEvents
from kong_ai_proxy.formats.codec import Context
from kong_ai_proxy.formats.deltas import AnswerFailed, collect
from kong_ai_proxy.formats.errors import FormatError
from tests.unit.formats.bedrock.support import CLAUDE, chunks, events, fixture, lines

ODD: list[Any] = [None, [], {}, "", "x", -1, 1e300, True, [None], [{}], {"a": None}]


def variants(value: Any) -> Iterator[Any]:
    """`value` with one of its parts replaced by something odd."""
    yield from ODD
    if isinstance(value, dict):
        for name, part in value.items():
            for odd in variants(part):
                yield {**value, name: odd}
    elif isinstance(value, list):
        for index, part in enumerate(value):
            for odd in variants(part):
                yield [*value[:index], odd, *value[index + 1 :]]


def line_variants(name: str) -> Iterator[list[Any]]:
    """The lines of a stream with one of them replaced by something odd."""
    for index, line in enumerate(whole := lines(name)):
        for odd in variants(line):
            yield [*whole[:index], odd, *whole[index + 1 :]]


def test_odd_requests() -> None:
    for body in variants(fixture("request")):
        if isinstance(body, dict):
            with suppress(FormatError):
                CONVERSE.render_request(CONVERSE.parse_request(body, model=CLAUDE))


def test_odd_answers() -> None:
    for body in variants(fixture("answer")):
        with suppress(FormatError, AnswerFailed):
            CONVERSE.render_answer(collect(CONVERSE.parse_answer(body)), Context())


@pytest.mark.parametrize("name", ["text", "tools"])
def test_odd_streams(name: str) -> None:
    for found in line_variants(name):
        if all(isinstance(each, dict) and len(each) == 1 for each in found):
            reader, writer = CONVERSE.reader(), CONVERSE.writer(Context())
            assert writer.feed(reader.feed(events(*found)) + reader.end()) + writer.end()


def test_odd_streams_of_anthropics() -> None:
    for found in line_variants("anthropic"):
        reader, plain = ANTHROPIC.reader(), ServerSentEvents()
        assert reader.feed(chunks(found)) + reader.end()
        assert plain.feed(chunks(found)) + plain.end()
