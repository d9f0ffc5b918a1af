"""A target's `metadata`: free entries, of which those named like a model option are that option.

They fill in what `model.options` leaves at its default (Kong writes defaults into what it sends, so
one that was written is none to tell apart) and are validated like it. Kong's own schema library
knows maps of texts only: a text that stands where a number, truth value, record or array belongs is
read as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kong_ai_proxy.config.errors import Problem
from kong_ai_proxy.config.shapes import Shape

Place = tuple[int, tuple[str, ...]]
"""Index of a target, and an option's names below `model.options`."""


def filled(
    config: Mapping[str, Any], options: Shape
) -> tuple[Mapping[str, Any], tuple[Place, ...]]:
    """`config` with such entries among its targets' options, and which options they are.

    `options` is the shape of `model.options`. A configuration that is no proper one is left as it
    is where that shows.
    """
    targets = config.get("targets") if isinstance(config, Mapping) else None
    if not isinstance(targets, list):
        return config, ()
    places: list[Place] = []
    changed = []
    for index, target in enumerate(targets):
        found = list(_entries(target, options))
        places += ((index, path) for path, _ in found)
        changed.append(_with_options(target, found) if found else target)
    return ({**config, "targets": changed} if places else config), tuple(places)


def _entries(target: object, options: Shape) -> Iterator[tuple[tuple[str, ...], object]]:
    model = target.get("model") if isinstance(target, Mapping) else None
    metadata = target.get("metadata") if isinstance(target, Mapping) else None
    if isinstance(model, Mapping) and isinstance(metadata, Mapping):
        own = model.get("options")
        known = {name: value for name, value in metadata.items() if name in options.fields}
        yield from _unset(known, own if isinstance(own, Mapping) else {}, options)


def _unset(
    given: Mapping[str, object], own: Mapping[str, Any], shape: Shape
) -> Iterator[tuple[tuple[str, ...], object]]:
    """The entries of `given` whose fields `own` leaves at their default."""
    for name, text in given.items():
        field, value = shape.fields.get(name), own.get(name)
        if text is None:
            continue
        entry = _read(text, field) if field else text
        if field and field.kind == "record" and isinstance(entry, Mapping):
            inner = value if isinstance(value, Mapping) else {}
            yield from (((name, *path), item) for path, item in _unset(entry, inner, field))
        elif value in (None, "", [], {}) or (field and value == field.default):
            yield (name,), entry


def _read(value: object, field: Shape) -> object:
    if field.kind == "string" or not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value  # validation says what was expected


def _with_options(target: Any, entries: list[tuple[tuple[str, ...], object]]) -> dict[str, Any]:
    model = dict(target["model"])
    model["options"] = _with(model.get("options"), entries)
    return {**target, "model": model}


def _with(record: object, entries: Sequence[tuple[tuple[str, ...], object]]) -> dict[str, Any]:
    merged = dict(record) if isinstance(record, Mapping) else {}
    for (name, *rest), value in entries:
        merged[name] = _with(merged.get(name), [(tuple(rest), value)]) if rest else value
    return merged


def renamed(problem: Problem, places: tuple[Place, ...]) -> Problem:
    """The problem where the operator wrote what is wrong."""
    for index, path in places:
        option = f"config.targets[{index}].model.options.{'.'.join(path)}"
        rest = problem.field.removeprefix(option)
        if problem.field.startswith(option) and (not rest or rest[0] in ".["):
            written = f"config.targets[{index}].metadata.{'.'.join(path)}"
            return Problem(f"{written}{rest}", problem.message)
    return problem
