"""How a failure of ours reads: to the client one fixed text, in the log where it happened.

An exception's own text may hold a credential or a client's words, so it goes to neither.
"""

from __future__ import annotations

import traceback
from typing import Final

import orjson

UNEXPECTED: Final = "An unexpected error occurred"
TOO_SLOW: Final = "The plugin took too long"
ENDING: Final = "The plugin server is ending"
OVERLOADED: Final = "The plugin server is overloaded"

HEADERS: Final = {"content-type": "application/json; charset=utf-8"}


def body_of(message: str) -> bytes:
    """The JSON body that tells a client what went wrong."""
    return orjson.dumps({"error": {"message": message}})


def frames_of(error: BaseException) -> str:
    """Types and places of an exception and of those that led to it, without their texts."""
    parts: list[str] = []
    seen: BaseException | None = error
    while seen is not None and len(parts) < 8:
        kind = f"{type(seen).__module__}.{type(seen).__qualname__}"
        parts.append(f"{kind} at\n{''.join(traceback.format_tb(seen.__traceback__, limit=-20))}")
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    return "caused by ".join(parts).rstrip()
