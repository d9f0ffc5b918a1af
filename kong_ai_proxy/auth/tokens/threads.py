"""Libraries that block, away from the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class Threads:
    """A few calls that block at a time.

    Not an executor of the standard library: that one is waited for when the process ends, however
    long a call hangs (a credential_process has no time limit).
    """

    def __init__(self, limit: int = 4) -> None:
        self._free = asyncio.Semaphore(limit)

    async def run(self, function: Callable[[], T]) -> T:
        """What `function` returns or raises, called in a thread of its own.

        Whoever no longer waits does not end the call; it keeps its place until it ends itself.
        """
        await self._free.acquire()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def finish(outcome: Callable[[], None]) -> None:
            self._free.release()
            if not future.done():
                outcome()

        def work() -> None:
            try:
                result = function()
            except Exception as error:
                problem = error
                done = lambda: future.set_exception(problem)  # noqa: E731
            else:
                done = lambda: future.set_result(result)  # noqa: E731
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                loop.call_soon_threadsafe(finish, done)

        try:
            threading.Thread(target=work, name="kong-ai-proxy-credentials", daemon=True).start()
        except RuntimeError:  # no more threads
            self._free.release()
            raise
        return await future
