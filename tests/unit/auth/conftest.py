"""No credentials of this machine, and no way off it."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.auth.endpoints import Clock, Endpoint

CLOUDS = ("AWS_", "AZURE_", "GCP_", "GOOGLE_", "GCE_", "CLOUDSDK_", "IDENTITY_", "BOTO_")


@pytest.fixture(autouse=True)
def _no_clouds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in os.environ:
        if name.startswith(CLOUDS):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture(autouse=True)
def _loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    connect, resolve = socket.socket.connect, socket.getaddrinfo

    def checked_connect(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6):
            assert address[0] in ("127.0.0.1", "::1"), f"reached out to {address}"
        connect(self, address)

    def checked_resolve(host: Any, *more: Any, **also: Any) -> Any:
        if host not in ("127.0.0.1", "::1", "localhost", None):
            raise socket.gaierror(socket.EAI_NONAME, "no such host in tests")
        return resolve(host, *more, **also)

    monkeypatch.setattr(socket.socket, "connect", checked_connect)
    monkeypatch.setattr(socket, "getaddrinfo", checked_resolve)


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    async with Endpoint() as started:
        yield started


@pytest.fixture
def clock() -> Clock:
    return Clock()
