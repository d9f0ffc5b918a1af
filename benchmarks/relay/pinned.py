"""A process on its core, which ends with the harness."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import AbstractAsyncContextManager

import uvloop

CAN_PIN = hasattr(os, "sched_setaffinity")
CORES = sorted(os.sched_getaffinity(0)) if CAN_PIN else list(range(os.cpu_count() or 1))
"""Those that this process may use."""


def pin(core: int) -> None:
    """Keep this process on one core, where the system can."""
    if CAN_PIN:
        os.sched_setaffinity(0, {core})


def serve(core: int, listening: AbstractAsyncContextManager[int]) -> None:
    """Print the port, and serve until standard input ends."""
    pin(core)

    async def run() -> None:
        async with listening as port:
            print(port, flush=True)
            ended = asyncio.Event()
            asyncio.get_running_loop().add_reader(sys.stdin.fileno(), ended.set)
            await ended.wait()

    uvloop.run(run())
