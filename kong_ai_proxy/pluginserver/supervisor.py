"""The supervisor: owns a generation, and outlives the launcher that Kong kills.

    launcher ──control──▶ supervisor ──link──▶ worker, worker, ...

Each arrow is a socketpair whose end tells either side that the other is gone, SIGKILL included. The
supervisor runs in its own session. It listens, starts the workers (which inherit the listening
socket), starts those again that die, and keeps the instances that they share. It also tells other
nodes what its workers know of targets. It ends when the launcher is gone, on SIGTERM (both:
requests under way are finished first) and on SIGINT (at once).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import select
import signal
import socket
import sys
import time

from kong_ai_proxy.pluginserver import logs
from kong_ai_proxy.pluginserver.generation import (
    Listener,
    RelayShare,
    Settings,
    answers,
    start_process,
)
from kong_ai_proxy.pluginserver.sharing import Sharing
from kong_ai_proxy.pluginserver.store import Shelf, serve_link

KILL_SECONDS = 2.0
"""How long after its drain limit a worker that is still there is killed."""

_MAX_PAUSE = 5.0  # seconds before a worker that keeps dying is started again
_STEADY_SECONDS = 10.0  # a worker that lived this long died by chance
_START_ATTEMPTS = 3  # then a generation of which no worker ever served gives up
_FREE_PATH_LOOK = 0.005  # seconds; less than the shim waits before it asks once more
_PROGRAM = "kong_ai_proxy.pluginserver.worker"
_QUEUE_LOOKS = 100  # 10 ms apart, for the workers to take what waits in a withdrawn socket's queue

_log = logging.getLogger("kong_ai_proxy.pluginserver.supervisor")  # run with -m: not __main__


def main(argv: list[str]) -> int:
    """Run a generation: `argv` is its socket's path and the descriptor of the control socket; its
    settings come on stdin.

    Returns the exit status: 0 after a stop that was asked for, 1 when it cannot serve.
    """
    settings = Settings.from_json(sys.stdin.buffer.read())
    logs.configure(settings.log_level, "supervisor")
    with socket.socket(fileno=int(argv[1])) as control:
        return asyncio.run(_Supervisor(settings, control).run())


class _Worker:
    """One worker process and the supervisor's end of its link."""

    def __init__(
        self, settings: Settings, slot: int, listener: socket.socket, share: RelayShare
    ) -> None:
        self.slot = slot
        self.link, theirs = socket.socketpair()
        self.started = time.monotonic()
        self.ready = False
        with theirs:
            own = (listener, theirs, share.socket, share.once, share.targets)
            inherited = [each.fileno() for each in own]
            try:
                self._process = start_process(
                    _PROGRAM, settings, slot, *inherited, pass_fds=inherited
                )
            except OSError:
                self.link.close()
                raise

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def reap(self) -> int:
        """Wait for the process, whose link has ended; kill it if it stays. Its exit status."""
        limit = time.monotonic() + KILL_SECONDS
        while self._process.poll() is None:
            if time.monotonic() > limit:
                self._process.kill()
            await asyncio.sleep(0.01)
        return int(self._process.returncode)


class _Supervisor:
    def __init__(self, settings: Settings, control: socket.socket) -> None:
        self._settings = settings
        self._control = control
        self._shelf = Shelf()
        self._workers: set[_Worker] = set()
        self._stopping = asyncio.Event()
        self._served = False
        self._failures = 0  # workers that died in a row before they had served for long
        self._status = 0

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop, "SIGTERM")
        loop.add_signal_handler(signal.SIGINT, self._stop_at_once)
        loop.add_reader(self._control, self._launcher_gone)
        try:
            self._share = RelayShare(self._settings.workers)
        except OSError as error:
            _log.error("cannot listen on 127.0.0.1 for the relay: %s", error)
            return 1
        with contextlib.closing(self._share):
            try:
                self._listener = Listener(self._settings.socket)
            except OSError as error:
                _log.error("cannot listen on %s: %s", self._settings.socket, error)
                return 1
            with contextlib.closing(self._listener):
                return await self._serve_sharing()

    async def _serve_sharing(self) -> int:
        settings = self._settings
        if settings.redis is None:
            return await self._serve()
        sharing = Sharing(self._share.targets.memory, settings.redis, settings.relay.ca_file)
        sharing.start()
        try:
            return await self._serve()
        finally:
            await sharing.close()

    async def _serve(self) -> int:
        self._publish_if_free()
        publishing = asyncio.create_task(self._publish_once_free())
        keepers = [asyncio.create_task(self._keep(slot)) for slot in range(self._settings.workers)]
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait([stopping, *keepers], return_when=asyncio.FIRST_COMPLETED)
        self._stop("a task of the supervisor failed")
        publishing.cancel()
        await self._handed_over()
        await self._drain(keepers)
        for keeper in keepers:
            keeper.result()
        return self._status

    def _publish_if_free(self) -> None:
        """Whoever connects before the first worker serves waits in the queue, which is better than
        an error; but while a generation before still answers, it is the better one to ask."""
        if not answers(self._settings.socket):
            self._listener.publish()

    async def _publish_once_free(self) -> None:
        while not self._listener.published:
            await asyncio.sleep(_FREE_PATH_LOOK)
            if not self._listener.published:
                self._publish_if_free()

    async def _keep(self, slot: int) -> None:
        """Have one worker run, again and again, until the generation stops."""
        while not self._stopping.is_set():
            await self._run_worker(slot)
            if self._failures >= _START_ATTEMPTS and not self._served:
                self._status = 1
                self._stop("no worker could start")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pause()):
                    await self._stopping.wait()

    def _pause(self) -> float:
        return float(min(_MAX_PAUSE, 0.05 * 2 ** min(self._failures, 10)))

    async def _run_worker(self, slot: int) -> None:
        try:
            worker = _Worker(self._settings, slot, self._listener.socket, self._share)
        except OSError as error:
            self._failures += 1
            _log.error("cannot start a worker: %s", error)
            return
        self._workers.add(worker)
        try:
            await serve_link(worker.link, self._shelf, lambda: self._worker_ready(worker))
            status = await worker.reap()
        finally:
            self._workers.discard(worker)
            self._share.once.set_open(slot, False)  # nobody issues its tickets any more
            self._share.targets.memory.forget_worker(slot)
        if self._stopping.is_set():
            return
        lived = time.monotonic() - worker.started
        self._failures = 1 if worker.ready and lived > _STEADY_SECONDS else self._failures + 1
        _log.warning("a worker ended with status %d after %.1f s, starting another", status, lived)

    def _worker_ready(self, worker: _Worker) -> None:
        worker.ready = True
        if not self._listener.published and not self._stopping.is_set():
            self._listener.publish()
        if not self._served:
            self._served = True
            _log.info("serving on %s", self._settings.socket)

    def _launcher_gone(self) -> None:
        asyncio.get_running_loop().remove_reader(self._control)
        self._stop("the launcher is gone")

    def _stop(self, why: str) -> None:
        if not self._stopping.is_set():
            _log.info("stopping: %s", why)
            self._stopping.set()

    def _stop_at_once(self) -> None:
        self._stop("SIGINT")
        for worker in self._workers:
            worker.send(signal.SIGKILL)

    async def _handed_over(self) -> None:
        """Serve on until another generation has the path, at most the handover time.

        Kong's worker that leaves on a reload ends its server when it has no connections left, which
        may be before the server of the worker that replaces it can listen."""
        limit = time.monotonic() + self._settings.handover
        while self._served and self._workers and self._listener.in_place():
            if time.monotonic() > limit:
                return
            await asyncio.sleep(0.01)

    async def _drain(self, keepers: list[asyncio.Task[None]]) -> None:
        """Let the workers finish, at most the drain limit, and end them.

        The path goes first and the queue is emptied before any worker stops accepting, so a
        connection that Kong has made is not reset."""
        self._listener.withdraw()
        await self._queue_taken()
        for worker in self._workers:
            worker.send(signal.SIGTERM)
        await asyncio.wait(keepers, timeout=self._settings.drain + KILL_SECONDS)
        for worker in self._workers:
            worker.send(signal.SIGKILL)
        await asyncio.wait(keepers)

    async def _queue_taken(self) -> None:
        poll = select.poll()
        poll.register(self._listener.socket, select.POLLIN)
        for _ in range(_QUEUE_LOOKS):
            if not (self._served and self._workers and poll.poll(0)):
                return
            await asyncio.sleep(0.01)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
