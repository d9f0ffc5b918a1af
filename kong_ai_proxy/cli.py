"""The command `kong-ai-proxy`.

Each subcommand is a module with `main(argv) -> exit status`, imported only when it is asked for:
Kong waits for `dump` when it starts, so nothing heavy may be imported on the way.
"""

from __future__ import annotations

import importlib
import sys

from kong_ai_proxy import __version__

# Name, module, what `--help` says.
_COMMANDS = (
    ("dev", "kong_ai_proxy.gateway.dev", "try it here: plugin server, stand-in for Kong, provider"),
    ("serve", "kong_ai_proxy.pluginserver.serve", "run the plugin server (Kong's start_cmd)"),
    ("dump", "kong_ai_proxy.pluginserver.dump", "print a plugin's schema (Kong's query_cmd)"),
    ("kong-conf", "kong_ai_proxy.pluginserver.kong_conf", "print the kong.conf lines to add"),
    ("lua-path", "kong_ai_proxy.lua.path", "print the lua_package_path to add"),
    ("validate", "kong_ai_proxy.config.validate", "check decK files"),
)


def usage() -> str:
    """The text of `kong-ai-proxy --help`."""
    width = max(len(name) for name, _, _ in _COMMANDS)
    lines = [f"  {name:<{width}}  {text}" for name, _, text in _COMMANDS]
    return "\n".join(
        [
            "usage: kong-ai-proxy COMMAND [options]",
            "",
            "Kong's ai-proxy and ai-proxy-advanced as a plugin server for any Kong from 3.4 on.",
            "",
            "commands:",
            *lines,
            "",
            "`kong-ai-proxy COMMAND --help` says more.  --version prints the version.",
        ]
    )


def main(argv: list[str] | None = None) -> int:
    """Run one subcommand. Returns its exit status; 2 for a command that does not exist."""
    args = sys.argv[1:] if argv is None else argv
    if not args or args[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if args else 2
    if args[0] == "--version":
        print(f"kong-ai-proxy {__version__}")
        return 0
    for name, module, _ in _COMMANDS:
        if name == args[0]:
            return int(importlib.import_module(module).main(args[1:]))
    print(f"kong-ai-proxy: unknown command {args[0]!r}\n\n{usage()}", file=sys.stderr)
    return 2
