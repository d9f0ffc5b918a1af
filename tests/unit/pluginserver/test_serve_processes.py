"""The processes of `kong-ai-proxy serve`: who ends when, and what Kong's side sees of it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from kong_ai_proxy.pluginserver.generation import Listener, Settings, start_process
from kong_ai_proxy.pluginserver.worker import ORPHAN_SECONDS
from tests.unit.pluginserver.kong import DEADLINE, ConnectionClosedError, Kong
from tests.unit.pluginserver.processes import PROBE, Serve, alive, command, wait_until

ENDS = 20.0
"""Seconds within which all processes have ended when nothing is under way. It takes a tenth of a
second; a busy machine takes its time, but not the 600 s of a drain."""
HANDED_OVER = 4.0
"""Seconds more when Kong started them, for the next generation to take the path."""

Start = Callable[..., Serve]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s"


@pytest.fixture
def start(path: Path) -> Iterator[Start]:
    """Start a generation at `path`; whatever is left of any is ended after the test."""
    started: list[Serve] = []

    def start(*options: str, **popen: Any) -> Serve:
        started.append(Serve(path, *options, **popen))
        return started[-1]

    yield start
    for serve in started:
        serve.end()


def ended(serve: Serve, seconds: float = ENDS) -> None:
    """Wait until all of its processes have ended, and reap the launcher."""
    wait_until(lambda: not alive(serve.processes), "all processes ended", seconds)
    serve.launcher.wait()


class TestServing:
    def test_several_workers_share_one_socket_and_its_instances(self, start: Start) -> None:
        serve = start("--workers", "2").wait(2)
        with serve.connect() as first:
            instance = first.start_instance("a")
        served: set[int] = set()
        connections = []
        while len(served) < 2:
            connections.append(serve.connect())
            assert len(connections) < 200
            pid, note = connections[-1].event(instance)
            assert note == "a"
            served.add(pid)
        for connection in connections:
            connection.socket.close()
        assert served == {worker.pid for worker in serve.workers}

    def test_the_socket_is_for_its_owner_only(self, start: Start, path: Path) -> None:
        start("--workers=1").wait(1)
        found = path.stat()
        assert stat.S_IMODE(found.st_mode) == 0o600
        assert found.st_uid == os.geteuid()
        assert [file.name for file in path.parent.iterdir()] == [path.name]

    def test_supervisor_and_workers_are_in_a_session_of_their_own(self, start: Start) -> None:
        serve = start("--workers=1").wait(1)
        sessions = [os.getsid(process.pid) for process in serve.processes]
        assert sessions == [os.getsid(0), serve.supervisor.pid, serve.supervisor.pid]

    def test_an_empty_environment_is_enough(self, start: Start) -> None:
        serve = start("--workers=1", env={}, cwd="/").wait(1)
        with serve.connect() as kong:
            assert kong.event(kong.start_instance("a"))[1] == "a"

    def test_msgpack_has_one_worker(self, start: Start) -> None:
        serve = start("--protocol=msgpack", "--workers=3", stderr=subprocess.DEVNULL).wait(1)
        serve.refresh()
        assert len(serve.workers) == 1

    @pytest.mark.parametrize("stream", ["reader gone", "closed"])
    def test_a_broken_stdout_hurts_nothing(self, start: Start, stream: str) -> None:
        if stream == "closed":
            serve = start("--log-level=debug", preexec_fn=lambda: os.closerange(0, 3), stdin=None)
        else:
            serve = start(
                "--log-level=debug", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0
            )
            assert serve.launcher.stdout
            serve.launcher.stdout.close()
        serve.wait(2)
        serve.workers[0].kill()
        with serve.connect() as kong:
            assert kong.event(kong.start_instance("a"))[1] == "a"
        wait_until(lambda: len(alive(serve.refresh())) == 2, "another worker")

    def test_a_stdout_that_nobody_reads_blocks_nothing(self, start: Start) -> None:
        reader, writer = os.pipe()
        serve = start("--workers=1", stdout=writer, stderr=writer).wait(1)
        fill(writer)
        os.close(writer)
        serve.workers[0].kill()  # which is logged
        with serve.connect() as kong:
            assert kong.event(kong.start_instance("a"))[1] == "a"
        serve.refresh()
        serve.launcher.terminate()
        ended(serve)
        os.close(reader)

    def test_what_is_logged_reaches_kongs_pipe(self, start: Start, path: Path) -> None:
        serve = start("--workers=1", stdout=subprocess.PIPE, stderr=subprocess.STDOUT).wait(1)
        serve.launcher.terminate()
        said, _ = serve.launcher.communicate()
        assert f"INFO kong_ai_proxy.pluginserver.supervisor: serving on {path}" in said.decode()
        assert "stopping: SIGTERM" in said.decode()


class TestEnds:
    def test_with_nothing_under_way_all_end_at_once_when_kong_kills_the_launcher(
        self, start: Start, path: Path
    ) -> None:
        serve = start().wait()
        with serve.connect() as idle:
            idle.event(idle.start_instance())
            serve.launcher.kill()
            ended(serve)
            with pytest.raises(ConnectionClosedError, match="after 0 of 4 bytes"):
                idle.read_frame()
        assert not path.exists()

    def test_an_event_under_way_finishes_when_kong_kills_the_launcher(
        self, start: Start, path: Path
    ) -> None:
        serve = start().wait()
        with serve.connect() as kong:
            kong.begin(kong.start_instance("a"))
            serve.launcher.kill()
            wait_until(lambda: not path.exists(), "the path is given up")
            assert kong.finish()[1] == "a"
        ended(serve)

    def test_kongs_pipe_ends_with_the_launcher_though_an_event_is_under_way(
        self, start: Start
    ) -> None:
        serve = start(stdout=subprocess.PIPE, stderr=subprocess.STDOUT).wait()
        with serve.connect() as kong:
            kong.begin(kong.start_instance("a"))
            serve.launcher.kill()
            serve.launcher.communicate(timeout=ENDS)  # Kong starts the next one after this
            assert kong.finish()[1] == "a"

    def test_a_crash_of_kong_ends_all_when_the_next_one_had_its_time(self, start: Start) -> None:
        serve = start(stdin=subprocess.PIPE).wait()
        assert serve.launcher.stdin
        began = time.monotonic()
        serve.launcher.stdin.close()
        ended(serve, HANDED_OVER + ENDS)
        assert time.monotonic() - began >= HANDED_OVER
        assert serve.launcher.returncode == 0

    def test_a_crash_of_kong_is_seen_though_another_process_holds_the_pipe(
        self, path: Path
    ) -> None:
        reader, writer = os.pipe()
        program = f"import subprocess; subprocess.run({command(path, '--workers=1')!r})"
        with subprocess.Popen([sys.executable, "-c", program], stdin=reader) as kong:
            wait_until(path.exists, "the path is taken")
            with Kong(path) as connection:
                connection.event(connection.start_instance())
            processes = psutil.Process(kong.pid).children(recursive=True)
            kong.kill()
            wait_until(lambda: not alive(processes), "all processes ended", HANDED_OVER + ENDS)
        os.close(reader)
        os.close(writer)

    def test_a_stdin_that_was_closed_before_ends_nothing(self, start: Start) -> None:
        reader, writer = os.pipe()
        os.close(writer)
        serve = start("--workers=1", stdin=reader).wait(1)
        os.close(reader)
        with serve.connect() as kong:
            assert kong.event(kong.start_instance("a"))[1] == "a"

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_signal_lets_events_finish_and_the_launcher_waits_for_them(
        self, start: Start, path: Path, number: signal.Signals
    ) -> None:
        serve = start().wait()
        with serve.connect() as kong:
            kong.begin(kong.start_instance("a"))
            serve.launcher.send_signal(number)
            wait_until(lambda: not path.exists(), "the path is given up")
            assert serve.launcher.poll() is None
            assert kong.finish()[1] == "a"
        ended(serve)
        assert serve.launcher.returncode == 0

    def test_a_second_sigint_ends_all_at_once(self, start: Start, path: Path) -> None:
        serve = start().wait()
        with serve.connect() as kong:
            kong.begin(kong.start_instance("a"))
            serve.launcher.send_signal(signal.SIGINT)
            wait_until(lambda: not path.exists(), "the path is given up")
            serve.launcher.send_signal(signal.SIGINT)
            ended(serve)
            with pytest.raises(ConnectionClosedError, match="after 0 of 4 bytes"):
                kong.read_frame()

    def test_the_drain_limit_is_honoured(self, start: Start) -> None:
        serve = start("--drain=0.5").wait()
        with serve.connect() as kong:
            kong.begin(kong.start_instance("a"))
            began = time.monotonic()
            serve.launcher.terminate()
            ended(serve, 0.5 + ENDS)
            assert time.monotonic() - began >= 0.5

    def test_workers_and_launcher_end_with_the_supervisor(self, start: Start) -> None:
        serve = start().wait()
        with serve.connect() as kong:
            kong.begin(kong.start_instance("a"))
            serve.supervisor.kill()
            ended(serve, ORPHAN_SECONDS + ENDS)
        assert serve.launcher.returncode == 128 + signal.SIGKILL

    def test_plugins_that_do_not_load_end_it_with_a_status(self, tmp_path: Path) -> None:
        (tmp_path / "broken.py").write_text("raise ImportError('no such thing')")
        done = subprocess.run(
            command(tmp_path / "s", "--workers=1", plugins=tmp_path),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 1
        assert "no such thing" in done.stderr
        assert "no worker could start" in done.stderr
        assert not (tmp_path / "s").exists()


class TestWorkersThatDie:
    def test_another_serves_and_the_queue_is_not_reset(self, start: Start) -> None:
        serve = start("--workers=1").wait(1)
        with serve.connect() as kong:
            instance = kong.start_instance("a")
        dead = serve.workers[0]
        dead.suspend()
        with serve.connect() as queued:
            queued.ask(instance)
            dead.kill()
            queued.wait_for_getter()
            pid, note = queued.finish()
        assert pid != dead.pid
        assert note == "a"

    def test_killed_before_its_event_the_next_one_answers(self, start: Start) -> None:
        serve = start("--workers=1").wait(1)
        with serve.connect() as kong:
            instance = kong.start_instance("a")
            serve.workers[0].kill()
            with pytest.raises(
                ConnectionClosedError, match=re.escape("after 0 of 4 bytes") + "|on writing"
            ):
                kong.begin(instance)
        with serve.connect() as again:
            assert again.event(instance)[1] == "a"

    def test_killed_during_its_event_kong_sees_a_closed_connection(self, start: Start) -> None:
        serve = start("--workers=1").wait(1)
        with serve.connect() as kong:
            instance = kong.start_instance("a")
            kong.begin(instance)
            serve.workers[0].kill()
            serve.workers[0].wait()
            with pytest.raises(
                ConnectionClosedError, match=re.escape("after 0 of 4 bytes") + "|on writing"
            ):
                kong.finish()
        with serve.connect() as again:
            assert again.event(instance)[1] == "a"

    def test_killed_after_its_event_the_answer_was_whole(self, start: Start) -> None:
        serve = start("--workers=1").wait(1)
        with serve.connect() as kong:
            instance = kong.start_instance("a")
            assert kong.event(instance)[1] == "a"
            serve.workers[0].kill()
            with pytest.raises(ConnectionClosedError, match="after 0 of 4 bytes"):
                kong.read_frame()
        with serve.connect() as again:
            assert again.event(instance)[1] == "a"

    def test_the_supervisor_keeps_nothing_of_them(self, start: Start) -> None:
        serve = start("--workers=1").wait(1)
        before = serve.supervisor.num_fds()
        for _ in range(3):
            dead = alive(serve.workers)[0]
            dead.kill()
            with serve.connect() as kong:
                assert kong.event(kong.start_instance("a"))[0] != dead.pid
            serve.refresh()
        assert serve.supervisor.num_fds() == before
        assert len(serve.supervisor.children()) == 1


class TestGenerations:
    def test_they_overlap_on_one_path(self, start: Start, path: Path) -> None:
        older = start().wait()
        with older.connect() as kong:
            instance = kong.start_instance("a")
            kong.begin(instance)
            inode = path.stat().st_ino
            newer = start().wait()
            wait_until(lambda: path.stat().st_ino != inode, "the newer takes the path")
            older.launcher.kill()
            with Kong(path) as new:
                assert new.event(new.start_instance("b"))[0] in pids(newer)
            assert kong.finish() in [(pid, "a") for pid in pids(older)]
        ended(older)
        with Kong(path) as new:
            assert new.event(new.start_instance("b"))[0] in pids(newer)
        newer.launcher.terminate()
        ended(newer)
        assert not list(path.parent.iterdir())

    def test_the_older_serves_until_the_newer_can(self, start: Start, path: Path) -> None:
        older = start("--workers=1").wait(1)
        newer = start("--workers=1")
        with older.connect() as kong:
            instance = kong.start_instance("a")
        inode = path.stat().st_ino
        while path.stat().st_ino == inode:
            with Kong(path) as kong:
                try:
                    assert kong.event(instance)[1] == "a"
                except LookupError:
                    assert path.stat().st_ino != inode  # the newer does not know it: Kong restarts
        newer.wait(1)

    def test_a_newer_one_that_cannot_start_takes_no_path(
        self, start: Start, path: Path, tmp_path: Path
    ) -> None:
        older = start("--workers=1").wait(1)
        inode = path.stat().st_ino
        empty = tmp_path / "empty"
        empty.mkdir()
        done = subprocess.run(
            command(path, "--workers=1", plugins=empty),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        assert done.returncode == 1
        assert path.stat().st_ino == inode
        assert sorted(path.parent.iterdir()) == [empty, path]
        with older.connect() as kong:
            assert kong.event(kong.start_instance("a"))[1] == "a"

    def test_a_stale_socket_is_replaced_before_any_worker_serves(
        self, start: Start, path: Path
    ) -> None:
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(path))
        inode = path.stat().st_ino
        serve = start("--workers=1")
        wait_until(lambda: path.exists() and path.stat().st_ino != inode, "the path is taken")
        with Kong(path) as kong:  # waits in the queue
            assert kong.event(kong.start_instance("a"))[1] == "a"
        serve.wait(1)

    def test_ten_leave_nothing_behind(self, start: Start, path: Path) -> None:
        here = psutil.Process()
        before = (here.num_fds(), here.children(recursive=True))
        for number in range(10):
            serve = start("--workers=1").wait(1)
            with serve.connect() as kong:
                assert kong.event(kong.start_instance(str(number)))[1] == str(number)
            serve.launcher.kill()
            ended(serve)
        assert (here.num_fds(), here.children(recursive=True)) == before
        assert not list(path.parent.iterdir())


class TestTheOneBeforeEndsFirst:
    """Kong's old worker may end, and its server with it, before the new worker's can listen."""

    def test_it_serves_on_until_another_takes_the_path(self, path: Path) -> None:
        with supervisor(path, handover=DEADLINE) as older:
            older.logs("serving on")
            with Kong(path) as kong:
                instance = kong.start_instance("a")
            older.stop()
            with Kong(path) as kong:
                assert kong.event(instance)[1] == "a"
            newer = Listener(str(path))
            inode = path.stat().st_ino
            newer.publish()
            older.process.communicate(timeout=DEADLINE / 2)
            assert older.process.returncode == 0
            assert path.exists()
            assert path.stat().st_ino != inode
            newer.close()

    def test_it_gives_the_path_up_when_there_is_no_other(self, path: Path) -> None:
        with supervisor(path, handover=0.1) as older:
            older.logs("serving on")
            older.stop()
            older.process.communicate(timeout=DEADLINE)
            assert older.process.returncode == 0
        assert not list(path.parent.iterdir())

    def test_sigint_ends_it_at_once(self, path: Path) -> None:
        with supervisor(path, handover=DEADLINE) as older:
            older.logs("serving on")
            older.stop()
            older.process.send_signal(signal.SIGINT)
            older.process.communicate(timeout=DEADLINE / 2)
        assert not path.exists()

    def test_the_next_takes_a_path_that_becomes_free_before_any_of_its_workers_serves(
        self, path: Path, tmp_path: Path
    ) -> None:
        older = Listener(str(path))
        older.publish()
        inode = path.stat().st_ino
        gate, folder = tmp_path / "gate", tmp_path / "plugins"
        os.mkfifo(gate)
        folder.mkdir()
        waits = f"\nopen({str(gate)!r}).read()\n"
        (folder / "probe.py").write_text((PROBE / "probe.py").read_text() + waits)
        with supervisor(path, plugins=folder):
            with gate.open("w"):  # returns when the worker loads its plugins
                assert path.stat().st_ino == inode
                older.close()
                wait_until(path.exists, "the path is taken")
                kong = Kong(path)
            with kong:
                assert kong.event(kong.start_instance("a"))[1] == "a"


class Supervisor:
    """A supervisor whose launcher is the test."""

    def __init__(self, settings: Settings) -> None:
        self._control, theirs = socket.socketpair()
        with theirs:
            self.process = start_process(
                "kong_ai_proxy.pluginserver.supervisor",
                settings,
                theirs.fileno(),
                pass_fds=[theirs.fileno()],
                stderr=subprocess.PIPE,
            )

    def logs(self, text: str) -> None:
        """Wait until it logs `text`."""
        assert self.process.stderr
        assert any(text.encode() in line for line in self.process.stderr), f"never said: {text}"

    def stop(self) -> None:
        self.process.terminate()
        self.logs("stopping: SIGTERM")

    def end(self) -> None:
        self._control.close()
        self.process.send_signal(signal.SIGINT)
        self.process.communicate(timeout=DEADLINE)


@contextlib.contextmanager
def supervisor(path: Path, *, handover: float = 0, plugins: Path = PROBE) -> Iterator[Supervisor]:
    started = Supervisor(Settings(str(path), workers=1, handover=handover, plugins=str(plugins)))
    try:
        yield started
    finally:
        started.end()


def fill(pipe: int) -> None:
    """Write to a pipe until it takes no more, and leave it blocking."""
    os.set_blocking(pipe, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(pipe, b"x" * 4096)
    os.set_blocking(pipe, True)


def pids(serve: Serve) -> set[int]:
    return {worker.pid for worker in serve.workers}
