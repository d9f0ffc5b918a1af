"""`python -m kong_ai_proxy.config.export`: writes both schemas of both plugins into schemas/."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from kong_ai_proxy.config import PLUGINS, json_schema, kong_schema

_SCHEMAS = Path(__file__).resolve().parents[2] / "schemas"


def documents() -> Iterator[tuple[str, str]]:
    """The name and the text of each file."""
    for plugin in PLUGINS:
        yield f"{plugin}.kong.json", _text(kong_schema.export(plugin))
        yield f"{plugin}.schema.json", _text(json_schema.export(plugin))


def main(argv: list[str]) -> int:
    """Write the files, into the folder `argv[0]` when given."""
    folder = Path(argv[0]) if argv else _SCHEMAS
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in documents():
        (folder / name).write_text(text, encoding="utf-8")
        print(folder / name)
    return 0


def _text(document: dict[str, object]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
