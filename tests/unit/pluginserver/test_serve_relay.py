"""The relay's part in the processes of `kong-ai-proxy serve`: tickets, the port, and the end."""

from __future__ import annotations

import base64
import http.client
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from kong_ai_proxy.pluginserver.worker import ORPHAN_SECONDS
from kong_ai_proxy.relay.once import SECRET_BYTES
from kong_ai_proxy.relay.ticket import HEADER
from tests.unit.pluginserver.kong import DEADLINE
from tests.unit.pluginserver.processes import Serve, alive, wait_until

ENDS = 20.0
"""Seconds within which all processes have ended when nothing is under way. It takes a tenth of a
second; a busy machine takes its time, but not the 600 s of a drain."""
HONOURED = 500
"""The probe has no plan, so this is what a request with a valid ticket gets."""
REFUSED = 403

Start = Callable[..., Serve]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a generation; whatever is left of any is ended after the test."""
    started: list[Serve] = []

    def start(*options: str, **popen: Any) -> Serve:
        started.append(Serve(tmp_path / "s", *options, **popen))
        return started[-1]

    yield start
    for serve in started:
        serve.end()


def ask(port: int, ticket: str) -> int:
    """The status with which the relay answers the request that the ticket is for."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
    try:
        connection.request("GET", "/", headers={HEADER: ticket})
        return connection.getresponse().status
    finally:
        connection.close()


def ticket_of(serve: Serve) -> tuple[int, str]:
    with serve.connect() as kong:
        return kong.ticket()


def ended(serve: Serve, seconds: float = ENDS) -> None:
    wait_until(lambda: not alive(serve.processes), "all processes ended", seconds)
    serve.launcher.wait()


def stays(serve: Serve, seconds: float = 0.5) -> None:
    """That it serves on for so long."""
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        assert len(alive(serve.workers)) == len(serve.workers)
        time.sleep(0.05)


class TestTickets:
    def test_a_ticket_is_honoured_once(self, start: Start) -> None:
        port, ticket = ticket_of(start().wait())
        assert [ask(port, ticket) for _ in range(3)] == [HONOURED, REFUSED, REFUSED]

    def test_a_ticket_is_honoured_once_by_all_workers(self, start: Start) -> None:
        serve = start("--workers=2").wait(2)
        tickets = [ticket_of(serve) for _ in range(20)]
        answers: list[list[int]] = [[] for _ in tickets]

        def replay() -> None:
            for (port, ticket), statuses in zip(tickets, answers, strict=True):
                statuses.append(ask(port, ticket))

        replays = [threading.Thread(target=replay) for _ in range(4)]
        for thread in replays:
            thread.start()
        for thread in replays:
            thread.join()
        assert [sorted(statuses) for statuses in answers] == [[REFUSED] * 3 + [HONOURED]] * 20

    def test_another_generation_honours_none(self, start: Start) -> None:
        older = start("--workers=1").wait(1)
        port, ticket = ticket_of(older)
        newer = start("--workers=1").wait(1)
        wait_until(lambda: ticket_of(newer)[0] != port, "the newer takes the path")
        assert ask(ticket_of(newer)[0], ticket) == REFUSED
        assert ask(port, ticket) == HONOURED

    def test_a_worker_that_died_leaves_its_tickets_to_the_next(self, start: Start) -> None:
        serve = start("--workers=1").wait(1)
        port, before = ticket_of(serve)
        serve.workers[0].kill()
        _, after = ticket_of(serve)
        assert [ask(port, ticket) for ticket in (before, after, before, after)] == [
            *(HONOURED, HONOURED),
            *(REFUSED, REFUSED),
        ]
        serve.refresh()

    def test_requests_that_wait_while_a_worker_dies_are_answered_by_the_next(
        self, start: Start
    ) -> None:
        serve = start("--workers=1").wait(1)
        port, ticket = ticket_of(serve)
        dead = serve.workers[0]
        dead.suspend()
        waiting = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
        waiting.request("GET", "/", headers={HEADER: ticket})
        dead.kill()
        assert waiting.getresponse().status == HONOURED
        waiting.close()
        serve.refresh()


class TestSecrets:
    def test_the_secret_is_on_no_command_line_and_in_no_environment(self, start: Start) -> None:
        serve = start("--workers=1", stderr=subprocess.PIPE).wait(1)
        ask(*ticket_of(serve))
        secret = secret_of(serve.workers[0])
        seen = b"".join(visible(process) for process in serve.processes)
        serve.launcher.terminate()
        _, log = serve.launcher.communicate()
        for form in (secret, secret.hex().encode(), base64.b64encode(secret).rstrip(b"=")):
            assert form not in seen + log

    def test_the_password_of_a_proxy_is_where_the_user_wrote_it_only(self, start: Start) -> None:
        option = "--https-proxy=http://user:hunter2@127.0.0.1:1"
        serve = start("--workers=1", "--log-level=debug", option, stderr=subprocess.PIPE).wait(1)
        launcher, *others = serve.processes
        assert b"hunter2" in visible(launcher)
        assert b"hunter2" not in b"".join(map(visible, others))
        serve.launcher.terminate()
        assert b"hunter2" not in serve.launcher.communicate()[1]


def secret_of(worker: psutil.Process) -> bytes:
    """The generation's secret, from the memory that the worker has."""
    for descriptor in Path(f"/proc/{worker.pid}/fd").iterdir():
        if "kong-ai-proxy tickets" in os.readlink(descriptor):
            with descriptor.open("rb") as memory:
                return memory.read(SECRET_BYTES)
    raise AssertionError("no memory for tickets")


def visible(process: psutil.Process) -> bytes:
    """What others see of it."""
    folder = Path(f"/proc/{process.pid}")
    return (folder / "cmdline").read_bytes() + (folder / "environ").read_bytes()


class TestTheEnd:
    """Between the access phase and the arrival at the relay lies a client's slow upload."""

    def test_a_request_whose_ticket_was_issued_is_waited_for(self, start: Start) -> None:
        serve = start().wait()
        port, ticket = ticket_of(serve)
        serve.launcher.kill()
        stays(serve)
        assert ask(port, ticket) == HONOURED
        ended(serve)

    def test_nobody_waits_when_every_ticket_was_used(self, start: Start) -> None:
        serve = start().wait()
        assert ask(*ticket_of(serve)) == HONOURED
        serve.launcher.kill()
        ended(serve)

    def test_nobody_waits_when_the_process_that_asked_is_gone(self, start: Start) -> None:
        serve = start().wait()
        code = (
            "from pathlib import Path\n"
            "from tests.unit.pluginserver.kong import Kong\n"
            f"Kong(Path({str(serve.path)!r})).ticket()"
        )
        subprocess.run([sys.executable, "-c", code], check=True)
        serve.launcher.terminate()
        ended(serve)

    def test_a_ticket_is_waited_for_no_longer_than_the_drain_limit(self, start: Start) -> None:
        serve = start("--drain=1").wait()
        ticket_of(serve)
        began = time.monotonic()
        serve.launcher.terminate()
        ended(serve, 1 + ENDS)
        assert time.monotonic() - began >= 1

    def test_a_worker_killed_meanwhile_keeps_no_other_waiting(self, start: Start) -> None:
        serve = start("--workers=2").wait(2)
        with serve.connect() as kong:
            pid, _ = kong.event(kong.start_instance("ticket"))
        serve.launcher.kill()
        stays(serve)
        os.kill(pid, signal.SIGKILL)
        ended(serve)

    def test_an_event_under_way_may_still_issue_a_ticket(self, start: Start) -> None:
        serve = start().wait()
        with serve.connect() as kong:
            kong.begin(kong.start_instance("ticket"))
            serve.launcher.kill()
            wait_until(lambda: not serve.path.exists(), "the path is given up")
            _, _, port, ticket = kong._finish()
        stays(serve)
        assert ask(port, ticket) == HONOURED
        ended(serve)

    def test_a_second_sigint_waits_for_no_ticket(self, start: Start) -> None:
        serve = start().wait()
        ticket_of(serve)
        serve.launcher.send_signal(signal.SIGINT)
        stays(serve)
        serve.launcher.send_signal(signal.SIGINT)
        ended(serve)

    def test_workers_without_a_supervisor_wait_for_no_ticket(self, start: Start) -> None:
        serve = start().wait()
        ticket_of(serve)
        serve.supervisor.kill()
        ended(serve, ORPHAN_SECONDS + ENDS)

    def test_nobody_accepts_at_the_port_afterwards(self, start: Start) -> None:
        serve = start().wait()
        port, ticket = ticket_of(serve)
        ask(port, ticket)
        serve.launcher.terminate()
        ended(serve)
        with pytest.raises(ConnectionRefusedError):
            ask(port, ticket)
