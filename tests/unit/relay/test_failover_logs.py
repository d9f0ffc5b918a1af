"""What is told of a request of which several targets were asked, where all of them have failed."""

from __future__ import annotations

from typing import Any

from tests.faults import Close, Refuse, Status
from tests.unit.relay.failover import answered, log_lines, providers, targets

BUSY = Status(503, message="overloaded")


async def test_the_log_is_about_the_target_whose_answer_the_client_has() -> None:
    """A refused connection says less than an answer before it."""
    lines: list[dict[str, Any]] = []
    both = ("anthropic", "openai")
    async with providers(BUSY, Refuse()) as places, targets(*places, providers=both) as relay:
        with log_lines(lines):
            assert (await answered(relay)).status == 503
            await relay.settled()
    (line,) = lines
    assert line["failure"] == "status 503"
    assert line["ai"]["proxy"]["meta"]["provider_name"] == "anthropic"
    assert [each["port"] for each in line["ai"]["proxy"]["tried_targets"]] == [
        each.port for each in places
    ]


async def test_a_client_that_gets_no_providers_answer_finds_the_reason_in_the_log() -> None:
    lines: list[dict[str, Any]] = []
    async with providers(Refuse(), Close()) as places, targets(*places) as relay:
        with log_lines(lines):
            assert (await answered(relay)).status == 502
            await relay.settled()
    (line,) = lines
    assert line["failure"]
    assert line["status"] == 502
