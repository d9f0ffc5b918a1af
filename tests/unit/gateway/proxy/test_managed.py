"""Plugin servers started as Kong starts them."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import sys
from pathlib import Path

import pytest

from kong_ai_proxy.gateway.managed import ManagedServer, StartError
from tests.unit.gateway.proxy.support import until

_SERVER = """
import os, socket, sys
print("environment:", sorted(set(os.environ) - {"PWD", "SHLVL", "_", "LC_CTYPE"}), flush=True)
path = sys.argv[1]
if os.path.exists(path):
    os.unlink(path)
sock = socket.socket(socket.AF_UNIX)
sock.bind(path)
sock.listen()
print("pid", os.getpid(), flush=True)
while True:
    sock.accept()[0].close()
"""


def _command(program: str, *arguments: object) -> str:
    return shlex.join([sys.executable, "-S", "-c", program, *map(str, arguments)])


def _pids(log: list[str]) -> list[int]:
    return [int(line.split()[-1]) for line in log if "] pid " in line]


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_it_runs_without_kongs_environment_and_its_output_is_logged(tmp_path: Path) -> None:
    log: list[str] = []
    path = tmp_path / "p.sock"
    server = ManagedServer("ai-proxy", _command(_SERVER, path), path, log.append)
    await server.start()
    try:
        await until(lambda: _pids(log))
        assert "[info] [ai-proxy] environment: []" in log
    finally:
        await server.stop()
    assert not _alive(_pids(log)[0])


async def test_it_sees_the_variables_that_it_is_given(tmp_path: Path) -> None:
    log: list[str] = []
    path = tmp_path / "p.sock"
    env = {"KONG_AI_PROXY_TIME_BUDGET": "20"}
    server = ManagedServer("ai-proxy", _command(_SERVER, path), path, log.append, env)
    await server.start()
    try:
        await until(lambda: _pids(log))
        assert "[info] [ai-proxy] environment: ['KONG_AI_PROXY_TIME_BUDGET']" in log
    finally:
        await server.stop()


async def test_it_is_started_again_when_it_dies(tmp_path: Path) -> None:
    log: list[str] = []
    path = tmp_path / "p.sock"
    server = ManagedServer("ai-proxy", _command(_SERVER, path), path, log.append)
    await server.start()
    try:
        await until(lambda: _pids(log))
        os.kill(_pids(log)[0], signal.SIGKILL)
        await until(lambda: len(_pids(log)) == 2)
        assert any("terminated" in line for line in log)
    finally:
        await server.stop()


async def test_a_server_that_never_listens_is_an_error_with_its_words(tmp_path: Path) -> None:
    program = "print('no such setting'); import time; time.sleep(60)"
    program = "import sys; " + program.replace(";", "; sys.stdout.flush();", 1)
    server = ManagedServer("ai-proxy", _command(program), tmp_path / "p.sock", lambda _: None)
    with pytest.raises(StartError, match=r"ai-proxy: nothing listens on .*: no such setting"):
        await server.start(seconds=1.0)


async def test_a_server_that_refuses_its_options_is_an_error_at_once(tmp_path: Path) -> None:
    program = "import sys; print('no such option', flush=True); sys.exit(2)"
    server = ManagedServer("ai-proxy", _command(program), tmp_path / "p.sock", lambda _: None)
    async with asyncio.timeout(10):
        with pytest.raises(StartError, match="ai-proxy refuses its options: no such option"):
            await server.start()


async def test_a_server_that_ignores_sigterm_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kong_ai_proxy.gateway.managed._TERM_SECONDS", 0.05)
    log: list[str] = []
    path = tmp_path / "p.sock"
    program = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + _SERVER
    server = ManagedServer("ai-proxy", _command(program, path), path, log.append)
    await server.start()
    await until(lambda: _pids(log))
    await server.stop()
    assert not _alive(_pids(log)[0])
