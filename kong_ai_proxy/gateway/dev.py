"""`kong-ai-proxy dev`: plugin server, stand-in for Kong and provider on this machine.

The plugin server is the real one, started as Kong starts it; variables KONG_AI_PROXY_* reach it, so
that options of `serve` can be tried. The gateway in front of it is the
stand-in, and so is the provider unless there is a key of OpenAI's, `--upstream` or `--config`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import importlib.util
import os
import shlex
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import aiohttp

from kong_ai_proxy import resources
from kong_ai_proxy.gateway import dev_deck, dev_help
from kong_ai_proxy.gateway.provider import Provider

if TYPE_CHECKING:
    from kong_ai_proxy.gateway.managed import ManagedServer
    from kong_ai_proxy.gateway.server import Gateway

HOST: Final = "127.0.0.1"
_KEY: Final = "DECK_OPENAI_API_KEY"
_WORD_SECONDS: Final = 0.03
_LIST_SECONDS: Final = 3.0
_GONE_SECONDS: Final = 10.0


class DevError(Exception):
    """Why `dev` cannot run, in words for its user."""


@dataclass(frozen=True)
class Plan:
    """What to run: the decK file, its environment, and what to say about the upstream."""

    deck: str | Path
    env: Mapping[str, str]
    upstream: str
    models: dev_help.Models | None  # None: a file of the user's own, whose routes are not known
    notes: list[str] = field(default_factory=list)


def main(argv: list[str]) -> int:
    """Run until SIGINT or SIGTERM. Returns 0, or 1 after saying on stderr why it cannot run."""
    options = _parser().parse_args(argv)
    try:
        asyncio.run(_run(options))
    except DevError as error:
        print(f"kong-ai-proxy dev: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kong-ai-proxy dev",
        description="Run the plugin server behind a stand-in for Kong, for development and tests. "
        "With OPENAI_API_KEY or DECK_OPENAI_API_KEY set, requests go to OpenAI; without, to a "
        "bundled stand-in provider. Variables named KONG_AI_PROXY_* reach the plugin server: "
        "KONG_AI_PROXY_TIME_BUDGET=20 is its --time-budget 20.",
    )
    parser.add_argument(
        "--port",
        type=_port,
        default=8000,
        metavar="N",
        help="the gateway's port; the Admin API has the next one; 0 takes free ones (8000)",
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--config", type=Path, metavar="FILE", help="run this decK file, unchanged")
    source.add_argument(
        "--upstream",
        metavar="URL",
        help="send requests to this OpenAI-compatible server, such as http://127.0.0.1:11434/v1",
    )
    return parser


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 65534:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port between 0 and 65534")
    return int(text)


async def _run(options: argparse.Namespace) -> None:
    if _lacks_protobuf():
        raise DevError("protobuf is not installed: pip install 'kong-ai-proxy[standin]'")
    _require_free_ports(options.port)
    _end_on_signals()
    with contextlib.suppress(asyncio.CancelledError):
        async with contextlib.AsyncExitStack() as stack:
            plan = await _plan(options, stack)
            gateway = await stack.enter_async_context(_gateway(plan, options.port))
            _introduce(gateway, plan)
            await asyncio.Event().wait()


def _lacks_protobuf() -> bool:
    try:
        return importlib.util.find_spec("google.protobuf") is None
    except ModuleNotFoundError:  # not even a package named google
        return True


_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # SIGHUP: the terminal was closed


def _end_on_signals() -> None:
    """Cancel this task on the first signal; others must not disturb the cleaning up."""
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()

    def end() -> None:
        task.cancel()
        _ignore_signals()
        with contextlib.suppress(OSError):  # whoever read the output may have gone
            print("\nStopping.", flush=True)

    for number in _ENDING:
        loop.add_signal_handler(number, end)


def _ignore_signals() -> None:
    """Cleaning up has begun, whatever the reason, and goes on to its end."""
    for number in _ENDING:
        asyncio.get_running_loop().add_signal_handler(number, lambda: None)


def _require_free_ports(port: int) -> None:
    """Raises DevError naming the port that is taken."""
    if port == 0:
        return
    for number, what in ((port, "gateway"), (port + 1, "Admin API")):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, number))
            except OSError as error:
                raise _taken(number, what, error) from None


def _taken(port: int, what: str, error: OSError) -> DevError:
    why = "is taken" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
    return DevError(f"port {port} (for the {what}) {why}; choose another with --port N")


# -- what to run -----------------------------------------------------------------------------------


async def _plan(options: argparse.Namespace, stack: contextlib.AsyncExitStack) -> Plan:
    env = dict(os.environ)
    key = env.get(_KEY) or env.get("OPENAI_API_KEY")
    if options.config is not None:
        return _own_file(options.config, env, key)
    deck = resources.path("examples", "openai.yaml").read_text(encoding="utf-8")
    if options.upstream is not None:
        return await _compatible(options.upstream, deck, env, key)
    if key:
        upstream = "OpenAI, https://api.openai.com, with the key of your environment"
        return Plan(deck, {**env, _KEY: key}, upstream, dev_help.Models())
    provider = await Provider.start(word_seconds=_WORD_SECONDS)
    stack.push_async_callback(provider.stop)
    upstream = f"the bundled stand-in provider, {provider.url} (not a language model)"
    notes = ["Set OPENAI_API_KEY to talk to OpenAI, or give --upstream URL for another server."]
    deck = dev_deck.pointed_at(deck, provider.url)
    return Plan(deck, {**env, _KEY: "stand-in"}, upstream, dev_help.Models(), notes)


def _own_file(path: Path, env: dict[str, str], key: str | None) -> Plan:
    if not path.is_file():
        raise DevError(f"--config {path}: no such file")
    env = {**env, _KEY: key} if key else env
    missing = []
    for name in dev_deck.variables(path.read_text(encoding="utf-8", errors="replace")):
        if name not in env and (found := env.get(name.removeprefix("DECK_"))):
            env = {**env, name: found}
        elif name not in env:
            missing.append(name)
    if missing:
        raise DevError(
            f"--config {path}: set {', '.join(missing)} in the environment, with or without DECK_; "
            "any value will do for what is not tried out, or `upstream_url` below model.options "
            "for a server of your own"
        )
    return Plan(path, env, f"as {path} says", None)


async def _compatible(url: str, deck: str, env: dict[str, str], key: str | None) -> Plan:
    try:
        url = dev_deck.base_url(url)
    except ValueError as error:
        raise DevError(f"--upstream {error}") from None
    names, notes = await _models(url, key)
    keyed = "with the key of your environment" if key else "without a key"
    return Plan(
        dev_deck.pointed_at(deck, url),
        {**env, _KEY: key or "none"},
        f"{url}, {keyed}",
        dev_help.Models.among(names),
        notes,
    )


async def _models(url: str, key: str | None) -> tuple[list[str], list[str]]:
    """The models an upstream lists, and what to tell the user when it does not answer."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    timeout = aiohttp.ClientTimeout(total=_LIST_SECONDS)
    try:
        async with (
            aiohttp.ClientSession(headers=headers, timeout=timeout) as session,
            session.get(f"{url}/models") as answer,
        ):
            listed = (await answer.json(content_type=None)) if answer.ok else {}
    except (aiohttp.ClientConnectionError, TimeoutError) as error:
        return [], [f"Warning: {url} does not answer ({error or 'no answer in time'})."]
    except (aiohttp.ClientError, ValueError):
        return [], []
    data = listed.get("data") if isinstance(listed, dict) else None
    entries = data if isinstance(data, list) else []
    return [str(entry["id"]) for entry in entries if isinstance(entry, dict) and "id" in entry], []


# -- running it ------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def _gateway(plan: Plan, port: int) -> AsyncIterator[Gateway]:
    """The stand-in in front of a plugin server of its own; nothing of either is left afterwards."""
    from kong_ai_proxy.gateway.managed import ManagedServer

    folder = Path(tempfile.mkdtemp(prefix="kong-ai-proxy-dev-"))  # for its owner only
    path = folder / "plugin-server.sock"
    command = [sys.executable, "-P", "-m", "kong_ai_proxy", "serve", "--socket", str(path)]
    # What the stand-in relies on is on the command line, which wins.
    command += ["--protocol", "protobuf"]
    env = serve_variables(os.environ)
    server = ManagedServer("ai-proxy", shlex.join(command), path, _log, env)
    try:
        gateway = await _started(server, plan, port)
        try:
            yield gateway
        finally:
            _ignore_signals()
            await gateway.stop()
    finally:
        _ignore_signals()
        await server.stop()
        await _until_gone(path)
        shutil.rmtree(folder, ignore_errors=True)


def serve_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that stand for options of `serve`; one worker unless they say otherwise."""
    prefix = "KONG_AI_PROXY_"
    given = {name: value for name, value in environment.items() if name.startswith(prefix)}
    return {f"{prefix}WORKERS": "1", **given}


async def _started(server: ManagedServer, plan: Plan, port: int) -> Gateway:
    """Start both. Raises DevError."""
    # Imported late: they need protobuf, which _run has asked for by now.
    from kong_ai_proxy.gateway.declarative import DeclarativeError
    from kong_ai_proxy.gateway.managed import StartError
    from kong_ai_proxy.gateway.plugins import ServerInfo
    from kong_ai_proxy.gateway.server import DumpError, Gateway

    servers = {name: ServerInfo(name, server.socket, "ProtoBuf:1") for name in dev_deck.PLUGINS}
    admin_port = port + 1 if port else 0
    try:
        await server.start()
        return await Gateway.start(
            plan.deck, servers=servers, port=port, admin_port=admin_port, env=plan.env, log=_log
        )
    except DeclarativeError as error:
        raise DevError(f"the decK file is not valid:\n{error}") from error
    except (StartError, DumpError) as error:
        raise DevError(f"the plugin server does not start: {error}") from error
    except OSError as error:
        message = f"port {port} or {admin_port}: {error}; choose others with --port N"
        raise DevError(message) from error


async def _until_gone(path: Path) -> None:
    """Wait for the plugin server's processes, which outlive the launcher that was stopped.

    They end as soon as nothing is under way. Where there is no /proc, their socket's end is taken
    for theirs.
    """
    deadline = asyncio.get_running_loop().time() + _GONE_SECONDS
    while _in_use(path) and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.02)


def _in_use(path: Path) -> bool:
    if path.exists():
        return True
    name = os.fsencode(path)
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if name in command.read_bytes():
                return True
    return False


def _log(line: str) -> None:
    """Kong's error log: what a developer wants to see of it, on stderr."""
    if not line.startswith(("[notice]", "[debug]")) and " INFO " not in line:
        print(line, file=sys.stderr, flush=True)


# -- what it says ----------------------------------------------------------------------------------


def _introduce(gateway: Gateway, plan: Plan) -> None:
    lines = [
        "kong-ai-proxy dev: the plugin server behind a stand-in for Kong. The stand-in is for",
        "development and tests; it is not Kong.",
        "",
        f"  gateway    {gateway.url}",
        f"  Admin API  {gateway.admin_url}",
        f"  upstream   {plan.upstream}",
        "",
        *plan.notes,
    ]
    if plan.models is None:
        lines += ["Its routes, with a request to try (Ctrl-C ends everything):", ""]
        routes, plugins = gateway.entities("routes"), gateway.entities("plugins")
        for what, command in dev_help.of_routes(gateway.url, routes, plugins):
            lines += [f"# {what}", *filter(None, [command]), ""]
    else:
        lines += ["Try it (Ctrl-C ends everything):", ""]
        for what, command in dev_help.commands(gateway.url, plan.models):
            lines += [f"# {what}", command, ""]
        if more := dev_help.more_commands(gateway.url, plan.models):
            lines.append("The rest of OpenAI's API:")
            for what, command in more:
                lines += [f"# {what}", command]
            lines.append("")
        lines += ["# OpenAI's own client", dev_help.python_client(gateway.url, plan.models), ""]
    with contextlib.suppress(BrokenPipeError):  # as in `kong-ai-proxy dev | head`
        print("\n".join(lines), flush=True)
