"""An upstream whose answers a test writes byte for byte, and a Kong whose plugin server makes it
the relay."""

from __future__ import annotations

import asyncio
import json
import shlex
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typing_extensions import override

from tests.decks import config, route
from tests.gateways import InstalledKong, Plan
from tests.recorder import Received, Recorder, _read

PLUGINS = Path(__file__).parent / "plugins"
MARKER = "x-kong-ai-proxy-marker"
TICKET = "x-kong-ai-proxy-ticket"

Json = dict[str, Any]
Script = Callable[[Received, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class ScriptedUpstream(Recorder):
    """A relay or a provider. Answers with `script`, which may also close the connection."""

    script: Script | None = None
    connections: int = 0

    @override
    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while request := await _read(reader):
                self.received.append(request)
                assert self.script is not None
                await self.script(request, writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()


def head(*headers: str, status: str = "200 OK", announced: int | str | None = None) -> bytes:
    """An answer's head as the relay makes it: chunked; `announced` is the frame header's value."""
    lines = [f"HTTP/1.1 {status}", *headers, "Transfer-Encoding: chunked", "X-Accel-Buffering: no"]
    if announced is not None:
        lines.append(f"X-Kong-AI-Proxy-Frame: {announced}")
    return "\r\n".join([*lines, "", ""]).encode()


def chunk(data: bytes) -> bytes:
    """A piece of a chunked body; b"" ends it."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def frame(request: Received, values: Mapping[str, object] | bytes) -> bytes:
    """The private frame that ends a body."""
    text = values if isinstance(values, bytes) else json.dumps(values).encode()
    marker = request.header(MARKER)
    assert marker is not None
    return b"\x1e%s %08x\n%s" % (marker.encode(), len(text), text)


def relayed(path: str, url: str, *, ticket: bool = True, advanced: bool = False) -> Json:
    """A route to the scripted relay at `url`; without a ticket it plays the provider."""
    target = config(url, logging={"log_statistics": ticket})
    if advanced:
        return route(path, {"targets": [target]}, "ai-proxy-advanced")
    return route(path, target)


class Log:
    """What file-log writes about the requests of one test."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "log.json"
        self.plugin = {"name": "file-log", "config": {"path": str(self._file)}}

    async def record(self) -> Json:
        """The record of the only request. Waits for it."""
        record: Json = json.loads(await self.text())
        return record

    async def text(self) -> str:
        """The file, once there is a line in it."""
        async with asyncio.timeout(10):
            while not self._file.exists() or not self._file.read_text().endswith("\n"):
                await asyncio.sleep(0.02)
        return self._file.read_text()


class ScriptedKong(InstalledKong):
    """An installed Kong whose plugin server is the one in this folder."""

    def __init__(self, changes: Mapping[str, str] | None = None) -> None:
        super().__init__(Plan("installed"))
        code = (
            "import sys; from kong_ai_proxy.pluginserver.serve import main; "
            f"sys.exit(main(sys.argv[1:], plugins={str(PLUGINS)!r}))"
        )
        command = [sys.executable, "-P", "-c", code, "--socket", self.socket, "--drain", "0"]
        start = {"pluginserver_ai_proxy_start_cmd": shlex.join(command)}
        self.plan = Plan("installed", changes={**start, **(changes or {})})
