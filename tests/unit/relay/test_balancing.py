"""How the relay judges what became of a try."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from kong_ai_proxy.balancer.states import States, Table
from kong_ai_proxy.config import AiProxyAdvanced, parse
from kong_ai_proxy.exchange.ask import Ask
from kong_ai_proxy.exchange.asking import in_openai_format
from kong_ai_proxy.exchange.attempt import Attempt
from kong_ai_proxy.exchange.errors import Refused
from kong_ai_proxy.exchange.hold import NO_TRIAL, Trial
from kong_ai_proxy.exchange.messages import ClientRequest, Data, End, Fail, Head, Lost, ResponseHead
from kong_ai_proxy.exchange.plan import Plan
from kong_ai_proxy.relay.balancing import MAX_REST, Balancing, retry_after
from tests.unit.exchange.exchanges import CHAT, model, request

NOW = 1_763_800_000.0  # 2025-11-22 08:26:40
USAGE = {"prompt_tokens": 5, "completion_tokens": 20, "total_tokens": 25}
ANSWER = orjson.dumps({"choices": [{"message": {"content": "hi"}}], "usage": USAGE})


class Setting:
    """Two targets."""

    def __init__(self, **balancer: Any) -> None:
        targets = [
            {"route_type": "llm/v1/chat", "model": model("gpt-4o", input_cost=2.0, output_cost=4.0)}
        ] * 2
        parsed = parse("ai-proxy-advanced", {"targets": targets, "balancer": balancer})
        assert isinstance(parsed, AiProxyAdvanced)
        self.now = 100.0
        self.plan = Plan(parsed, "plugin-1")
        self.states: States = Table.private().states("plugin-1", parsed)
        self.balancing = Balancing(parsed, self.states, now=lambda: self.now)

    def answered(
        self, status: int = 200, *events: Any, trial: Trial = NO_TRIAL, **headers: str
    ) -> Attempt:
        """An attempt at the first target that was answered."""
        raw = orjson.dumps(CHAT)
        attempt = self.plan.attempt_at(
            self.plan.ask(request(raw), raw), 0, relayed=True, trial=trial
        )
        attempt.start()
        named = tuple((name.replace("_", "-"), value) for name, value in headers.items())
        head = Head(ResponseHead(status, (("content-type", "application/json"), *named)))
        for event in (head, *events):
            list(attempt.feed(event))
        return attempt

    def is_out(self) -> bool:
        """Whether the breaker of the first target is open."""
        return not self.states.is_available(0, self.now)


def asks(route_type: str, method: str = "POST") -> Ask:
    """A request to a route of this type."""
    asked = in_openai_format(route_type)
    return Ask(ClientRequest(method), None, None, asked, (0, 1))


def fail(criterion: str, also: str = "") -> Fail:
    return Fail(criterion, "told to", Refused(502, "told to"), also=also)


@pytest.mark.parametrize("criterion", ["error", "timeout", "invalid_header"])
def test_what_is_no_answer_counts_always(criterion: str) -> None:
    setting = Setting(max_fails=1, failover_criteria=["http_500"])
    setting.balancing.failed(0, None, fail(criterion))
    assert setting.is_out()


@pytest.mark.parametrize(
    ("status", "listed", "counts"),
    [
        (500, ["http_500"], True),
        (500, ["error"], False),
        (429, ["http_429"], True),
        (529, ["http_503"], True),
        (403, ["http_403"], False),
        (404, ["http_404"], False),
        (400, ["http_500"], False),
    ],
)
def test_a_status_counts_where_it_is_listed_but_never_403_and_404(
    status: int, listed: list[str], counts: bool
) -> None:
    setting = Setting(max_fails=1, failover_criteria=listed)
    setting.balancing.ended(0, setting.answered(status, Data(b"{}"), End()), 1.0)
    assert setting.is_out() is counts


def test_an_answer_that_breaks_off_counts() -> None:
    setting = Setting(max_fails=1)
    setting.balancing.ended(0, setting.answered(200, Data(b"{"), Lost("error", "reset")), 1.0)
    assert setting.is_out()


@pytest.mark.parametrize(
    ("method", "criteria", "sent", "leads_on"),
    [
        ("POST", ["error"], False, True),
        ("POST", ["error"], True, False),
        ("POST", ["error", "non_idempotent"], True, True),
        ("GET", ["error"], True, True),
        ("POST", ["timeout", "non_idempotent"], True, False),
    ],
)
def test_what_was_sent_is_sent_again_only_where_it_may_be(
    method: str, criteria: list[str], sent: bool, leads_on: bool
) -> None:
    balancing = Setting(failover_criteria=criteria).balancing
    asked = asks("llm/v1/files", method)
    assert balancing.leads_on(fail("error"), asked, sent=sent) is leads_on


def test_a_failure_has_two_names() -> None:
    balancing = Setting(failover_criteria=["http_503", "non_idempotent"]).balancing
    assert balancing.leads_on(fail("error", "http_503"), asks("llm/v1/chat"), sent=True)


@pytest.mark.parametrize(
    ("criterion", "sent", "leads_on"),
    [
        ("error", True, False),
        ("timeout", True, False),
        ("error", False, True),
        ("http_503", True, True),
    ],
)
def test_a_batch_that_may_have_been_made_is_not_made_again(
    criterion: str, sent: bool, leads_on: bool
) -> None:
    listed = ["error", "timeout", "http_503", "non_idempotent"]
    balancing = Setting(failover_criteria=listed).balancing
    assert balancing.leads_on(fail(criterion), asks("llm/v1/batches"), sent=sent) is leads_on


def test_usage_and_its_price_are_counted_for_lowest_usage() -> None:
    setting = Setting(algorithm="lowest-usage")
    ended = setting.answered(200, Data(ANSWER), End(), trial=Trial(counts=True))
    setting.balancing.ended(0, ended, 1.0)
    assert list(setting.states.usage("total-tokens", setting.now)) == [25, 0]
    assert setting.states.usage("cost", setting.now)[0] == pytest.approx(90 / 1_000_000)


@pytest.mark.parametrize(("strategy", "seconds"), [("e2e", 2.0), ("tpot", 0.1)])
def test_latency_is_a_whole_answers_or_a_tokens(strategy: str, seconds: float) -> None:
    setting = Setting(algorithm="lowest-latency", latency_strategy=strategy)
    ended = setting.answered(200, Data(ANSWER), End(), trial=Trial(counts=True))
    setting.balancing.ended(0, ended, 2.0)
    assert setting.states.latencies(setting.now)[0] == pytest.approx(seconds)


@pytest.mark.parametrize(("slowest", "seconds"), [(3.0, 6.0), (0.0, 60.0), (50.0, 60.0)])
def test_a_failure_is_slower_than_every_answer_but_not_for_ever(
    slowest: float, seconds: float
) -> None:
    setting = Setting(algorithm="lowest-latency", latency_strategy="e2e")
    setting.states.took(1, slowest, setting.now)
    setting.balancing.failed(0, None, fail("error"))
    assert setting.states.latencies(setting.now)[0] == pytest.approx(seconds)


def test_a_target_rests_as_long_as_it_says_where_its_status_is_listed() -> None:
    setting = Setting(failover_criteria=["http_429"])
    refused = setting.answered(429, Data(b"{}"), End(), retry_after="7")
    setting.balancing.ended(0, refused, 1.0)
    assert setting.states.is_resting(0, setting.now + 6.9)
    assert not setting.states.is_resting(0, setting.now + 7.1)


def test_nobody_rests_for_ever() -> None:
    setting = Setting(failover_criteria=["http_429"])
    setting.balancing.ended(0, setting.answered(429, End(), retry_after="999999"), 1.0)
    assert not setting.states.is_resting(0, setting.now + MAX_REST + 1)


@pytest.mark.parametrize(
    ("told", "seconds"),
    [
        (None, 0.0),
        ("", 0.0),
        ("5", 5.0),
        ("Sat, 22 Nov 2025 08:27:00 GMT", 20.0),
        ("Sat, 22 Nov 2025 08:00:00 GMT", 0.0),
        ("Sat Nov 22 08:27:00 2025", 20.0),
        ("soon", 0.0),
        ("Mon, 01 Jan 99999999999999 00:00:00 GMT", 0.0),
        ("Mon, 01 Jan 2026 99999999999999999999:00:00 GMT", 0.0),
        ("Mon, 01 Jan 2026 00:00:00 +99999999999999999999", 0.0),
        ("-3", 0.0),
        ("9" * 5000, 999999999.0),
    ],
)
def test_a_provider_says_seconds_or_a_date(told: str | None, seconds: float) -> None:
    assert retry_after(told, NOW) == seconds


def test_a_breaker_that_opens_or_closes_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    setting = Setting(max_fails=2, fail_timeout=1000)
    for _ in range(3):
        setting.balancing.failed(0, None, fail("error"))
    setting.now += 1.0
    for _ in range(2):
        setting.balancing.ended(0, setting.answered(200, Data(ANSWER), End()), 1.0)
    assert [record.getMessage() for record in caplog.records] == [
        "target 0 (openai/gpt-4o): its breaker is open",
        "target 0 (openai/gpt-4o): its breaker is closed",
    ]
