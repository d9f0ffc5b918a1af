"""`kong-ai-proxy serve` as really started processes, with the probe in place of the plugins."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from tests.unit.pluginserver.kong import DEADLINE, Kong

PROBE = Path(__file__).parent / "plugins"


def command(path: Path, *options: str, plugins: Path = PROBE) -> list[str]:
    """`kong-ai-proxy serve` with other plugins than the packaged ones."""
    program = (
        "import sys; from kong_ai_proxy.pluginserver.serve import main; "
        f"sys.exit(main(sys.argv[1:], plugins={str(plugins)!r}))"
    )
    return [sys.executable, "-c", program, "--socket", str(path), *options]


def wait_until(condition: Callable[[], object], what: str, seconds: float = DEADLINE) -> None:
    """Wait for a condition; AssertionError when it does not come within `seconds`."""
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, f"not within {seconds} s: {what}"
        time.sleep(0.01)


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that still run; a zombie does not."""
    return [process for process in processes if _runs(process)]


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


class Serve:
    """One generation."""

    def __init__(self, path: Path, *options: str, **popen: Any) -> None:
        self.path = path
        self.launcher = subprocess.Popen(
            command(path, *options),
            **{"stdin": subprocess.DEVNULL, **popen},
        )
        self.processes: list[psutil.Process] = [psutil.Process(self.launcher.pid)]

    def wait(self, workers: int = 2) -> Serve:
        """Wait until it serves with as many workers."""
        wait_until(lambda: self._all_ready(workers), "all workers serve")
        return self

    def _all_ready(self, workers: int) -> bool:
        assert self.launcher.poll() is None, f"ended with status {self.launcher.returncode}"
        self.processes = [self.processes[0], *self.processes[0].children(recursive=True)]
        return len(self.processes) == workers + 2 and all(map(_listens, self.workers))

    @property
    def supervisor(self) -> psutil.Process:
        return self.processes[1]

    @property
    def workers(self) -> list[psutil.Process]:
        return self.processes[2:]

    def refresh(self) -> list[psutil.Process]:
        """All workers that were ever seen, with those that were started since."""
        found = self.supervisor.children(recursive=True)
        known = {process.pid for process in self.processes}
        self.processes += [process for process in found if process.pid not in known]
        return self.workers

    def end(self) -> None:
        """Whatever is left of it, at once."""
        for process in alive(self.processes):
            with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended by itself
                process.kill()
        self.launcher.wait()
        for stream in (self.launcher.stdin, self.launcher.stdout, self.launcher.stderr):
            if stream:
                stream.close()

    def connect(self) -> Kong:
        return Kong(self.path)


def _listens(worker: psutil.Process) -> bool:
    """Whether it has its event loop: it is past loading its plugins when SIGTERM is handled."""
    try:
        status = Path(f"/proc/{worker.pid}/status").read_text()
    except OSError:
        return False
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) & 1 << 14)
