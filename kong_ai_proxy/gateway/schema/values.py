"""The rules a Kong schema puts on one value: `one_of`, `between`, `len_min`, `match` and so on.

Each rule takes the value and the schema's argument and returns Kong's message, or None when the
value passes. The order in `RULES` is Kong's: the first rule that fails gives the message.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)

# What Lua's character classes stand for (ASCII, as in Kong's C locale).
_CLASSES: Final = {
    "a": "A-Za-z",
    "c": r"\x00-\x1f\x7f",
    "d": "0-9",
    "l": "a-z",
    "p": r"!-/:-@\[-`{-~",
    "s": r" \t\n\r\f\v",
    "u": "A-Z",
    "w": "A-Za-z0-9",
    "x": "0-9A-Fa-f",
}


def same(left: object, right: object) -> bool:
    """Equality as Lua has it: true is not 1."""
    return isinstance(left, bool) == isinstance(right, bool) and left == right


def lua_text(value: object) -> str:
    """A scalar as Lua's tostring writes it: `true`, `0.5`, `1`, `nil`."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.14g}"
    return "null" if value is None else str(value)


def listed(options: list[object]) -> str:
    """Values separated by commas, without quotes: `a, b`."""
    return ", ".join(lua_text(option) for option in options)


def quoted(names: list[Any]) -> str:
    """Names in single quotes; a list within the list in parentheses: `'a', ('b', 'c')`."""
    return ", ".join(f"({quoted(n)})" if isinstance(n, list) else f"'{n}'" for n in names)


@lru_cache(maxsize=256)
def lua_pattern(pattern: str) -> re.Pattern[str]:
    """A Lua pattern as a regular expression to `search` with.

    Raises ValueError for `%b`, `%f` and back references, which have no counterpart.
    """
    out: list[str] = []
    at = 0
    if pattern.startswith("^"):
        out.append(r"\A")
        at = 1
    while at < len(pattern):
        if pattern[at] == "$" and at == len(pattern) - 1:
            out.append(r"\Z")
            break
        item, at = _pattern_item(pattern, at)
        out.append(item)
        if at < len(pattern) and pattern[at] in "*+-?" and item not in "()":
            out.append("*?" if pattern[at] == "-" else pattern[at])
            at += 1
    return re.compile("".join(out), re.DOTALL)


def _pattern_item(pattern: str, at: int) -> tuple[str, int]:
    """One item of a Lua pattern as a regular expression, and where the next one begins."""
    char = pattern[at]
    if char == "%":
        return f"[{_escaped(pattern, at)}]", at + 2
    if char == "[":
        return _pattern_set(pattern, at)
    if char in "().":
        return char, at + 1
    return re.escape(char), at + 1


def _escaped(pattern: str, at: int) -> str:
    """What `%x` at `at` stands for, written for the inside of a character set."""
    if at + 1 >= len(pattern):
        raise ValueError(f"the Lua pattern {pattern!r} ends with %")
    char = pattern[at + 1]
    if char in "bf" or char.isdigit():
        raise ValueError(f"%{char} in the Lua pattern {pattern!r} is not supported")
    if char.lower() in _CLASSES:
        ranges = _CLASSES[char.lower()]
        return ranges if char.islower() else f"^{ranges}"
    return re.escape(char)


def _pattern_set(pattern: str, at: int) -> tuple[str, int]:
    """A set `[...]`, which may hold classes and ranges, and where the next item begins."""
    out = ["["]
    at += 1
    if pattern[at : at + 1] == "^":
        out.append("^")
        at += 1
    first = True
    while first or pattern[at : at + 1] != "]":
        if at >= len(pattern):
            raise ValueError(f"the Lua pattern {pattern!r} has a set without end")
        if pattern[at] == "%":
            text = _escaped(pattern, at)
            if text.startswith("^"):
                raise ValueError(f"a complement in a set of {pattern!r} is not supported")
            out.append(text)
            at += 2
        else:
            out.append(pattern[at] if pattern[at] == "-" else re.escape(pattern[at]))
            at += 1
        first = False
    return "".join([*out, "]"]), at + 1


def _length(value: object) -> int:
    return len(value.encode()) if isinstance(value, str) else len(value)  # type: ignore[arg-type]


def _matches(value: str, pattern: str) -> bool:
    return lua_pattern(pattern).search(value) is not None


def _eq(value: object, wanted: object) -> str | None:
    return None if same(value, wanted) else f"value must be {lua_text(wanted)}"


def _ne(value: object, unwanted: object) -> str | None:
    return f"value must not be {lua_text(value)}" if same(value, unwanted) else None


def _one_of(value: object, options: list[object]) -> str | None:
    if any(same(value, option) for option in options):
        return None
    return f"expected one of: {listed(options)}"


def _not_one_of(value: object, options: list[object]) -> str | None:
    if any(same(value, option) for option in options):
        return f"must not be one of: {listed(options)}"
    return None


def _gt(value: float, limit: float) -> str | None:
    return None if value > limit else f"value must be greater than {lua_text(limit)}"


def _timestamp(value: float, _: object) -> str | None:
    return None if value > 0 else "expected a valid timestamp"


def _uuid(value: str, _: object) -> str | None:
    return None if _UUID.fullmatch(value) else "expected a valid UUID"


def _between(value: float, limits: list[float]) -> str | None:
    low, high = limits
    if low <= value <= high:
        return None
    return f"value should be between {int(low)} and {int(high)}"


def _len_eq(value: object, length: int) -> str | None:
    return None if _length(value) == length else f"length must be {length}"


def _len_min(value: object, length: int) -> str | None:
    return None if _length(value) >= length else f"length must be at least {length}"


def _len_max(value: object, length: int) -> str | None:
    return None if _length(value) <= length else f"length must be at most {length}"


def _starts_with(value: str, prefix: str) -> str | None:
    return None if value.startswith(prefix) else f"should start with: {prefix}"


def _not_match(value: str, pattern: str) -> str | None:
    return f"invalid value: {value}" if _matches(value, pattern) else None


def _match(value: str, pattern: str) -> str | None:
    return None if _matches(value, pattern) else f"invalid value: {value}"


def _match_none(value: str, rules: list[dict[str, str]]) -> str | None:
    return next((rule["err"] for rule in rules if _matches(value, rule["pattern"])), None)


def _match_all(value: str, rules: list[dict[str, str]]) -> str | None:
    return next((rule["err"] for rule in rules if not _matches(value, rule["pattern"])), None)


def _match_any(value: str, rule: dict[str, Any]) -> str | None:
    if any(_matches(value, pattern) for pattern in rule["patterns"]):
        return None
    return str(rule.get("err") or f"invalid value: {value}")


def _contains(value: list[object], wanted: object) -> str | None:
    if any(same(item, wanted) for item in value):
        return None
    return f"expected to contain: {lua_text(wanted)}"


def _mutually_exclusive_subsets(value: list[object], subsets: list[list[object]]) -> str | None:
    used = [subset for subset in subsets if any(item in subset for item in value)]
    if len(used) <= 1:
        return None
    return f"these sets are mutually exclusive: {quoted(used)}"


RULES: Final[dict[str, Callable[[Any, Any], str | None]]] = {
    "eq": _eq,
    "ne": _ne,
    "not_one_of": _not_one_of,
    "one_of": _one_of,
    "gt": _gt,
    "timestamp": _timestamp,
    "uuid": _uuid,
    "between": _between,
    "len_eq": _len_eq,
    "len_min": _len_min,
    "len_max": _len_max,
    "starts_with": _starts_with,
    "not_match": _not_match,
    "match_none": _match_none,
    "match": _match,
    "match_all": _match_all,
    "match_any": _match_any,
    "contains": _contains,
    "mutually_exclusive_subsets": _mutually_exclusive_subsets,
}


def broken_rule(field: dict[str, Any], value: object) -> str | None:
    """Kong's message of the first rule of `field` that `value` breaks; None when it keeps all."""
    for name, rule in RULES.items():
        if name in field:
            message = rule(value, field[name])
            if message is not None:
                return str(field.get("err") or message)
    return None
