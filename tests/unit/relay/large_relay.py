"""A relay in a process of its own, so that its memory can be seen:
`python -m tests.unit.relay.large_relay URL_OR_JSON REQUEST...`.

It prints its port and one ticket for each request that its arguments name; then it waits for the
end of its input.
"""

from __future__ import annotations

import asyncio
import sys

import orjson
import uvloop

from tests.relays import running
from tests.unit.relay.clients import FILES, target


async def main(config: str, requests: list[str]) -> None:
    """`config` is a configuration as JSON, or the URL of OpenAI-like files."""
    chosen = orjson.loads(config) if config.startswith("{") else target(config, FILES)
    async with running(chosen) as relay:
        tickets = [relay.ticket(*request.split(" ")) for request in requests]
        sys.stdout.write("".join(f"{line}\n" for line in (relay.port, *tickets)))
        sys.stdout.flush()
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2:]))
