"""`kong-ai-proxy serve` as Kong starts it, with the packaged plugins."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil

from tests.unit.pluginserver.kong import Kong
from tests.unit.pluginserver.processes import alive, wait_until

MEGABYTE = 1024 * 1024


def test_one_socket_serves_both_plugins_within_the_memory_of_a_worker(tmp_path: Path) -> None:
    path = tmp_path / "s"
    command = [sys.executable, "-P", "-m", "kong_ai_proxy", "serve", "--socket", str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, env={}, cwd="/") as launcher:
        wait_until(path.exists, "the path is taken")
        with Kong(path) as kong:
            numbers = {
                kong.start_instance(plugin=name) for name in ("ai-proxy", "ai-proxy-advanced")
            }
        processes = psutil.Process(launcher.pid).children(recursive=True)
        assert len(numbers) == 2
        assert max(process.memory_info().rss for process in processes) < 80 * MEGABYTE
        launcher.terminate()
    assert launcher.returncode == 0
    assert not alive(processes)
    assert not path.exists()
