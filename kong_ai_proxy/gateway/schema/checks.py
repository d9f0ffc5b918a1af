"""Kong's entity checks: rules between the fields of one record.

`run` works like Kong's: a check sees only the fields it names; it does not run when one of them is
a vault reference, and its message goes to the record's `@entity` list. A checker's first result is
what its message quotes.

In the records here a missing key is Lua's nil and None is Kong's null: the two behave differently
in several checks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from kong_ai_proxy.gateway.schema.values import quoted

Field = dict[str, Any]
Errors = dict[str | int, Any]
Validate = Callable[[Field, object], "str | Errors | None"]

MISSING: Final = object()
_REQUIRED_FOR_CHECK = "field required for entity check"


def is_reference(value: object) -> bool:
    """Whether `value` is a vault reference: `{vault://...}`."""
    return isinstance(value, str) and value.startswith("{vault://") and value.endswith("}")


def get_path(record: object, path: str) -> object:
    """The value at a dotted path, MISSING when a step of it is not there."""
    for name in path.split("."):
        if not isinstance(record, dict) or name not in record:
            return MISSING
        record = record[name]
    return record


def set_path(record: dict[Any, Any], path: str, value: object) -> None:
    """Set the value at a dotted path; a text in the way stays, as it says more already."""
    *parents, last = path.split(".")
    for name in parents:
        record = record.setdefault(name, {})
        if not isinstance(record, dict):
            return
    record[last] = value


def field_at(fields: dict[str, Field], path: str) -> Field:
    """The schema's field at a dotted path; empty when the schema has none."""
    field: Field = {"fields": fields}
    for name in path.split("."):
        field = field.get("fields", {}).get(name, {})
    return field


def _filled(entity: dict[str, Any], name: str) -> bool:
    """Whether a field is set and not empty: neither nil, null, an empty text nor an empty table."""
    value = get_path(entity, name)
    return value is not MISSING and value is not None and value not in ("", [], {})


@dataclass(frozen=True)
class _Case:
    """One check at work: its argument, the fields it may see, and the record's schema."""

    entity: dict[str, Any]
    arg: Any
    fields: dict[str, Field]
    errors: Errors
    validate: Validate

    def count(self, names: list[str]) -> int:
        return sum(_filled(self.entity, name) for name in names)

    def matches(self, rule: str, field: str, value: object) -> str | Errors | None:
        """Validate a value against `arg[rule]` on top of the field's own definition."""
        return self.validate({**field_at(self.fields, field), **self.arg[rule]}, value)


# A checker returns None when it is content, else (what the message quotes, a message of the
# schema's author that replaces Kong's).
_Verdict = tuple[str, str | None] | None


def _at_least_one_of(case: _Case) -> _Verdict:
    return None if case.count(case.arg) else (quoted(case.arg), None)


def _only_one_of(case: _Case) -> _Verdict:
    return None if case.count(case.arg) == 1 else (quoted(case.arg), None)


def _mutually_required(case: _Case) -> _Verdict:
    return None if case.count(case.arg) in (0, len(case.arg)) else (quoted(case.arg), None)


def _mutually_exclusive(case: _Case) -> _Verdict:
    return None if case.count(case.arg) <= 1 else (quoted(case.arg), None)


def _mutually_exclusive_sets(case: _Case) -> _Verdict:
    first, second = (
        [name for name in case.arg[key] if _filled(case.entity, name)] for key in ("set1", "set2")
    )
    return (f"({quoted(first)}), ({quoted(second)})", None) if first and second else None


def _distinct(case: _Case) -> _Verdict:
    values = [get_path(case.entity, name) for name in case.arg if _filled(case.entity, name)]
    # Lua compares tables by identity: two equal lists are distinct.
    scalars = [(type(v), v) for v in values if not isinstance(v, dict | list)]
    return None if len(scalars) == len(set(scalars)) else (quoted(case.arg), None)


def _conditional(case: _Case) -> _Verdict:
    arg = case.arg
    if case.matches("if_match", arg["if_field"], get_path(case.entity, arg["if_field"])):
        return None
    value = get_path(case.entity, arg["then_field"])
    value = None if value is MISSING else value
    if arg["then_match"].get("required") is True and value is None:
        set_path(case.errors, arg["then_field"], "required field missing")
        return arg["if_field"], None
    error = case.matches("then_match", arg["then_field"], value)
    if error is None:
        return None
    set_path(case.errors, arg["then_field"], error)
    own = arg.get("then_err")
    return arg["if_field"], own.replace("%s", arg["if_field"]) if own else None


def _conditional_at_least_one_of(case: _Case) -> _Verdict:
    arg = case.arg
    value = get_path(case.entity, arg["if_field"])
    if value is MISSING:
        return None
    names, own = arg["then_at_least_one_of"], arg.get("then_err")
    if case.matches("if_match", arg["if_field"], value):
        if "else_match" not in arg or case.matches("else_match", arg["if_field"], value):
            return None
        names, own = arg["else_then_at_least_one_of"], arg.get("else_then_err")
    if case.count(names):
        return None
    return quoted(names), own.replace("%s", quoted(names)) if own else None


@dataclass(frozen=True)
class _Checker:
    run: Callable[[_Case], _Verdict]
    message: str
    sources: tuple[str, ...] = ()  # the argument's keys that name fields; none: it is the list
    required: tuple[str, ...] = ()  # those of them whose fields must be there
    with_missing: bool = False
    with_invalid: bool = False


_NON_EMPTY = "at least one of these fields must be non-empty: %s"

CHECKERS: Final = {
    "at_least_one_of": _Checker(_at_least_one_of, _NON_EMPTY, with_missing=True, with_invalid=True),
    "conditional_at_least_one_of": _Checker(
        _conditional_at_least_one_of,
        _NON_EMPTY,
        sources=("if_field", "then_at_least_one_of", "else_then_at_least_one_of"),
        with_missing=True,
        with_invalid=True,
    ),
    "only_one_of": _Checker(
        _only_one_of, "exactly one of these fields must be non-empty: %s", with_invalid=True
    ),
    "distinct": _Checker(
        _distinct, "values of these fields must be distinct: %s", with_invalid=True
    ),
    "conditional": _Checker(
        _conditional,
        "failed conditional validation given value of field '%s'",
        sources=("if_field", "then_field"),
        required=("if_field",),
        with_invalid=True,
    ),
    "mutually_required": _Checker(
        _mutually_required, "all or none of these fields must be set: %s", with_missing=True
    ),
    "mutually_exclusive": _Checker(
        _mutually_exclusive, "only one or none of these fields must be set: %s", with_missing=True
    ),
    "mutually_exclusive_sets": _Checker(
        _mutually_exclusive_sets,
        "these sets are mutually exclusive: %s",
        sources=("set1", "set2"),
        with_missing=True,
    ),
}


def _names(arg: Any, keys: tuple[str, ...]) -> list[str]:
    """The field names an argument gives under `keys`, each a name or a list of names."""
    found: list[str] = []
    for key in keys:
        value = arg.get(key, [])
        found += [value] if isinstance(value, str) else value
    return found


def run(
    check: dict[str, Any],
    record: dict[Any, Any],
    fields: dict[str, Field],
    errors: Errors,
    validate: Validate,
) -> None:
    """Run one entity check over `record` and add what it finds to `errors`."""
    ((name, arg),) = check.items()
    checker = CHECKERS[name]
    names = _names(arg, checker.sources) if checker.sources else list(arg)
    required = set(_names(arg, checker.required)) if checker.sources else set(names)
    options = arg if isinstance(arg, dict) else {}
    with_missing = checker.with_missing or bool(options.get("run_with_missing_fields"))

    seen: dict[str, Any] = {}
    for path in names:
        value = get_path(record, path)
        if value is MISSING:
            continue
        if field_at(fields, path).get("referenceable") and is_reference(value):
            return
        set_path(seen, path, value)
    missing = [path for path in names if path in required and get_path(seen, path) is MISSING]

    with_invalid = checker.with_invalid or options.get("run_with_invalid_fields")
    if not with_invalid and any(path in errors for path in names):
        return
    if not seen and not checker.with_missing:
        return
    if missing and not with_missing:
        for path in missing:
            set_path(errors, path, _REQUIRED_FOR_CHECK)
        return
    verdict = checker.run(_Case(seen, arg, fields, errors, validate))
    if verdict is not None:
        quote, own = verdict
        errors.setdefault("@entity", []).append(own or checker.message.replace("%s", quote))
