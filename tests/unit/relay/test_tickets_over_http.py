"""Nothing reaches a provider without a ticket that fits the request."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import aiohttp
import pytest

from kong_ai_proxy.relay.ticket import HEADER, LIFETIME
from tests.recorder import Recorder
from tests.relays import RunningRelay, running
from tests.unit.relay.clients import HELLO, JSON, client, target


@pytest.fixture
async def provider() -> AsyncIterator[Recorder]:
    async with Recorder() as recorder:
        yield recorder


@pytest.fixture
async def relay(provider: Recorder) -> AsyncIterator[RunningRelay]:
    async with running(target(provider.url("/v1/chat/completions"))) as relay:
        yield relay


async def refusal(
    relay: RunningRelay, method: str, path: str, headers: dict[str, str]
) -> tuple[int, str]:
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, relay.url + path, headers={**JSON, **headers}, data=HELLO) as found,
    ):
        message = (await found.json())["error"]["message"]
        assert found.headers["server"] == "kong-ai-proxy"
        return found.status, message


ONLY_KONG = "the relay takes requests only from Kong, each with a ticket of its own"


async def test_a_request_with_its_ticket_is_answered(
    relay: RunningRelay, provider: Recorder
) -> None:
    async with relay.request("POST", "/chat?a=1", data=HELLO, headers=JSON) as found:
        assert found.status == 200
    assert provider.last.header(HEADER) is None


async def test_without_a_ticket(relay: RunningRelay, provider: Recorder) -> None:
    assert await refusal(relay, "POST", "/chat", {}) == (403, ONLY_KONG)
    assert provider.received == []


@pytest.mark.parametrize("forged", ["x", "", "1." * 40, "a" * 4000])
async def test_a_forged_ticket(relay: RunningRelay, provider: Recorder, forged: str) -> None:
    assert await refusal(relay, "POST", "/chat", {HEADER: forged}) == (403, ONLY_KONG)
    assert provider.received == []


async def test_a_ticket_with_one_character_changed(relay: RunningRelay, provider: Recorder) -> None:
    ticket = relay.ticket("POST", "/chat")
    for at in range(0, len(ticket), 7):
        other = "A" if ticket[at] != "A" else "B"
        changed = ticket[:at] + other + ticket[at + 1 :]
        assert (await refusal(relay, "POST", "/chat", {HEADER: changed}))[0] == 403
    assert provider.received == []


@pytest.mark.parametrize(
    ("method", "path"),
    [("PUT", "/chat?a=1"), ("POST", "/chat?a=2"), ("POST", "/chat"), ("POST", "/Chat?a=1"),
     ("POST", "/%63hat?a=1")],
)  # fmt: skip
async def test_a_ticket_for_another_request(
    relay: RunningRelay, provider: Recorder, method: str, path: str
) -> None:
    ticket = relay.ticket("POST", "/chat?a=1")
    async with client(relay) as raw:
        head = f"{method} {path} HTTP/1.1\r\nhost: x\r\n{HEADER}: {ticket}\r\n\r\n"
        await raw.send(head.encode())
        assert (await raw.answer()).status == 403
    assert provider.received == []


async def test_a_ticket_is_honoured_once(relay: RunningRelay, provider: Recorder) -> None:
    headers = relay.headers("POST", "/chat")
    async with (
        aiohttp.ClientSession() as session,
        session.post(relay.url + "/chat", headers={**JSON, **headers}, data=HELLO) as found,
    ):
        assert found.status == 200
    assert await refusal(relay, "POST", "/chat", headers) == (403, ONLY_KONG)
    assert len(provider.received) == 1


async def test_two_tickets(relay: RunningRelay, provider: Recorder) -> None:
    first, second = relay.ticket("GET", "/chat"), relay.ticket("GET", "/chat")
    async with client(relay) as raw:
        head = f"GET /chat HTTP/1.1\r\nhost: x\r\n{HEADER}: {first}\r\n{HEADER}: {second}\r\n\r\n"
        await raw.send(head.encode())
        assert (await raw.answer()).status == 403
    assert provider.received == []


async def test_an_expired_ticket_has_its_own_text(
    relay: RunningRelay, provider: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    past = time.monotonic() - LIFETIME - 2
    monkeypatch.setattr(relay.issuer, "_now", lambda: past)
    found = await refusal(relay, "POST", "/chat", relay.headers("POST", "/chat"))
    assert found == (403, "the request took longer than an hour to arrive")
    assert provider.received == []


async def test_a_ticket_for_a_configuration_that_is_gone(
    relay: RunningRelay, provider: Recorder
) -> None:
    relay.forget()
    status, message = await refusal(relay, "POST", "/chat", relay.headers("POST", "/chat"))
    assert (status, message) == (500, "the configuration of this request is not known any more")
    assert provider.received == []


async def test_no_log_holds_the_ticket(
    relay: RunningRelay, caplog: pytest.LogCaptureFixture
) -> None:
    ticket = relay.ticket("POST", "/other")
    await refusal(relay, "POST", "/chat", {HEADER: ticket})
    assert caplog.messages
    assert ticket not in caplog.text


async def test_what_is_no_http_is_answered_without_a_word_of_it_in_the_log(
    relay: RunningRelay, provider: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    async with client(relay) as raw:
        await raw.send(b"GET /chat HTTP/1.1\r\nauthorization Bearer clients-own\r\n\r\n")
        assert (await raw.answer()).status == 400
        assert await raw.closed()
    assert "clients-own" not in caplog.text
    assert provider.received == []
