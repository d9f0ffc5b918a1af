"""`kong-ai-proxy lua-path`: where Kong finds the shim of this installation."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

DIRECTORY = Path(__file__).resolve().parent
"""The folder that holds `kong/plugins/ai-proxy/handler.lua` and its siblings."""


def lua_package_path(directory: Path = DIRECTORY) -> str:
    """The value of kong.conf's `lua_package_path`: the shim first, then Lua's own places.

    Raises ValueError for a folder whose name nginx or Lua would read as something else.
    """
    unusable = sorted(set(str(directory)) & set(";?'\"\\$\n#"))
    if unusable:
        raise ValueError(
            f"{directory}: a lua_package_path cannot hold the characters {' '.join(unusable)}; "
            "install kong-ai-proxy in another folder"
        )
    return f"{directory}/?.lua;{directory}/?/init.lua;;"


def main(argv: list[str]) -> int:
    """Print the value. Exit status 0, or 1 where no Kong could read this installation's path."""
    parser = argparse.ArgumentParser(
        prog="kong-ai-proxy lua-path", description="Print the lua_package_path for kong.conf."
    )
    parser.parse_args(argv)
    try:
        print(lua_package_path())
    except ValueError as error:
        print(f"kong-ai-proxy lua-path: {error}", file=sys.stderr)
        return 1
    return 0
