"""TLS to upstreams: verified only where the Service says so; the name is the Host header's."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from kong_ai_proxy.gateway.context import PluginEntity, RequestContext
from tests.unit.gateway.proxy.support import Upstream, stand_in

CERTIFICATE = Path(__file__).with_name("localhost.pem")  # for localhost, signed by itself


def _upstream() -> tuple[Upstream, list[str | None]]:
    names: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    context.sni_callback = lambda _, name, __: names.append(name)
    return Upstream(tls=context), names


def _deck(port: int, extra: str = "") -> str:
    return f"""
    services:
    - name: s
      url: https://localhost:{port}
      retries: 0
      {extra}
      routes: [{{paths: [/r], plugins: [{{name: ai-proxy, config: {{}}}}]}}]
    """


async def test_tls_is_not_verified_by_default() -> None:
    upstream, names = _upstream()
    async with upstream.running(), stand_in(_deck(upstream.port)) as kong:
        assert (await kong.ask("GET /r")).body == b"ok"
    assert names == ["localhost"]
    assert upstream.requests[0].get("Host") == f"localhost:{upstream.port}"


async def test_tls_verify_refuses_an_unknown_issuer() -> None:
    upstream, _ = _upstream()
    async with upstream.running(), stand_in(_deck(upstream.port, "tls_verify: true")) as kong:
        assert (await kong.ask("GET /r")).status == 502
    assert upstream.requests == []


async def test_tls_verify_accepts_a_known_issuer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    upstream, _ = _upstream()
    async with upstream.running(), stand_in(_deck(upstream.port, "tls_verify: true")) as kong:
        assert (await kong.ask("GET /r")).body == b"ok"


async def test_a_verified_connection_is_not_shared_with_unverified_requests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    upstream, _ = _upstream()
    async with upstream.running(), stand_in(_deck(upstream.port)) as kong:
        await kong.ask("GET /r")

        async def act(_: PluginEntity, ctx: RequestContext) -> None:
            ctx.upstream.tls_verify = True

        kong.runner.action = act
        assert (await kong.ask("GET /r")).body == b"ok"
    assert upstream.connections == 2


async def test_the_server_name_is_the_host_header() -> None:
    upstream, names = _upstream()
    async with upstream.running(), stand_in(_deck(upstream.port)) as kong:

        async def act(_: PluginEntity, ctx: RequestContext) -> None:
            ctx.upstream.host_header = "api.example"

        kong.runner.action = act
        await kong.ask("GET /r")
    assert names == ["api.example"]
