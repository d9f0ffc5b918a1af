"""A plugin server started as Kong starts one from `pluginserver_NAME_start_cmd`."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Mapping
from pathlib import Path

_RESTART_SECONDS = 1.0  # Kong: at most one start a second
_TERM_SECONDS = 5.0
_USAGE = 2


class StartError(RuntimeError):
    """A plugin server that does not listen; the text has the last lines it wrote."""


class ManagedServer:
    """Keeps one plugin server running until `stop`.

    Like Kong it runs the command through the shell, starts it again when it dies, and writes its
    output into the log. `env` is all it sees of the environment: nothing, as with Kong, unless it
    is given, which is what `nginx_main_env` does there.
    """

    def __init__(
        self,
        name: str,
        start_cmd: str,
        path: Path,
        log: Callable[[str], None],
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.socket = path
        self._command = f"exec {start_cmd}"
        self._log = log
        self._env = dict(env or {})
        self._last_lines: list[str] = []
        self._process: asyncio.subprocess.Process | None = None
        self._refuses = False
        self._keeper: asyncio.Task[None] | None = None

    async def start(self, seconds: float = 30.0) -> None:
        """Start it and wait until its socket accepts.

        Raises StartError after `seconds`, or when the command refuses its options (status 2, as of
        argparse), which another start would not change.
        """
        self._keeper = asyncio.create_task(self._keep())
        try:
            async with asyncio.timeout(seconds):
                while not self._accepts():
                    if self._refuses:
                        await self.stop()
                        said = next(reversed(self._last_lines), "it wrote nothing")
                        raise StartError(f"{self.name} refuses its options: {said}")
                    await asyncio.sleep(0.02)
        except TimeoutError as error:
            await self.stop()
            said = "\n".join(self._last_lines) or "it wrote nothing"
            message = f"{self.name}: nothing listens on {self.socket} after {seconds:g} s: {said}"
            raise StartError(message) from error

    def _accepts(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.socket)) == 0

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            started = loop.time()
            self._process = await asyncio.create_subprocess_exec(
                *("/bin/sh", "-c", self._command),
                env=self._env,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,  # a terminal's Ctrl-C is ours; the server is ended in order
            )
            await self._read_output(self._process)
            status = await self._process.wait()
            self._refuses = status == _USAGE
            self._log(f"[notice] external pluginserver '{self.name}' terminated: exit {status}")
            await asyncio.sleep(max(0.0, started + _RESTART_SECONDS - loop.time()))

    async def _read_output(self, process: asyncio.subprocess.Process) -> None:
        """Until the process ends: its children may keep the pipe open for longer."""
        assert process.stdout is not None
        reading = asyncio.ensure_future(self._read_lines(process.stdout))
        ending = asyncio.ensure_future(process.wait())
        try:
            await asyncio.wait({reading, ending}, return_when=asyncio.FIRST_COMPLETED)
            await ending
        finally:
            reading.cancel()
            ending.cancel()
            await asyncio.gather(reading, ending, return_exceptions=True)

    async def _read_lines(self, output: asyncio.StreamReader) -> None:
        while True:
            try:
                line = await output.readline()
            except ValueError:  # a line longer than asyncio's limit: it is dropped
                continue
            if not line:
                return
            text = line.decode(errors="replace").rstrip()
            self._last_lines = [*self._last_lines[-19:], text]
            self._log(f"[info] [{self.name}] {text}")

    async def stop(self) -> None:
        """End it: SIGTERM, and SIGKILL if it is still there after five seconds."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(_TERM_SECONDS):
                await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
