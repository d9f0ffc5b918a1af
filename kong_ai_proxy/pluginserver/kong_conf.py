"""`kong-ai-proxy kong-conf`: the kong.conf lines that make Kong use this very installation.

Kong runs the commands through `sh -c` with an empty environment (start_cmd prefixed with `exec`),
so they hold absolute paths and are quoted for the shell; in kong.conf itself `#` begins a comment
unless it is written `\\#`.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kong_ai_proxy.lua.path import lua_package_path
from kong_ai_proxy.pluginserver.generation import MAX_PATH_BYTES

DEFAULT_SOCKET = "/usr/local/kong/ai-proxy.socket"
"""Where Kong itself looks for the socket of a server called ai-proxy, with its default prefix."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the printed lines depend on. `None` leaves a setting to the command's own default."""

    role: str = "traditional"
    socket: str = DEFAULT_SOCKET
    protocol: str | None = None
    workers: int | None = None


def command() -> tuple[str, ...]:
    """This installation's `kong-ai-proxy`: the console script, or the interpreter without one.

    `-P` keeps a folder that Kong happens to start in out of the module search path.
    """
    script = Path(sys.executable).with_name("kong-ai-proxy")
    if script.is_file():
        return (str(script),)
    return (sys.executable, "-P", "-m", "kong_ai_proxy")


def lines(settings: Settings, program: Sequence[str], lua_path: str) -> list[str]:
    """The lines, `key = value` each. Only the first server name has a start_cmd: the one process
    it starts serves both plugins, while Kong reads one plugin from each dump."""
    pairs = {
        "plugins": "bundled,ai-proxy,ai-proxy-advanced",
        "pluginserver_names": "ai-proxy,ai-proxy-advanced",
    }
    wire = [] if settings.protocol is None else ["--protocol", settings.protocol]
    runs_here = settings.role != "control_plane"
    for plugin in ("ai-proxy", "ai-proxy-advanced"):
        prefix = "pluginserver_" + plugin.replace("-", "_")
        if runs_here:
            pairs[f"{prefix}_socket"] = settings.socket
        if runs_here and plugin == "ai-proxy":
            pairs[f"{prefix}_start_cmd"] = shlex.join([*program, *_serve(settings), *wire])
        pairs[f"{prefix}_query_cmd"] = shlex.join([*program, "dump", plugin, *wire])
    pairs["lua_package_path"] = lua_path
    return [f"{key} = {_escape(value)}" for key, value in pairs.items()]


def main(argv: list[str]) -> int:
    """Print the lines. Exit status 0, or 1 where they could not work."""
    parser = _parser()
    options = parser.parse_args(argv)
    settings = Settings(options.role, options.socket, options.protocol, options.workers)
    try:
        _check_socket(settings.socket)
        found = lines(settings, command(), lua_package_path())
    except ValueError as error:
        print(f"kong-ai-proxy kong-conf: {error}", file=sys.stderr)
        return 1
    print("\n".join(found))
    for note in _notes(settings):
        print(f"kong-ai-proxy kong-conf: {note}", file=sys.stderr)
    return 0


def _notes(settings: Settings) -> Iterator[str]:
    """What to look at before the lines go into a kong.conf that is in use."""
    yield (
        "where your kong.conf already sets plugins, pluginserver_names or lua_package_path, add to "
        "that line instead: of two lines with one key Kong takes one"
    )
    folder = Path(settings.socket).parent
    if settings.role != "control_plane" and not folder.is_dir():
        yield f"there is no folder {folder} here: give --socket PATH below your Kong's prefix"


def _serve(settings: Settings) -> list[str]:
    words = ["serve", "--socket", settings.socket]
    if settings.workers is not None:
        words += ["--workers", str(settings.workers)]
    return words


def _escape(value: str) -> str:
    if "\n" in value:
        raise ValueError(f"kong.conf cannot hold a line break: {value!r}")
    return value.replace("#", "\\#")


def _check_socket(path: str) -> None:
    if not path.startswith("/"):
        raise ValueError(f"--socket {path}: expected an absolute path, Kong may start anywhere")
    size = len(path.encode())
    if size > MAX_PATH_BYTES:
        raise ValueError(
            f"--socket {path}: {size} bytes, while the path of a Unix socket may have "
            f"{MAX_PATH_BYTES}; choose a shorter one"
        )


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1, got {text!r}")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kong-ai-proxy kong-conf",
        description="Print the kong.conf lines that make Kong use this installation. A control "
        "plane needs the plugins' schemas only, so its lines start no server.",
    )
    parser.add_argument(
        "--role",
        choices=("traditional", "data_plane", "control_plane"),
        default="traditional",
        help="what kong.conf has as `role` (default: traditional)",
    )
    parser.add_argument(
        "--socket",
        metavar="PATH",
        default=DEFAULT_SOCKET,
        help=f"Unix socket between Kong and the plugin server (default: {DEFAULT_SOCKET})",
    )
    parser.add_argument(
        "--protocol",
        choices=("protobuf", "msgpack"),
        help="wire protocol (default: what serve and dump have as their default)",
    )
    parser.add_argument(
        "--workers",
        type=_positive,
        metavar="N",
        help="plugin server workers (default: 2)",
    )
    return parser
