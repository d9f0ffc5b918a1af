"""Log fields as JSON of a bounded size."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import orjson

from kong_ai_proxy.telemetry.kong_log import PAYLOAD, TRIED_TARGETS

CUT = "... [cut, {} characters in all]"
"""What the end of a shortened payload says."""

_LEAST = 256
_CUT_ROOM = 64


Shape = Callable[[Mapping[str, object]], object]


def encoded(fields: Mapping[str, object], most: int, shape: Shape = dict) -> bytes:
    """`shape` of the fields as JSON of at most `most` bytes.

    When it is too long the payloads are shortened first, to equal shares of what the rest leaves;
    then the list of tried targets goes, and at last everything.
    """
    whole = dumps(shape(fields))
    if len(whole) <= most:
        return whole
    for shorter in (_with_short_payloads, _without_lists, _without_anything):
        whole = dumps(shape(shorter(fields, most - _length(shape({})))))
        if len(whole) <= most:
            return whole
    return b"{}"


def _with_short_payloads(fields: Mapping[str, object], most: int) -> Mapping[str, object]:
    payload = fields.get(PAYLOAD)
    if not isinstance(payload, dict) or not payload:
        return fields
    rest = _length({**fields, PAYLOAD: dict.fromkeys(payload, "")})
    return {**fields, PAYLOAD: _shared(payload, most - rest)}


def _without_lists(fields: Mapping[str, object], _: int) -> Mapping[str, object]:
    return {name: fields[name] for name in fields if name not in (PAYLOAD, TRIED_TARGETS)}


def _without_anything(_: Mapping[str, object], __: int) -> Mapping[str, object]:
    return {}


def _shared(payload: Mapping[str, str], room: int) -> dict[str, str]:
    """The shortest first: what it does not need of its share, the others get."""
    short: dict[str, str] = {}
    by_length = sorted(payload, key=lambda name: len(payload[name]))
    for index, name in enumerate(by_length):
        share = room // (len(by_length) - index)
        short[name] = shortened(payload[name], share)
        room -= _length(short[name])
    return short


def shortened(text: str, most: int) -> str:
    """`text` so cut that it takes at most `most` bytes in JSON, or "" where that is too few."""
    length = _length(text)
    if length <= most:
        return text
    room = most - _CUT_ROOM
    if room < _LEAST:
        return ""
    kept = text
    while length > room:
        kept = kept[: len(kept) * room // length]
        length = _length(kept)
    return kept + CUT.format(len(text))


def _length(value: object) -> int:
    return len(dumps(value))


def dumps(value: object) -> bytes:
    """`value` as JSON; text that is not UTF-8 shows its bytes as \\udcNN."""
    try:
        return orjson.dumps(value)
    except TypeError:  # a lone surrogate, which UTF-8 cannot hold
        return orjson.dumps(_clean(value))


def _clean(value: object) -> object:
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, Mapping):
        return {name: _clean(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_clean(item) for item in value]
    return value
