"""Headers that an answer gets on its way to the client."""

from __future__ import annotations

import re
from functools import lru_cache

from kong_ai_proxy.exchange.answer import MODEL_HEADER

DROPPED_HEADER = "x-kong-ai-dropped-params"
MAX_MODEL_HEADER = 512
"""Longest value of the header that names it: the name may be the client's."""

MAX_DROPPED_HEADER = 1024
"""Longest list of what was dropped."""


def added(model: str, dropped: tuple[str, ...]) -> dict[str, str]:
    """Those of an answer by this model, "" for one that is not to be named, where these parameters
    of the client's were dropped."""
    headers: dict[str, str] = {}
    if model:
        headers[MODEL_HEADER] = _header_text(model)[:MAX_MODEL_HEADER]
    if dropped:
        headers[DROPPED_HEADER] = _listed(dropped)
    return headers


def _listed(names: tuple[str, ...]) -> str:
    """The names for a header, as many as fit: they may be the client's."""
    shown: list[str] = []
    length = 0
    for name in names:
        text = _header_text(name).replace(",", "%2C")
        length += len(text) + 2
        if length > MAX_DROPPED_HEADER:
            return f"{', '.join(shown)}, ... and {len(names) - len(shown)} more".lstrip(", ")
        shown.append(text)
    return ", ".join(shown)


@lru_cache(maxsize=1024)
def _header_text(text: str) -> str:
    """`text` with what a header value cannot hold percent-encoded: the name is the client's."""
    return re.sub(
        r"[^\x21-\x7e]", lambda match: "".join(f"%{b:02X}" for b in match[0].encode()), text
    )
