"""A connection that has left HTTP behind: bytes pass both ways untouched."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from kong_ai_proxy.gateway.stream import Stream


async def tunnel(client: Stream, upstream: Stream, idle_seconds: float) -> None:
    """Pass bytes until one side closes or nothing has come from either for `idle_seconds`.

    What arrived before one side's end is passed on before both are closed.
    """
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(idle_seconds) as idle:

        def alive() -> None:
            idle.reschedule(loop.time() + idle_seconds)

        pumps = [
            asyncio.ensure_future(_pump(client, upstream, alive)),
            asyncio.ensure_future(_pump(upstream, client, alive)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            client.close()
            upstream.close()


async def _pump(source: Stream, sink: Stream, alive: Callable[[], None]) -> None:
    while data := await source.read():
        alive()
        await sink.write(data)
