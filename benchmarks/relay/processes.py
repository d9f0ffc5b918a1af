"""The processes of a run: started, watched and ended by the harness."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

import orjson
import psutil

from benchmarks import resident
from benchmarks.relay import pinned
from benchmarks.relay.load import Job, Slice

ROOT = Path(__file__).parents[2]
FIRST_CORE, LAST_CORE = pinned.CORES[0], pinned.CORES[-1]
"""The system measured has the first; everything else has the last."""


@contextmanager
def child(
    module: str, core: int, *arguments: object, descriptor: int | None = None
) -> Iterator[subprocess.Popen[str]]:
    """`python -m benchmarks.relay.MODULE`, until the context ends."""
    process = subprocess.Popen(
        [sys.executable, "-m", f"benchmarks.relay.{module}", *map(str, (core, *arguments))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        pass_fds=() if descriptor is None else (descriptor,),
    )
    try:
        yield process
    finally:
        _pipe(process.stdin).close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        _pipe(process.stdout).close()


def _pipe(file: IO[str] | None) -> IO[str]:
    assert file is not None
    return file


def printed(process: subprocess.Popen[str]) -> str:
    """The next line that a child prints. Raises RuntimeError when it ends instead."""
    line = _pipe(process.stdout).readline()
    if not line:
        raise RuntimeError(f"{process.args!r} ended; its error is above")
    return line


class System:
    """A process that is measured."""

    def __init__(self, name: str, process: subprocess.Popen[str], *, ticketed: bool) -> None:
        self.name = name
        self.port = int(printed(process))
        self.ticketed = ticketed
        self._process = psutil.Process(process.pid)

    def cpu(self) -> float:
        """Seconds of CPU it has used."""
        times = self._process.cpu_times()
        return float(times.user + times.system)

    def rss(self) -> float:
        """Resident memory in MB."""
        return resident.now(self._process.pid)

    def forget_peak(self) -> None:
        """Let `peak` count from now (Linux)."""
        resident.forget_peak(self._process.pid)

    def peak(self) -> float:
        """The most resident memory in MB; what it is now where the system does not tell."""
        return resident.peak(self._process.pid)


@contextmanager
def system(
    name: str, module: str, *arguments: object, descriptor: int | None = None
) -> Iterator[System]:
    """A system on the first core. One that gets the tickets' memory wants tickets."""
    with child(module, FIRST_CORE, *arguments, descriptor=descriptor) as process:
        yield System(name, process, ticketed=descriptor is not None)


@dataclass(frozen=True)
class Load:
    """The client's process."""

    process: subprocess.Popen[str]

    def do(self, job: Job) -> Slice:
        """Have a job done. Raises RuntimeError when it failed."""
        pipe = _pipe(self.process.stdin)
        pipe.write(orjson.dumps(asdict(job)).decode() + "\n")
        pipe.flush()
        found = Slice(**orjson.loads(printed(self.process)))
        if found.error:
            raise RuntimeError(found.error)
        return found
