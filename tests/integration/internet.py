"""The internet as a plugin server sees it whose way out is a proxy: every https:// host is on this
machine.

The proxy knows CONNECT (RFC 9110 section 9.3.6). Behind it each host has a certificate that an
authority of the test run has signed, and is a stand-in of tests/providers.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.providers import Upstream


class Internet:
    """From `async with` on, with stand-ins that run.

    options: what `kong-ai-proxy serve` has to be told of it.
    asked: each host that was asked for, with its port, as often as connections were made to it.
    """

    def __init__(self, folder: Path, hosts: Mapping[str, Upstream]) -> None:
        self._hosts = hosts
        self._ca = folder / "authority.pem"
        self._context = _certified(folder, self._ca, hosts)
        self._servers: list[asyncio.Server] = []
        self._ports: dict[str, int] = {}
        self.asked: list[str] = []
        self.options: list[str] = []

    async def __aenter__(self) -> Self:
        for host, upstream in self._hosts.items():
            place = urlsplit(upstream.url)
            self._ports[host] = await self._listen(_To(place.port or 0), self._context)
        proxy = await self._listen(self._connect)
        self.options = ["--ca-file", str(self._ca), "--https-proxy", f"http://127.0.0.1:{proxy}"]
        return self

    async def __aexit__(self, *_: object) -> None:
        for server in self._servers:
            server.close()
        self.asked.clear()

    async def _listen(self, serve: object, tls: ssl.SSLContext | None = None) -> int:
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)  # type: ignore[arg-type]
        self._servers.append(server)
        port: int = server.sockets[0].getsockname()[1]
        return port

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        method, target, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
        assert method == "CONNECT", head
        self.asked.append(target)
        port = self._ports.get(target.removesuffix(":443"))
        if port is None:
            writer.write(b"HTTP/1.1 502 No such host\r\n\r\n")
            writer.close()
            return
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await _To(port)(reader, writer)


@dataclass(frozen=True)
class _To:
    """Hands a connection on to a port."""

    port: int

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self.port)
        await asyncio.gather(_copy(reader, back), _copy(there, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    writer.close()


# ---- certificates


def _certified(folder: Path, authority: Path, hosts: Collection[str]) -> ssl.SSLContext:
    """What a server needs to be any of the hosts; the authority's certificate is in a file then."""
    key, own = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test authority")])
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Providers")])
    signs = x509.BasicConstraints(ca=True, path_length=0)
    root = _made(issuer, issuer, key.public_key(), signs).sign(key, hashes.SHA256())
    names = x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts])
    leaf = _made(subject, issuer, own.public_key(), names).sign(key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    authority.write_bytes(root.public_bytes(pem))
    both = folder / "providers.pem"
    plain = serialization.NoEncryption()
    secret = own.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)
    both.write_bytes(leaf.public_bytes(pem) + secret)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(both)
    return context


def _made(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    extension: x509.BasicConstraints | x509.SubjectAlternativeName,
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder(subject_name=subject, issuer_name=issuer, public_key=key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
    )
