"""The server on a real Unix socket, on both event loops."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgpack
import pytest
import uvloop

from kong_ai_proxy.pluginserver.instances import instance_id
from kong_ai_proxy.pluginserver.server import PluginServer
from kong_ai_proxy.pluginserver.wire.methods import Protocol
from tests.contract import oracle
from tests.contract.kong_side import PROTOCOLS, frame, plugin, server

Run = Callable[[Coroutine[Any, Any, None]], None]
RUNNERS: list[Run] = [asyncio.run, uvloop.run]


def listening(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    sock.listen(100)
    return sock


async def start(under_test: PluginServer, path: Path) -> tuple[asyncio.Task[None], socket.socket]:
    sock = listening(path)
    return asyncio.create_task(under_test.serve(sock)), sock


def messages(protocol: Protocol) -> bytes:
    """A start and an event of the plugin `p`."""
    number = instance_id("p", {})
    if protocol == "msgpack":
        start_args, event_args = {"Name": "p", "Config": "{}"}, {"InstanceId": number}
        both = (
            [0, 1, "plugin.StartInstance", [start_args]],
            [0, 2, "plugin.HandleEvent", [{**event_args, "EventName": "access"}]],
        )
        return b"".join(msgpack.packb(message) for message in both)
    call: Any = oracle.MESSAGES["RpcCall"]
    begun = call(sequence=2, cmd_start_instance={"name": b"p", "config": b"{}"})
    event = call(sequence=3, cmd_handle_event={"instance_id": number, "event_name": b"access"})
    return frame(begun.SerializeToString()) + frame(event.SerializeToString())


END = {"protobuf": b"\0\0\0\0\x02\0\0\0\x08\x03", "msgpack": b"\xa3ret"}


async def one_event(path: Path, protocol: Protocol) -> None:
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(messages(protocol))
    async with asyncio.timeout(10):
        await reader.readuntil(END[protocol])
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("run", RUNNERS)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_many_connections_at_once(protocol: Protocol, run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        under_test = server(protocol, plugin(lambda kong: kong.wait(asyncio.sleep(0))))
        serving, sock = await start(under_test, tmp_path / "s")
        await asyncio.gather(*(one_event(tmp_path / "s", protocol) for _ in range(40)))
        await under_test.close()
        await serving
        assert (under_test.events, under_test.connections) == (0, 0)
        assert sock.fileno() >= 0  # the caller's to close
        assert (tmp_path / "s").is_socket()  # and to unlink
        sock.close()

    run(main())


@pytest.mark.parametrize("run", RUNNERS)
def test_a_stopped_server_serves_open_connections_and_accepts_no_more(
    run: Run, tmp_path: Path
) -> None:
    async def main() -> None:
        under_test = server("protobuf", plugin(lambda kong: None))
        serving, sock = await start(under_test, tmp_path / "s")
        reader, writer = await asyncio.open_unix_connection(tmp_path / "s")
        writer.write(messages("protobuf"))
        await reader.readuntil(END["protobuf"])
        under_test.stop()
        await serving
        writer.write(messages("protobuf"))
        await reader.readuntil(END["protobuf"])
        assert under_test.connections == 1
        other = await asyncio.open_unix_connection(tmp_path / "s")  # waits in the queue
        other[1].write(messages("protobuf"))
        for _ in range(20):
            await asyncio.sleep(0)
        assert under_test.connections == 1
        await under_test.close()
        writer.close()
        other[1].close()
        sock.close()

    run(main())


@pytest.mark.parametrize("run", RUNNERS)
def test_a_peer_that_does_not_read_does_not_hold_close_up(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        body = b"x" * 4_000_000
        under_test = server("protobuf", plugin(lambda kong: kong.response.exit(200, body)))
        serving, sock = await start(under_test, tmp_path / "s")
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(str(tmp_path / "s"))
            peer.sendall(messages("protobuf"))
            peer.setblocking(False)
            async with asyncio.timeout(10):
                while not under_test.connections:
                    await asyncio.sleep(0.01)
            async with asyncio.timeout(5):
                await under_test.close()
            await serving
        assert under_test.connections == 0
        sock.close()

    run(main())


async def test_a_reply_of_eight_megabytes_goes_through(tmp_path: Path) -> None:
    body = b"x" * 8_000_000
    under_test = server("protobuf", plugin(lambda kong: kong.service.request.set_raw_body(body)))
    serving, sock = await start(under_test, tmp_path / "s")
    reader, writer = await asyncio.open_unix_connection(tmp_path / "s")
    writer.write(messages("protobuf"))
    for _ in range(2):  # the instance, the method's name
        await reader.readexactly(struct.unpack("<I", await reader.readexactly(4))[0])
    size = struct.unpack("<I", await reader.readexactly(4))[0]
    assert oracle.parse("ByteString", await reader.readexactly(size)).v == body  # type: ignore[attr-defined]
    writer.close()
    await under_test.close()
    await serving
    sock.close()
