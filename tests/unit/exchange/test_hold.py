"""What the client sees, and when, of an answer after which another target may be asked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import orjson
import pytest

from kong_ai_proxy import config
from kong_ai_proxy.exchange.attempt import Attempt
from kong_ai_proxy.exchange.hold import MAX_HELD, UNSUITED, Hold, Trial
from kong_ai_proxy.exchange.messages import (
    Abort,
    Action,
    Commit,
    Data,
    Emit,
    End,
    Env,
    Fail,
    Finish,
    Head,
    Lost,
    ResponseHead,
)
from kong_ai_proxy.exchange.plan import Plan
from tests.unit.exchange.exchanges import ai_proxy, request

LISTED = Trial(holds=True, statuses=frozenset({429, 503}))
STREAM_HEAD = Head(ResponseHead(200, (("content-type", "text/event-stream"),)))
JSON_HEAD = Head(ResponseHead(200, (("content-type", "application/json"),)))

FIRST = b'data: {"id":"1","choices":[{"delta":{"role":"assistant","content":""}}]}\n\n'
CONTENT = b'data: {"id":"1","choices":[{"delta":{"content":"hi"}}]}\n\n'
STOPPED = b'data: {"id":"1","choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'
DONE = b"data: [DONE]\n\n"
OVERLOADED = b'data: {"error":{"message":"too busy","type":"overloaded_error"}}\n\n'
LIMITED = b'data: {"error":{"message":"slow down","code":"rate_limit_exceeded"}}\n\n'
WRONG = b'data: {"error":{"message":"no such tool","type":"invalid_request_error"}}\n\n'

# https://docs.anthropic.com/en/docs/build-with-claude/streaming (event types, error events)
STARTED = (
    b'event: message_start\ndata: {"type":"message_start","message":{"id":"msg_1","type":"message",'
    b'"role":"assistant","content":[],"model":"claude","usage":{"input_tokens":3,'
    b'"output_tokens":1}}}\n\n'
)
OVERLOADED_EVENT = (
    b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error",'
    b'"message":"Overloaded"}}\n\n'
)


def attempt(
    trial: Trial = LISTED,
    *,
    stream: bool = True,
    provider: str = "openai",
    accept: str = "identity",
) -> Attempt:
    """A started attempt of the relay."""
    model = {"provider": provider, "name": "m", "options": {"max_tokens": 5}}
    if provider == "anthropic":
        model["options"]["anthropic_version"] = "2023-06-01"  # type: ignore[index]
    body = {"messages": [{"role": "user", "content": "hi"}], "stream": stream}
    raw = orjson.dumps(body)
    plan = Plan(config.parse("ai-proxy", ai_proxy(model=model)))
    asked = request(raw, headers={"accept-encoding": accept})
    started = plan.attempt_at(plan.ask(asked, raw), relayed=True, trial=trial)
    started.start(Env(id="1" * 24))
    return started


def fed(tried: Attempt, *events: Any) -> Iterator[Action]:
    for event in events:
        yield from tried.feed(event)


def emitted(actions: Iterable[Action]) -> bytes:
    return b"".join(action.chunk for action in actions if isinstance(action, Emit))


def failure(actions: Iterable[Action]) -> Fail:
    """The one thing that is done."""
    (only,) = actions
    assert isinstance(only, Fail)
    return only


def test_a_stream_waits_for_its_first_content() -> None:
    tried = attempt()
    assert not [*fed(tried, STREAM_HEAD, Data(FIRST))]
    head, *rest = fed(tried, Data(CONTENT))
    assert isinstance(head, Commit)
    assert emitted(rest) == FIRST + CONTENT
    assert tried.direct is not None
    assert tried.direct(DONE) == DONE


@pytest.mark.parametrize("at", range(len(FIRST + CONTENT + DONE)))
def test_nothing_of_a_held_stream_is_lost_however_it_is_cut(at: int) -> None:
    whole = FIRST + CONTENT + DONE
    actions = [*fed(attempt(), STREAM_HEAD, Data(whole[:at]), Data(whole[at:]), End())]
    assert isinstance(actions[0], Commit)
    assert emitted(actions) == whole
    assert isinstance(actions[-1], Finish)


@pytest.mark.parametrize("at", range(len(FIRST + OVERLOADED)))
def test_an_error_before_the_content_is_a_failure_however_it_is_cut(at: int) -> None:
    whole = FIRST + OVERLOADED
    failed = failure(fed(attempt(), STREAM_HEAD, Data(whole[:at]), Data(whole[at:])))
    assert (failed.criterion, failed.also) == ("error", "http_503")


def test_an_error_in_a_stream_is_told_as_a_status_where_nobody_else_is_asked() -> None:
    failed = failure(fed(attempt(), STREAM_HEAD, Data(LIMITED)))
    assert (failed.criterion, failed.also) == ("http_429", "")
    head, body, _ = failed.told
    assert isinstance(head, Commit)
    assert head.head.status == 429
    assert isinstance(body, Emit)
    assert orjson.loads(body.chunk)["error"]["message"] == "slow down"


def test_an_error_that_is_the_clients_has_only_its_own_name() -> None:
    failed = failure(fed(attempt(), STREAM_HEAD, Data(WRONG)))
    assert (failed.criterion, failed.also) == ("http_400", "")


@pytest.mark.parametrize("said", [[], [FIRST]])
def test_a_stream_that_ends_without_having_said_anything_is_a_failure(said: list[bytes]) -> None:
    failed = failure(fed(attempt(), STREAM_HEAD, *map(Data, said), End()))
    assert failed.criterion == "error"
    assert isinstance(failed.told[0], Commit)
    assert failed.told[0].head.status == 502


@pytest.mark.parametrize("end", [DONE, STOPPED])
def test_a_stream_without_a_word_that_has_an_end_is_an_answer(end: bytes) -> None:
    whole = FIRST + end
    assert emitted(fed(attempt(), STREAM_HEAD, Data(whole), End())) == whole


def test_a_whole_answer_that_is_an_error_is_a_failure() -> None:
    body = b'{"error":{"message":"too busy","type":"overloaded_error"}}'
    failed = failure(fed(attempt(stream=False), JSON_HEAD, Data(body), End()))
    assert (failed.criterion, failed.also) == ("error", "http_503")


def test_a_whole_answer_that_tells_of_no_error_is_none() -> None:
    body = b'{"id":"resp_1","output":[],"error":null}'
    assert emitted(fed(attempt(stream=False), JSON_HEAD, Data(body), End())) == body


@pytest.mark.parametrize("body", [b"", b"<html>log in</html>"])
def test_a_whole_answer_that_is_no_json_is_a_failure(body: bytes) -> None:
    events = [Data(body)] if body else []
    failed = failure(fed(attempt(stream=False), JSON_HEAD, *events, End()))
    assert failed.criterion == "error"


def test_a_compressed_answer_is_the_clients_to_read() -> None:
    head = Head(ResponseHead(200, (("content-encoding", "gzip"),)))
    tried = attempt(stream=False, accept="gzip")
    assert emitted(fed(tried, head, Data(b"\x1f\x8b"), End())) == b"\x1f\x8b"


def test_an_error_after_the_content_is_the_clients_to_see() -> None:
    actions = [*fed(attempt(), STREAM_HEAD, Data(CONTENT), Data(OVERLOADED), End())]
    assert emitted(actions) == CONTENT + OVERLOADED
    assert not any(isinstance(action, Fail) for action in actions)


def test_a_converted_stream_fails_on_an_error_after_its_first_event() -> None:
    tried = attempt(provider="anthropic")
    failed = failure(fed(tried, STREAM_HEAD, Data(STARTED), Data(OVERLOADED_EVENT)))
    assert (failed.criterion, failed.also) == ("error", "http_503")
    assert isinstance(failed.told[0], Commit)
    assert failed.told[0].head.status == 529


def test_a_stream_that_is_lost_before_its_content_is_a_failure() -> None:
    failed = failure(fed(attempt(), STREAM_HEAD, Data(FIRST), Lost("timeout", "too late")))
    assert (failed.criterion, failed.answer.status) == ("timeout", 504)


def test_a_stream_that_is_lost_after_its_content_breaks_off() -> None:
    actions = [*fed(attempt(), STREAM_HEAD, Data(CONTENT), Lost("error", "reset"))]
    assert isinstance(actions[-1], Abort)


def test_a_whole_answer_that_is_lost_in_its_middle_is_a_failure() -> None:
    tried = attempt(stream=False)
    failed = failure(fed(tried, JSON_HEAD, Data(b'{"id":'), Lost("error", "reset")))
    assert (failed.criterion, failed.answer.status) == ("error", 502)


def test_what_is_longer_than_can_be_held_passes_on() -> None:
    tried = attempt(stream=False)
    actions = [*fed(tried, JSON_HEAD, Data(b" " * MAX_HELD), Data(b" "))]
    assert isinstance(actions[0], Commit)
    assert len(emitted(actions)) == MAX_HELD + 1


@pytest.mark.parametrize(("status", "criterion"), [(429, "http_429"), (529, "http_503")])
def test_a_listed_status_is_a_failure_with_the_answer_that_came(
    status: int, criterion: str
) -> None:
    head = Head(ResponseHead(status, (("retry-after", "7"),)))
    failed = failure(fed(attempt(), head, Data(b"busy"), End()))
    assert failed.criterion == criterion
    assert isinstance(failed.told[0], Commit)
    assert failed.told[0].head == ResponseHead(status, (("retry-after", "7"),))
    assert emitted(failed.told) == b"busy"


def test_a_status_that_is_not_listed_passes_on() -> None:
    actions = [*fed(attempt(), Head(ResponseHead(500)), Data(b"broken"), End())]
    assert isinstance(actions[0], Commit)
    assert actions[0].head.status == 500


def test_an_error_whose_text_is_lost_keeps_its_status() -> None:
    head = Head(ResponseHead(503))
    failed = failure(fed(attempt(), head, Data(b"bu"), Lost("error", "reset")))
    assert (failed.criterion, failed.answer.status, failed.told) == ("http_503", 503, ())


def test_an_error_without_end_is_a_failure_all_the_same() -> None:
    tried = attempt()
    failed = failure(fed(tried, Head(ResponseHead(503)), Data(b"x" * (MAX_HELD + 1))))
    assert (failed.criterion, failed.answer.status) == ("http_503", 503)


# ---- what flows decide, whatever the provider said last


def decided(*answered: int, status: int) -> tuple[list[Action], list[Action]]:
    """What becomes of a flow's answer, with what it was; `answered`: the provider's statuses."""
    hold = Hold(LISTED, lambda _: ())
    for each in answered:
        hold.look_at(Head(ResponseHead(each)))
    answer: list[Action] = [Commit(ResponseHead(status), 2), Emit(b"{}"), Finish()]
    return list(hold.passed(iter(answer), lambda: None)), answer


def test_an_error_that_a_flow_makes_sense_of_is_none() -> None:
    """As where a failed video's result is asked for."""
    found, answer = decided(200, 503, status=200)
    assert found == answer


def test_a_flow_that_refuses_before_any_call_is_passed_over() -> None:
    found, answer = decided(status=400)
    (fail,) = found
    assert isinstance(fail, Fail)
    assert (fail.criterion, fail.told) == (UNSUITED, tuple(answer))


def test_a_flow_that_refuses_after_a_call_tells_the_client() -> None:
    found, answer = decided(200, status=400)
    assert found == answer


@pytest.mark.parametrize(("told", "criteria"), [(503, {"error", "http_503"}), (429, {"http_429"})])
def test_a_flow_that_tells_a_listed_status_after_a_call_has_failed(
    told: int, criteria: set[str]
) -> None:
    (fail,), _ = decided(200, status=told)
    assert isinstance(fail, Fail)
    assert {fail.criterion, fail.also} - {""} == criteria
