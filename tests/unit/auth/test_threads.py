"""Libraries that block do so away from the event loop, a few at a time."""

from __future__ import annotations

import asyncio
import threading

import pytest

from kong_ai_proxy.auth.tokens.threads import Threads


async def test_the_event_loop_goes_on_meanwhile() -> None:
    go = threading.Event()
    running = asyncio.create_task(Threads().run(go.wait))
    await asyncio.sleep(0)
    assert not running.done()
    go.set()
    assert await running


async def test_what_a_call_raises_is_raised() -> None:
    def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await Threads().run(fail)


async def test_a_call_that_hangs_keeps_its_place_and_no_other() -> None:
    threads, go, second = Threads(limit=2), threading.Event(), threading.Event()
    hanging = asyncio.create_task(threads.run(go.wait))
    await asyncio.sleep(0)
    hanging.cancel()
    with pytest.raises(asyncio.CancelledError):
        await hanging
    assert await threads.run(lambda: 1) == 1
    third = [asyncio.create_task(threads.run(second.wait)) for _ in range(2)]
    for _ in range(3):
        await asyncio.sleep(0)
    assert threads._free.locked()
    second.set()
    assert await asyncio.gather(*third) == [True, True]
    go.set()


async def test_a_call_may_end_after_the_loop(caplog: pytest.LogCaptureFixture) -> None:
    go, ended = threading.Event(), threading.Event()

    def late() -> None:
        go.wait()

    def in_its_own_loop() -> None:
        async def leave() -> None:
            asyncio.create_task(Threads().run(late))  # noqa: RUF006
            await asyncio.sleep(0)

        asyncio.run(leave())
        ended.set()

    before = set(threading.enumerate())
    other = threading.Thread(target=in_its_own_loop)
    other.start()
    await asyncio.to_thread(ended.wait)
    other.join()
    mine = [t for t in set(threading.enumerate()) - before if t.name.startswith("kong-ai-proxy")]
    go.set()
    assert len(mine) == 1
    await asyncio.to_thread(mine[0].join)
    assert caplog.records == []
