"""TLS to providers, and the proxy through which they may be reached."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import shutil
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kong_ai_proxy.relay.settings import RelaySettings
from tests.relays import RunningRelay, running
from tests.unit.relay import authorities
from tests.unit.relay.authorities import Authority
from tests.unit.relay.clients import FILES, REALTIME, Answer, ask, client, target
from tests.unit.relay.sockets import (
    HANDSHAKE,
    TARGET,
    TEXT,
    Frame,
    echo,
    frame,
    read_frame,
    session,
)
from tests.unit.relay.upstreams import SSE, Connection, Script, Upstream, always, answer, chunk

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not there")

UNREACHABLE = b'{"error":{"message":"the provider cannot be reached"}}'


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return authorities.make(tmp_path_factory.mktemp("authority"))


@contextlib.asynccontextmanager
async def provided(
    script: Script,
    tls: ssl.SSLContext | None,
    settings: RelaySettings,
    host: str = "localhost",
    route_type: str = "llm/v1/chat",
) -> AsyncIterator[tuple[Upstream, RunningRelay]]:
    async with Upstream(script, tls) as upstream:
        url = upstream.url("/v1/realtime" if route_type == REALTIME else "/v1/files", "https", host)
        async with running(target(url, route_type), settings=settings) as relay:
            yield upstream, relay


async def answered(
    tls: ssl.SSLContext | None, settings: RelaySettings, host: str = "localhost"
) -> Answer:
    async with provided(always(answer(b"{}")), tls, settings, host) as (upstream, relay):
        found = await ask(relay)
        assert (found.status == 200) == (len(upstream.heads) == 1)
        return found


async def test_a_private_authority_is_trusted_when_it_is_configured(authority: Authority) -> None:
    found = await answered(authority.server, RelaySettings(ca_file=authority.ca_file))
    assert (found.status, found.body) == (200, b"{}")


async def test_an_authority_that_nobody_knows_is_not_trusted(authority: Authority) -> None:
    found = await answered(authority.server, RelaySettings())
    assert (found.status, found.body) == (502, UNREACHABLE)


async def test_a_certificate_for_another_host_is_not_trusted(authority: Authority) -> None:
    found = await answered(authority.server, RelaySettings(ca_file=authority.ca_file), "127.0.0.1")
    assert (found.status, found.body) == (502, UNREACHABLE)


async def test_a_certificate_that_has_expired_is_not_trusted(tmp_path: Path) -> None:
    old = authorities.make(tmp_path, days=-1)
    found = await answered(old.server, RelaySettings(ca_file=old.ca_file))
    assert (found.status, found.body) == (502, UNREACHABLE)


async def test_a_provider_that_speaks_no_tls(authority: Authority) -> None:
    async def script(connection: Connection) -> None:
        await connection.reader.read(100)
        await connection.send(answer(b"plain"))

    async with provided(script, None, RelaySettings()) as (_, relay):
        found = await ask(relay)
    assert (found.status, found.body) == (502, UNREACHABLE)


async def test_a_handshake_that_is_not_answered_ends_in_time() -> None:
    async def script(connection: Connection) -> None:
        await connection.gone()

    async with Upstream(script) as upstream:
        own = target(upstream.url("/v1/x", "https", "localhost"))
        found = {"targets": [own], "balancer": {"connect_timeout": 100}}
        async with running(found, "ai-proxy-advanced") as relay:
            assert (await ask(relay)).status == 504


async def test_a_ca_file_that_is_not_there_is_told_at_the_start() -> None:
    with pytest.raises(OSError, match="No such file"):
        async with running(target("http://x/"), settings=RelaySettings(ca_file="/nowhere.pem")):
            pass


async def test_the_provider_is_told_at_once_over_tls_too(authority: Authority) -> None:
    gone: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.send(SSE + chunk(b"data: 1\n\n"))
        gone.set_result(await connection.gone())

    settings = RelaySettings(ca_file=authority.ca_file)
    async with provided(script, authority.server, settings) as (_, relay), client(relay) as one:
        await one.ask()
        await one.answer_head()
        left = one.leave()
        assert await gone - left < 1


# ---- the proxy


class Proxy:
    """An HTTP proxy that knows CONNECT (RFC 9110 section 9.3.6) and notes what it is asked."""

    def __init__(self, status: str = "200 Connection established", *, silent: bool = False) -> None:
        self._status, self._silent = status, silent
        self.asked: list[str] = []
        self.credentials: list[str | None] = []

    async def script(self, connection: Connection) -> None:
        received = await connection.head()
        self.asked.append(f"{received.method} {received.target}")
        self.credentials.append(received.header("proxy-authorization"))
        if self._silent:
            await connection.gone()
            return
        if not self._status.startswith("200"):
            await connection.send(answer(b"no", self._status))
            return
        port = int(received.target.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await connection.send(f"HTTP/1.1 {self._status}\r\n\r\n".encode())
        try:
            await asyncio.gather(_copy(connection.reader, writer), _copy(reader, connection.writer))
        finally:
            writer.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError, RuntimeError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.transport.abort()


PROVIDER = "provider.test"
"""No name of this machine's, since those are never reached through a proxy."""


@pytest.fixture(scope="session")
def public(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return authorities.make(tmp_path_factory.mktemp("public"), PROVIDER)


@contextlib.asynccontextmanager
async def behind(
    proxy: Proxy,
    public: Authority,
    script: Script,
    route_type: str = "llm/v1/chat",
    no_proxy: str = "",
) -> AsyncIterator[tuple[Upstream, RunningRelay]]:
    async with Upstream(proxy.script) as gate:
        url = f"http://user:pass%21@127.0.0.1:{gate.port}"
        settings = RelaySettings(ca_file=public.ca_file, https_proxy=url, no_proxy=no_proxy)
        through = provided(script, public.server, settings, PROVIDER, route_type)
        async with through as (upstream, relay):
            yield upstream, relay


async def test_a_provider_behind_a_proxy(public: Authority) -> None:
    proxy = Proxy()
    async with behind(proxy, public, always(answer(b"{}"))) as (upstream, relay):
        for _ in range(2):
            found = await ask(relay)
            assert (found.status, found.body) == (200, b"{}")
        assert proxy.asked == [f"CONNECT {PROVIDER}:{upstream.port}"], "the tunnel is used again"
        assert proxy.credentials == ["Basic " + base64.b64encode(b"user:pass!").decode()]
        assert upstream.received[0].header("proxy-authorization") is None


async def test_a_websocket_through_a_proxy(public: Authority) -> None:
    proxy = Proxy()
    async with behind(proxy, public, session(echo), REALTIME) as (_, relay), client(relay) as one:
        await one.send(one.head("GET", TARGET, HANDSHAKE))
        assert (await one.answer_head())[0] == 101
        await one.send(frame(TEXT, b"hello", masked=True))
        assert await read_frame(one.reader) == Frame(TEXT, b"hello")


@pytest.mark.parametrize("status", ["407 Proxy Authentication Required", "403 Forbidden",
                                    "502 Bad Gateway"])  # fmt: skip
async def test_a_proxy_that_refuses(
    public: Authority, status: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with behind(Proxy(status), public, always(answer(b"{}"))) as (upstream, relay):
        found = await ask(relay)
        assert (found.status, found.body) == (502, UNREACHABLE)
        assert upstream.heads == []
    assert "pass" not in caplog.text


async def test_a_proxy_that_does_not_answer(public: Authority) -> None:
    async with Upstream(Proxy(silent=True).script) as gate:
        settings = RelaySettings(https_proxy=f"http://127.0.0.1:{gate.port}")
        own = {"targets": [target(f"https://{PROVIDER}/v1")], "balancer": {"connect_timeout": 100}}
        async with running(own, "ai-proxy-advanced", settings) as relay:
            assert (await ask(relay)).status == 504


async def test_a_proxy_that_is_not_there(public: Authority) -> None:
    settings = RelaySettings(https_proxy="http://127.0.0.1:1")
    async with running(target(f"https://{PROVIDER}/v1"), settings=settings) as relay:
        found = await ask(relay)
    assert (found.status, found.body) == (502, UNREACHABLE)


async def test_http_providers_are_reached_directly(public: Authority) -> None:
    async with Upstream(always(answer(b"{}"))) as upstream:
        settings = RelaySettings(https_proxy="http://127.0.0.1:1")
        own = target(upstream.url("/v1/files"), FILES)
        async with running(own, settings=settings) as relay:
            assert (await ask(relay, "GET", "/v1/files", b"", {})).status == 200
