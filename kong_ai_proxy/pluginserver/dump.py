"""`kong-ai-proxy dump PLUGIN`: what Kong's query_cmd asks for, one JSON document on stdout.

Kong waits for it when it starts, so nothing heavy is imported and the packaged schema goes into the
document as it lies there, unparsed.
"""

from __future__ import annotations

import argparse
import re
import sys

from kong_ai_proxy import __version__, resources

PRIORITY = 770
"""Of both plugins, as in Kong: after authentication, before the plugins that change responses."""

_PROTOCOLS = {"protobuf": "ProtoBuf:1", "msgpack": "MsgPack:1"}
_SUFFIX = ".kong.json"


def main(argv: list[str]) -> int:
    """Print the document. Exit status 0; 2 for a plugin that does not exist; 1 when the
    installation is without its schemas."""
    try:
        options = _parser(plugins()).parse_args(argv)
        text = document(options.plugin, options.protocol)
    except FileNotFoundError as error:
        print(f"kong-ai-proxy dump: {error}", file=sys.stderr)
        return 1
    sys.stdout.buffer.write(text + b"\n")
    sys.stdout.flush()
    return 0


def plugins() -> list[str]:
    """The plugins whose schema is packaged. Raises FileNotFoundError when there is none."""
    folder = resources.path("schemas")
    names = sorted(file.name.removesuffix(_SUFFIX) for file in folder.glob("*" + _SUFFIX))
    if not names:
        raise FileNotFoundError(f"{folder} holds no schema: run `make schemas`")
    return names


def document(plugin: str, protocol: str) -> bytes:
    """The document for one plugin: Kong (3.9 and later) reads only the first of a dump."""
    schema = resources.path("schemas", plugin + _SUFFIX).read_bytes().strip()
    head = (
        f'{{"Protocol":"{_PROTOCOLS[protocol]}","Plugins":[{{"Name":"{plugin}",'
        f'"Phases":["access"],"Priority":{PRIORITY},"Version":"{kong_version(__version__)}",'
        '"Schema":'
    )
    return head.encode() + schema + b"}]}"


def kong_version(version: str) -> str:
    """`version` as Kong wants a plugin's: x.y.z, without the mark of a pre-release."""
    match = re.match(r"\d+(\.\d+)*", version)
    numbers = match.group().split(".") if match else []
    return ".".join([*numbers, "0", "0", "0"][:3])


def _parser(names: list[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kong-ai-proxy dump",
        description="Print name, phases, priority, version and schema of a plugin as JSON, as "
        "Kong's pluginserver_NAME_query_cmd has to. `kong-ai-proxy kong-conf` prints that line.",
    )
    parser.add_argument("plugin", metavar="PLUGIN", choices=names, help=" or ".join(names))
    parser.add_argument(
        "--protocol",
        choices=tuple(_PROTOCOLS),
        default="protobuf",
        help="wire protocol, the same as serve's (default: protobuf)",
    )
    return parser
