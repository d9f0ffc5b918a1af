"""What the client gets of an answer after others have failed, and from when on it is too late."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from tests.faults import (
    Close,
    ErrorEvent,
    Good,
    Hang,
    Raw,
    Refuse,
    Reset,
    Status,
    Step,
)
from tests.relays import RunningRelay, running
from tests.unit.relay.clients import (
    FILES,
    JSON,
    UPLOAD,
    ask,
    client,
    form,
)
from tests.unit.relay.clients import target as target_at
from tests.unit.relay.failover import (
    ALL,
    CLIENT,
    LOGGED,
    LONG_MS,
    NAME,
    SHORT_MS,
    answered,
    providers,
    question,
    said,
    target,
    targets,
)
from tests.unit.relay.upstreams import SSE, Connection, Upstream, always, answer, chunk
from tests.vendors import sse

# ---- what comes of the one that answers


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("first", [Status(503), Reset(body=150), Close(body=150)])
async def test_nothing_of_a_failed_answer_reaches_the_client(first: Step, stream: bool) -> None:
    good = Good("one two three")
    async with providers(first, good) as places, targets(*places) as relay:
        after_failing = await answered(relay, stream=stream)
        await places[0].become(good)
        at_once = await answered(relay, stream=stream)
    assert after_failing.body == at_once.body
    ignored = ("date",)
    assert [each for each in after_failing.headers.items() if each[0] not in ignored] == [
        each for each in at_once.headers.items() if each[0] not in ignored
    ]


@pytest.mark.parametrize("logging", [LOGGED, {}], ids=["logged", "not logged"])
@pytest.mark.parametrize("first", [ErrorEvent(529), Reset(words=0), Hang(words=0)])
async def test_an_opening_that_was_held_is_never_sent(
    first: Step, logging: dict[str, bool]
) -> None:
    async with (
        providers(first, Good()) as places,
        targets(
            *places, logging=logging, read_timeout=SHORT_MS if isinstance(first, Hang) else LONG_MS
        ) as relay,
    ):
        found = await answered(relay, stream=True)
    assert found.body.count(b'"role"') == 1
    assert said(found, "stream") == "hello"


async def test_what_one_target_adds_the_next_one_does_not_get() -> None:
    async with providers(Status(503), Good()) as places:
        own = [
            target("openai", place, NAME, "key", weight=1000 - at)
            for at, place in enumerate(places)
        ]
        own[0]["model"]["options"] |= {"temperature": 0.25, "top_p": 0.5}
        own[0]["model"]["name"] = "gpt-first"
        balancer = {"algorithm": "priority", "failover_criteria": ALL}
        async with running({"targets": own, "balancer": balancer}, "ai-proxy-advanced") as relay:
            assert (await answered(relay)).status == 200
        first, second = (orjson.loads(place.received[0].body) for place in places)
    assert (first["model"], first["temperature"], first["top_p"]) == ("gpt-first", 0.25, 0.5)
    assert second["model"] == "gpt-4o"
    assert not {"temperature", "top_p"} & set(second)


async def test_a_target_that_cannot_say_it_is_passed_by() -> None:
    """Anthropic's format has no sound."""
    sound = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
    body = {"model": NAME, "messages": [{"role": "user", "content": [sound]}]}
    async with (
        providers(Good(), Good()) as (first, second),
        targets(first, second, providers=["anthropic", "openai"], retries=0) as relay,
    ):
        found = await ask(relay, "POST", "/chat", orjson.dumps(body), JSON)
        assert found.status == 200
        assert (first.connections, len(second.received)) == (0, 1)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("accepted", ["gzip", "identity"])
async def test_compressed_answers(accepted: str, stream: bool) -> None:
    steps = (Status(503, encoding="gzip"), Good(encoding=None if stream else "gzip"))
    async with providers(*steps) as places, targets(*places) as relay:
        headers = {**CLIENT, "accept-encoding": accepted}
        found = await ask(relay, "POST", "/chat", question(NAME, stream=stream), headers)
    is_packed = found.headers.get("content-encoding") == "gzip"
    assert is_packed == (accepted == "gzip" and not stream)
    body = gzip.decompress(found.body) if is_packed else found.body
    assert b'"hello"' in body


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("order", [["anthropic", "openai"], ["openai", "anthropic"]])
async def test_a_client_of_another_format_never_knows(order: list[str], stream: bool) -> None:
    body = {"model": NAME, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 9}
    sent = orjson.dumps({**body, "stream": stream})
    first = ErrorEvent(529) if stream else Status(529)
    native = {"llm_format": "anthropic"}
    async with (
        providers(first, [Good(), Status(503)]) as places,
        targets(*places, providers=order, common=native) as relay,
    ):
        found = await ask(relay, "POST", "/v1/messages", sent, JSON)
        assert (found.status, found.complete) == (200, True)
        assert b'"hello"' in found.body
        assert b"overloaded" not in found.body
        failed = await ask(relay, "POST", "/v1/messages", sent, JSON)
        assert failed.status in (503, 529)
        assert orjson.loads(failed.body)["type"] == "error"


CLOUDS: dict[str, dict[str, Any]] = {
    "gemini": {"auth": {"header_name": "x-goog-api-key", "header_value": "key"}},
    "bedrock": {
        "auth": {"aws_access_key_id": "AKIDEXAMPLE", "aws_secret_access_key": "secret"},
        "model": {"options": {"bedrock": {"aws_region": "us-east-1"}}},
    },
}


@pytest.mark.parametrize("status", [429, 500, 529])
@pytest.mark.parametrize("provider", CLOUDS)
async def test_errors_in_the_streams_of_clouds(provider: str, status: int) -> None:
    own = CLOUDS[provider]
    async with providers(ErrorEvent(status), Good()) as places:
        options = {"upstream_url": places[0].origin, **own.get("model", {}).get("options", {})}
        model = {"provider": provider, "name": "m", "model_alias": NAME, "options": options}
        first = {"route_type": "llm/v1/chat", "auth": own["auth"], "model": model, "weight": 200}
        found = {
            "targets": [first, target("openai", places[1], NAME, "key", weight=100)],
            "balancer": {"algorithm": "priority", "failover_criteria": ALL},
        }
        async with running(found, "ai-proxy-advanced") as relay:
            answer = await answered(relay, stream=True)
        assert (answer.status, said(answer, "stream")) == (200, "hello")
        assert len(places[0].received) == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_responses(stream: bool) -> None:
    first = ErrorEvent(500) if stream else Status(500)
    async with providers(first, Good()) as places:
        own = [
            target("openai", place, NAME, "key", weight=1000 - at)
            for at, place in enumerate(places)
        ]
        for each in own:
            each["route_type"] = "llm/v1/responses"
        found = {"targets": own, "balancer": {"algorithm": "priority", "failover_criteria": ALL}}
        async with running(found, "ai-proxy-advanced") as relay:
            body = orjson.dumps({"model": NAME, "input": "hi", "stream": stream})
            answer = await ask(relay, "POST", "/v1/responses", body, JSON)
        assert answer.status == 200
        assert b'"hello"' in answer.body
        assert answer.body.count(b"event: response.created") == stream
        assert b'"error"' not in answer.body.replace(b'"error":null', b"")


# ---- when it is too late


def chunk_of(**delta: Any) -> bytes:
    """A chunk of OpenAI's."""
    choice = {"index": 0, "delta": delta, "finish_reason": None}
    return sse({"id": "c", "object": "chat.completion.chunk", "model": "m", "choices": [choice]})


CALL = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": ""}}


@pytest.mark.parametrize(
    "first",
    [{"tool_calls": [CALL]}, {"reasoning_content": "hm"}, {"refusal": "no"}],
    ids=["a call", "a thought", "a refusal"],
)
async def test_whatever_the_model_says_is_content(first: dict[str, Any]) -> None:
    """After it nobody else is asked."""
    body = chunk(chunk_of(role="assistant", content="")) + chunk(chunk_of(**first))
    async with providers(Raw(SSE + body), Good()) as places, targets(*places) as relay:
        found = await answered(relay, stream=True)
        assert (found.status, places[1].connections) == (200, 0)
        assert chunk_of(**first) in found.body
        assert b"[DONE]" not in found.body


@pytest.mark.parametrize("first", [{}, {"role": "assistant"}, {"content": ""}, {"content": None}])
async def test_what_says_nothing_is_no_content(first: dict[str, Any]) -> None:
    body = chunk(b": a comment\n\n") + chunk(chunk_of(**first))
    async with providers(Raw(SSE + body), Good()) as places, targets(*places) as relay:
        assert said(await answered(relay, stream=True), "stream") == "hello"


async def test_a_stream_goes_on_to_the_client_with_its_first_content() -> None:
    """Not when it is complete."""
    first = Hang(Good("one two"), words=1)
    async with (
        providers(first, Good()) as places,
        targets(*places) as relay,
        client(relay) as one,
    ):
        await one.ask(body=question(NAME, stream=True))
        async with asyncio.timeout(10):
            assert b'"one"' in await one.reader.readuntil(b'"one"')


async def test_a_long_answer_is_not_held_to_its_end() -> None:
    long = Good("x" * 1_000_000)
    async with providers(Reset(long, body=900_000), Good()) as places, targets(*places) as relay:
        found = await answered(relay)
        assert (found.status, found.complete) == (200, False)
        assert places[1].connections == 0


async def test_a_large_upload_that_has_begun_is_not_repeated() -> None:
    """It is gone: not even with leave."""
    async with providers(Reset(), Good()) as places, files(*places, most=100_000) as relay:
        found = await ask(relay, "POST", "/v1/files", form(b"x" * 300_000), UPLOAD)
        assert found.status == 502
        assert places[1].connections == 0


@pytest.mark.parametrize("first", [Reset(), Status(503)])
async def test_an_upload_that_is_kept_is_repeated(first: Step) -> None:
    async with providers(first, Good()) as places, files(*places) as relay:
        found = await ask(relay, "POST", "/v1/files", form(b"x" * 300_000), UPLOAD)
        assert found.status == 200
        assert places[1].received[0].body == form(b"x" * 300_000)


async def test_an_upload_that_nobody_has_taken_goes_to_the_next_target() -> None:
    async with providers(Refuse(), Good()) as places, files(*places) as relay:
        found = await ask(relay, "POST", "/v1/files", form(b"x" * 300_000), UPLOAD)
        assert found.status == 200
        assert places[1].received[0].body == form(b"x" * 300_000)


@contextlib.asynccontextmanager
async def files(*places: Upstream, most: int = 0, **own: Any) -> AsyncIterator[RunningRelay]:
    targets = [target_at(each.url(""), FILES, weight=1000 - at) for at, each in enumerate(places)]
    balancer = {"algorithm": "priority", "failover_criteria": ALL, **own}
    found = {"targets": targets, "balancer": balancer, "max_request_body_size": most}
    async with running(found, "ai-proxy-advanced") as relay:
        yield relay


async def test_a_client_that_stalls_opens_nobodys_breaker() -> None:
    whole = form(b"x" * 100_000)
    headers = {**UPLOAD, "content-length": str(len(whole))}

    async def impatient(connection: Connection) -> None:
        if place.connections > 1:
            await always(answer(b"{}"))(connection)
        await connection.head()
        await connection.reader.readexactly(40_000)
        connection.reset()

    async with (
        Upstream(impatient) as place,
        providers(Good()) as (second,),
        files(place, second, max_fails=1) as relay,
    ):
        async with client(relay) as one:
            await one.send(one.head("POST", "/v1/files", headers) + whole[:50_000])
            async with asyncio.timeout(10):
                while not second.heads:
                    await asyncio.sleep(0.001)
        await relay.settled()
        assert (await ask(relay, "POST", "/v1/files", whole, UPLOAD)).status == 200
        assert place.connections == 2
