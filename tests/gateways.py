"""The gateways scenarios run through: the stand-in, an installed Kong, Kong in containers.

A test takes the fixture `gateway` (any kind) or `kong` (a real one only) and calls it with a decK
file. Real Kongs live as long as the session and get the next test's file with `POST /config`; the
stand-in is started for each test, in front of plugin servers that live as long as the session.
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

import httpx
import psutil
import pytest
import yaml
from typing_extensions import override

from kong_ai_proxy.gateway.declarative import DeclarativeError, PluginSpec
from kong_ai_proxy.gateway.plugins import ServerInfo
from kong_ai_proxy.gateway.server import Gateway, query
from kong_ai_proxy.pluginserver import kong_conf

Protocol = Literal["protobuf", "msgpack"]
_T = TypeVar("_T")

ROOT = Path(__file__).resolve().parent.parent
KONG_VARIABLE = "KONG_AI_PROXY_TEST_KONG"
ABSENT = "no-kong"
_CONTAINER = re.compile(r"\d+\.\d+(\.\d+)?")
_DECK_VARIABLE = re.compile(r"\$\{\{\s*env\s+\"(?P<name>DECK_\w+)\"\s*\}\}")
_PROGRAM = (sys.executable, "-P", "-m", "kong_ai_proxy")


def chosen_kinds(options: Sequence[str]) -> list[str]:
    """The kinds named by `--gateway`, or the default. Raises pytest.UsageError for an unknown."""
    kinds = [kind for option in options for kind in option.split(",") if kind]
    for kind in kinds:
        if kind not in ("standin", "installed") and not _CONTAINER.fullmatch(kind):
            raise pytest.UsageError(
                f"--gateway {kind}: expected standin, installed or a Kong version such as 3.9"
            )
    if "installed" in kinds and KONG_VARIABLE not in os.environ:
        raise pytest.UsageError(f"--gateway installed: set {KONG_VARIABLE}=<kong executable>")
    default = ["standin"] + (["installed"] if KONG_VARIABLE in os.environ else [])
    return list(dict.fromkeys(kinds)) or default


def real_kinds(kinds: Sequence[str]) -> list[str]:
    """Those of the kinds that are a Kong."""
    return [kind for kind in kinds if kind != "standin"]


class GatewayError(Exception):
    """A gateway that did not start, or a decK file that it refused; the text says why."""


class RunningGateway(abc.ABC):
    """A gateway with a decK file loaded and a plugin server behind it."""

    kind: str
    url: str
    admin_url: str
    plugin_server_socket: str | None = None  # None where this machine cannot reach it

    @abc.abstractmethod
    def log(self) -> str:
        """What gateway and plugin server have logged since this test got the gateway."""

    @abc.abstractmethod
    async def reload(self, deck: str) -> None:
        """Load another decK file. Returns when requests see it; GatewayError when refused."""

    @abc.abstractmethod
    def plugin_server_pids(self) -> list[int]:
        """Launcher, supervisor and workers of the plugin server, as this machine numbers them."""

    def kill_plugin_server(self) -> None:
        """Kill every process of the plugin server at once. The gateway starts it again."""
        for pid in self.plugin_server_pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


# ---- what every kind needs


def free_port() -> int:
    """A port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(condition: Callable[[], _T], what: str, seconds: float = 20.0) -> _T:
    """The condition's first true value. Raises GatewayError after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise GatewayError(f"waited {seconds:g} s for {what}")
        time.sleep(0.02)


def processes_with(text: str) -> list[int]:
    """Processes with `text` on their command line: launcher, supervisor and workers of a plugin
    server all have the path of its socket there."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if text in " ".join(process.cmdline()):
                found.append(process.pid)
    return found


def accepts(path: str) -> bool:
    """Whether something listens on the Unix socket at `path`."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(path) == 0


def conf_lines(socket_path: str, protocol: Protocol, role: str = "traditional") -> dict[str, str]:
    """What `kong-ai-proxy kong-conf` prints for this checkout, as a mapping."""
    command = [*_PROGRAM, "kong-conf", "--role", role, "--socket", socket_path]
    command += ["--protocol", protocol]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    pairs = (line.partition(" = ") for line in text.splitlines())
    lines = {key: value for key, _, value in pairs}
    if start := lines.get("pluginserver_ai_proxy_start_cmd"):
        # The relay then logs what it carries, by which tests tell the two ways apart.
        lines["pluginserver_ai_proxy_start_cmd"] = f"{start} --log-level debug"
    return lines


def substitute(deck: str, env: Mapping[str, str]) -> str:
    """decK's `${{ env "DECK_X" }}`, which is decK's job and not Kong's. KeyError when unset."""
    return _DECK_VARIABLE.sub(lambda found: env[found["name"]], deck)


# ---- the stand-in


class ManagedServer:
    """`kong-ai-proxy serve`, run as Kong runs its start_cmd: `sh -c exec`, no environment, started
    again a second after its last start when it died."""

    def __init__(self, protocol: Protocol) -> None:
        self.protocol: Protocol = protocol
        self.specs: list[PluginSpec] = []
        self._folder = Path(tempfile.mkdtemp(prefix="kap-"))
        self.socket = self._folder / "p.sock"
        self.log_file = self._folder / "serve.log"
        start = conf_lines(str(self.socket), protocol)["pluginserver_ai_proxy_start_cmd"]
        self._command = "exec " + start.replace("\\#", "#")
        self._stopping = threading.Event()
        self._process = self._spawn()
        self._keeper = threading.Thread(target=self._keep, name="plugin server", daemon=True)
        self._keeper.start()
        self.wait_until_ready()

    def infos(self) -> dict[str, ServerInfo]:
        """Both plugins, as the stand-in wants to know where they are."""
        wire = {"protobuf": "ProtoBuf:1", "msgpack": "MsgPack:1"}[self.protocol]
        names = ("ai-proxy", "ai-proxy-advanced")
        return {name: ServerInfo(name, self.socket, wire) for name in names}

    def wait_until_ready(self) -> None:
        """Until the socket accepts. Raises GatewayError with the server's output otherwise."""
        try:
            wait_until(lambda: accepts(str(self.socket)), "the plugin server's socket")
        except GatewayError as error:
            self.stop()
            raise GatewayError(f"{error}\n{self.log()}") from None

    def log(self) -> str:
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def stop(self) -> None:
        """End it as Kong does, then make sure that nothing of it is left."""
        self._stopping.set()
        self._process.terminate()
        if self._keeper.is_alive():
            self._keeper.join(timeout=10)
        deadline = time.monotonic() + 5
        while (left := processes_with(str(self.socket))) and time.monotonic() < deadline:
            time.sleep(0.05)
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _spawn(self) -> subprocess.Popen[bytes]:
        self._started = time.monotonic()
        with self.log_file.open("ab") as output:
            return subprocess.Popen(
                ["/bin/sh", "-c", self._command], env={}, stdout=output, stderr=subprocess.STDOUT
            )

    def _keep(self) -> None:
        while True:
            self._process.wait()
            pause = max(0.0, self._started + 1 - time.monotonic())
            if self._stopping.wait(pause):
                return
            self._process = self._spawn()


class StandIn(RunningGateway):
    """kong_ai_proxy.gateway in this process, a plugin server in its own."""

    kind = "standin"

    def __init__(self, server: ManagedServer, gateway: Gateway, errors: list[str]) -> None:
        self.server = server
        self.gateway = gateway
        self.url, self.admin_url = gateway.url, gateway.admin_url
        self.plugin_server_socket = str(server.socket)
        self._errors = errors
        self._log_start = len(server.log())

    @classmethod
    async def start(cls, server: ManagedServer, deck: str, env: Mapping[str, str]) -> StandIn:
        servers = server.infos()
        if not server.specs:  # as Kong, which asks once
            server.specs = [await query(info) for info in servers.values()]
        specs = {spec.name: spec for spec in server.specs}
        errors: list[str] = []
        try:
            gateway = await Gateway.start(
                deck, servers=servers, env=env, specs=specs, log=errors.append
            )
        except DeclarativeError as error:
            raise GatewayError(str(error)) from error
        return cls(server, gateway, errors)

    @override
    def log(self) -> str:
        return "\n".join(self._errors) + self.server.log()[self._log_start :]

    @override
    async def reload(self, deck: str) -> None:
        try:
            await self.gateway.reload(deck)
        except DeclarativeError as error:
            raise GatewayError(str(error)) from error

    @override
    def plugin_server_pids(self) -> list[int]:
        return processes_with(str(self.server.socket))


# ---- Kong, whatever runs it


def declarative(deck: str, marker: str) -> str:
    """decK's file as Kong's `POST /config` takes it, with a route by which its arrival is seen.

    The route answers before any plugin that the file itself may set globally: pre-function is the
    first of all.
    """
    document = yaml.safe_load(deck) or {}
    kept = ("_format_version", "_transform")
    document = {k: v for k, v in document.items() if not k.startswith("_") or k in kept}
    answer = {"name": "pre-function", "config": {"access": ["return kong.response.exit(204)"]}}
    route = {"name": marker, "paths": [f"/{marker}"], "plugins": [answer]}
    document["routes"] = [*document.get("routes", []), route]
    return json.dumps(document)


@dataclass(frozen=True)
class Plan:
    """What a test wants of a real Kong. `changes`: entries of kong.conf beside the usual ones;
    `lines_for`: the role that kong-conf is asked for."""

    kind: str
    protocol: Protocol = "protobuf"
    env: Mapping[str, str] = field(default_factory=dict)
    shim: bool = True
    lines_for: str = "traditional"
    changes: Mapping[str, str] = field(default_factory=dict)

    def same_process(self, other: Plan) -> bool:
        """Whether a Kong started for one will do for the other. Its environment is fixed at its
        start, but decK's variables never reach Kong."""
        return self._process() == other._process()

    def _process(self) -> tuple[object, ...]:
        env = {k: v for k, v in self.env.items() if not k.startswith("DECK_")}
        return self.kind, self.protocol, env, self.shim, self.lines_for, dict(self.changes)


class Kong(RunningGateway):
    """A real Kong, DB-less unless its plan says otherwise. Subclasses run it."""

    def __init__(self, plan: Plan) -> None:
        self.kind = plan.kind
        self.plan = plan
        self._log_start = 0

    @abc.abstractmethod
    def start(self) -> None:
        """Start it without entities. Raises GatewayError with Kong's own words."""

    @abc.abstractmethod
    def stop(self) -> None: ...

    @abc.abstractmethod
    def all_logs(self) -> str: ...

    @abc.abstractmethod
    def command(self, *arguments: str) -> str:
        """Run `kong ARGUMENTS` beside it. Returns its output; GatewayError when it fails."""

    def begin(self) -> None:
        """A new test: its log starts here."""
        self._log_start = len(self.all_logs())

    @override
    def log(self) -> str:
        return self.all_logs()[self._log_start :]

    @override
    async def reload(self, deck: str) -> None:
        marker = f"arrived-{uuid.uuid4().hex}"
        body = {"config": declarative(substitute(deck, self.plan.env), marker)}
        async with httpx.AsyncClient(timeout=30) as client:
            answer = await client.post(f"{self.admin_url}/config", json=body)
            if answer.status_code != 201:
                raise GatewayError(f"POST /config: {answer.status_code} {answer.text}")
            deadline = time.monotonic() + 20
            while (await client.get(f"{self.url}/{marker}")).status_code != 204:
                if time.monotonic() > deadline:
                    raise GatewayError("Kong took the file but does not serve it")
                await asyncio.sleep(0.02)

    @abc.abstractmethod
    def accepts(self) -> bool:
        """Whether the plugin server's socket accepts connections."""

    async def healthy(self) -> bool:
        """Whether it can be handed to the next test (an earlier one may have killed something)."""
        try:
            if self.plan.lines_for != "control_plane":
                await asyncio.to_thread(wait_until, self.accepts, "the plugin server")
        except GatewayError:
            return False
        try:
            async with httpx.AsyncClient(timeout=5) as client:
                return (await client.get(f"{self.admin_url}/status")).is_success
        except httpx.HTTPError:
            return False

    def settings(self) -> dict[str, str]:
        """kong.conf of a small Kong of our own; new ports each time."""
        proxy, admin = free_port(), free_port()
        self.url, self.admin_url = f"http://127.0.0.1:{proxy}", f"http://127.0.0.1:{admin}"
        return {
            "database": "off",
            "proxy_listen": f"127.0.0.1:{proxy}",
            "admin_listen": f"127.0.0.1:{admin}",
            "admin_gui_listen": "off",
            "status_listen": "off",
            "router_flavor": "traditional",
            "nginx_worker_processes": "1",
            "log_level": "info",
            "anonymous_reports": "off",
        }


class InstalledKong(Kong):
    """The Kong that KONG_AI_PROXY_TEST_KONG names."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self.executable = os.environ[KONG_VARIABLE]
        self.folder = Path(tempfile.mkdtemp(prefix="kap-"))
        self.prefix = self.folder / "kong"
        self.conf = self.folder / "kong.conf"
        self.socket = self.plugin_server_socket = str(self.folder / "p.sock")

    @override
    def start(self) -> None:
        for attempt in (1, 2, 3):  # another process may take a port first
            self.write_conf()
            try:
                if self.plan.changes.get("database") == "postgres":
                    self.command("migrations", "bootstrap")
                self.command("start")
            except GatewayError as error:
                if attempt == 3 or "address already in use" not in str(error).lower():
                    raise GatewayError(f"{error}\n{self.all_logs()}") from None
            else:
                return

    def write_conf(self) -> None:
        """kong.conf: the usual settings, then what kong-conf prints, then this Kong's own."""
        lines = conf_lines(self.socket, self.plan.protocol, self.plan.lines_for)
        entries = {**self.settings(), **lines}
        entries["prefix"] = str(self.prefix)
        if not self.plan.shim:
            del entries["lua_package_path"]
        if os.geteuid() == 0:  # else workers run as nobody, who cannot reach this checkout
            entries["nginx_user"] = "root root"
        entries.update(self.plan.changes)
        self.conf.write_text("".join(f"{key} = {value}\n" for key, value in entries.items()))

    @override
    def command(self, *arguments: str) -> str:
        takes_conf = () if arguments[0] in ("stop", "version") else ("-c", str(self.conf))
        takes_prefix = () if arguments[0] == "version" else ("-p", str(self.prefix))
        done = subprocess.run(
            [self.executable, *arguments, *takes_conf, *takes_prefix],
            env={"PATH": os.environ["PATH"], "HOME": str(self.folder), **self.plan.env},
            capture_output=True,
            text=True,
            timeout=50,
        )
        if done.returncode != 0:
            raise GatewayError(f"kong {' '.join(arguments)}: {done.stdout}{done.stderr}")
        return done.stdout + done.stderr

    @override
    def stop(self) -> None:
        with contextlib.suppress(GatewayError):
            self.command("stop")
        for pid in self.plugin_server_pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)

    @override
    def accepts(self) -> bool:
        return accepts(self.socket)

    @override
    def all_logs(self) -> str:
        log = self.prefix / "logs" / "error.log"
        return log.read_text(errors="replace") if log.exists() else ""

    @override
    def plugin_server_pids(self) -> list[int]:
        return processes_with(self.socket)


class ContainerKong(Kong):
    """Kong's image with this project in it (docker/Dockerfile), on the machine's own network so
    that it reaches a test's upstream on 127.0.0.1."""

    PROGRAM = "/opt/kong-ai-proxy/bin/kong-ai-proxy"
    PYTHON = "/opt/kong-ai-proxy/bin/python"

    @override
    def start(self) -> None:
        from testcontainers.core.container import DockerContainer

        variables = {f"KONG_{key.upper()}": value for key, value in self._entries().items()}
        container = DockerContainer(image_tag(self.kind)).with_kwargs(network_mode="host")
        self._container = container.with_envs(**variables, **self.plan.env)
        if self.plan.changes.get("database") == "postgres":
            self._bootstrap(variables)
        self._container.start()
        try:
            wait_until(self._answers, f"Kong {self.kind} in its container", 50)
        except GatewayError as error:
            raise GatewayError(f"{error}\n{self.all_logs()}") from None

    @override
    def stop(self) -> None:
        self._container.stop()

    @override
    def accepts(self) -> bool:
        code = f"import socket; socket.socket(socket.AF_UNIX).connect({kong_conf.DEFAULT_SOCKET!r})"
        try:
            self._execute([self.PYTHON, "-c", code])
        except GatewayError:
            return False
        return True

    @override
    def all_logs(self) -> str:
        out, err = self._container.get_logs()
        return (out + err).decode(errors="replace")

    @override
    def command(self, *arguments: str) -> str:
        return self._execute(["kong", *arguments])

    @override
    def plugin_server_pids(self) -> list[int]:
        """As the container numbers them."""
        code = (
            "import glob, os\n"
            "for name in glob.glob('/proc/[0-9]*/cmdline'):\n"
            "    pid = int(name.split('/')[2])\n"
            "    words = open(name, 'rb').read()\n"
            f"    if pid != os.getpid() and b'{kong_conf.DEFAULT_SOCKET}' in words: print(pid)\n"
        )
        output = self._execute([self.PYTHON, "-c", code])
        return [int(pid) for pid in output.split()]

    @override
    def kill_plugin_server(self) -> None:
        self._execute(["sh", "-c", f"kill -9 {' '.join(map(str, self.plugin_server_pids()))}"])

    def _entries(self) -> dict[str, str]:
        lines = kong_conf.lines(
            kong_conf.Settings(protocol=self.plan.protocol), (self.PROGRAM,), lua_path=""
        )
        commands = {k: v for k, _, v in (line.partition(" = ") for line in lines) if "_cmd" in k}
        shadowed = {} if self.plan.shim else {"lua_package_path": ";;"}
        return {**self.settings(), **commands, **shadowed, **self.plan.changes}

    def _bootstrap(self, variables: Mapping[str, str]) -> None:
        from testcontainers.core.container import DockerContainer

        container = DockerContainer(image_tag(self.kind)).with_kwargs(network_mode="host")
        container = container.with_envs(**variables).with_command("kong migrations bootstrap")
        with container:
            if container.get_wrapped_container().wait(timeout=50)["StatusCode"] != 0:
                raise GatewayError(f"kong migrations bootstrap: {container.get_logs()}")

    def _execute(self, command: list[str]) -> str:
        status, output = self._container.exec(command)
        if status != 0:
            raise GatewayError(f"{command}: {output.decode(errors='replace')}")
        return str(output.decode(errors="replace"))

    def _answers(self) -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"{self.admin_url}/status", timeout=2).is_success
        return False


def image_tag(version: str) -> str:
    """The local name of the image for one Kong version."""
    return f"kong-ai-proxy-test:{version}"


def build_images(kinds: Sequence[str]) -> None:
    """Build what the chosen container kinds need. Raises pytest.UsageError without Docker."""
    versions = [kind for kind in kinds if _CONTAINER.fullmatch(kind)]
    if not versions:
        return
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "version"], capture_output=True).returncode != 0:
        raise pytest.UsageError(f"--gateway {','.join(versions)}: no Docker daemon answers here")
    for version in versions:
        argument = f"KONG_IMAGE=kong:{version}"
        command = [docker, "build", "-t", image_tag(version), "-f", "docker/Dockerfile"]
        subprocess.run([*command, "--build-arg", argument, "."], cwd=ROOT, check=True)


# ---- handing them out


class GatewayPool:
    """What outlives a test: one plugin server a protocol, and Kongs nobody uses at the moment."""

    def __init__(self) -> None:
        self._servers: dict[Protocol, ManagedServer] = {}
        self._idle: list[Kong] = []

    def plugin_server(self, protocol: Protocol) -> ManagedServer:
        """The stand-in's plugin server, accepting (an earlier test may have killed it)."""
        server = self._servers.get(protocol)
        if server is None:
            server = self._servers[protocol] = ManagedServer(protocol)
        server.wait_until_ready()
        return server

    async def lease(self, plan: Plan) -> Kong:
        """An idle Kong of this plan, or a new one."""
        for kong in [kong for kong in self._idle if kong.plan.same_process(plan)]:
            self._idle.remove(kong)
            if await kong.healthy():
                kong.plan = plan
                kong.begin()
                return kong
            await asyncio.to_thread(kong.stop)
        kong = InstalledKong(plan) if plan.kind == "installed" else ContainerKong(plan)
        try:
            await asyncio.to_thread(kong.start)
            if not await kong.healthy():
                raise GatewayError(f"Kong started without a plugin server\n{kong.all_logs()}")
        except GatewayError:
            await asyncio.to_thread(kong.stop)
            raise
        return kong

    def give_back(self, kong: Kong) -> None:
        self._idle.append(kong)

    def close(self) -> None:
        for kong in self._idle:
            kong.stop()
        for server in self._servers.values():
            server.remove()


class GatewayFactory:
    """The fixtures' value; ends what a test has started."""

    def __init__(self, pool: GatewayPool, kind: str) -> None:
        self.kind = kind
        self._pool = pool
        self._stand_ins: list[StandIn] = []
        self._leased: list[Kong] = []

    async def __call__(
        self,
        deck: str,
        *,
        protocol: Protocol = "protobuf",
        env: Mapping[str, str] | None = None,
        shim: bool = True,
    ) -> RunningGateway:
        """A gateway that serves `deck`. `env`: decK's variables and those of the env vault.

        Without the shim Kong >= 3.6 refuses to start, so such a test is skipped there; the
        stand-in has no Lua and is the same either way. Raises GatewayError for a refused file.
        """
        if self.kind == "standin":
            server = await asyncio.to_thread(self._pool.plugin_server, protocol)
            stand_in = await StandIn.start(server, deck, dict(env or {}))
            self._stand_ins.append(stand_in)
            return stand_in
        kong = await self.kong(Plan(self.kind, protocol, dict(env or {}), shim))
        await kong.reload(deck)
        return kong

    async def kong(self, plan: Plan) -> Kong:
        """A real Kong without entities, started or taken from the pool."""
        if not plan.shim and self._bundles_ai_proxy():
            pytest.skip("Kong >= 3.6 bundles an ai-proxy that only the shim can replace")
        kong = await self._pool.lease(plan)
        self._leased.append(kong)
        return kong

    async def close(self) -> None:
        for stand_in in self._stand_ins:
            await stand_in.gateway.stop()
        for kong in self._leased:
            if kong.plan.changes:  # made for this test alone
                await asyncio.to_thread(kong.stop)
            else:
                self._pool.give_back(kong)

    def _bundles_ai_proxy(self) -> bool:
        version = self.kind
        if version == "installed":
            command = [os.environ[KONG_VARIABLE], "version"]
            version = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        found = re.search(r"(\d+)\.(\d+)", version)
        return found is None or (int(found[1]), int(found[2])) >= (3, 6)
