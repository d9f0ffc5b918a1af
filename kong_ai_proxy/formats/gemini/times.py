"""Times and numbers as Google's JSON has them: https://protobuf.dev/programming-guides/json/."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime

_NUMBER = re.compile(r"-?[0-9]{1,18}")


def seconds(value: Mapping[str, object], name: str) -> int | None:
    """The time that the member `name` tells, in whole seconds since 1970; None for none."""
    told = value.get(name)
    if not isinstance(told, str):
        return None
    try:
        return int(datetime.fromisoformat(told).timestamp())
    except (ValueError, OverflowError):
        return None


def number(value: Mapping[str, object], name: str) -> int | None:
    """The whole number that the member `name` tells: those of 64 bits are strings. None for
    none."""
    told = value.get(name)
    if type(told) is int:
        return told
    return int(told) if isinstance(told, str) and _NUMBER.fullmatch(told) else None
