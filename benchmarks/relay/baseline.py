"""The featureless proxy: what aiohttp costs when nothing is done but passing bytes on.

`python -m benchmarks.relay.baseline CORE UPSTREAM_PORT` prints its port.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import ClientSession, DummyCookieJar, TCPConnector, web

from benchmarks.relay import pinned

HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "host"}


@asynccontextmanager
async def listening(upstream: int) -> AsyncIterator[int]:
    """Its port. Everything goes on to the upstream's, both ways as it comes."""

    async def proxy(request: web.BaseRequest) -> web.StreamResponse:
        headers = [(n, v) for n, v in request.headers.items() if n.lower() not in HOP_BY_HOP]
        body = request.content if request.body_exists else None
        async with session.request(
            request.method, request.raw_path, headers=headers, data=body
        ) as answer:
            response = web.StreamResponse(status=answer.status)
            for name, value in answer.headers.items():
                if name.lower() not in HOP_BY_HOP:
                    response.headers.add(name, value)
            await response.prepare(request)
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
            await response.write_eof()
            return response

    base, pool = f"http://127.0.0.1:{upstream}", TCPConnector(limit=0)
    async with ClientSession(
        base, connector=pool, cookie_jar=DummyCookieJar(), auto_decompress=False
    ) as session:
        runner = web.ServerRunner(web.Server(proxy))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
        yield int(runner.addresses[0][1])
        await runner.cleanup()


if __name__ == "__main__":
    pinned.serve(int(sys.argv[1]), listening(int(sys.argv[2])))
