"""Libraries that block, away from the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Future
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
        result: Future[T] = Future()
        result.set_running_or_notify_cancel()  # from here on it cannot be cancelled

        def work() -> None:
            try:
                result.set_result(function())
            except BaseException as error:  # else whoever waits would wait for ever
                result.set_exception(error)
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                loop.call_soon_threadsafe(self._free.release)

        try:
            threading.Thread(target=work, name="kong-ai-proxy-credentials", daemon=True).start()
        except RuntimeError:  # no more threads
            self._free.release()
            raise
        return await asyncio.wrap_future(result)
