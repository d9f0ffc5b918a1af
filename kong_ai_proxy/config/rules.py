"""Rules between fields: how they are checked here and how they are said in a Kong schema.

They look at the configuration as it was written, not at the parsed models, so that a field that
is wrong in itself does not hide what is wrong beside it. The texts are Kong's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

Violation = tuple[str, str]
"""The field, relative to the rule's record, and what is wrong."""


class Rule(Protocol):
    """One rule of a record."""

    def check(self, record: Mapping[str, object]) -> Iterator[Violation]:
        """What in `record` breaks the rule."""

    def kong(self) -> dict[str, object] | None:
        """The rule as an entry of Kong's `entity_checks`; None when JSON cannot express it."""


def value_at(record: object, path: str) -> object:
    """The value at a dotted path, None where there is none."""
    for name in path.split("."):
        if not isinstance(record, Mapping):
            return None
        record = record.get(name)
    return record


def is_set(record: object, path: str) -> bool:
    """Kong's notion: neither null nor an empty string or table."""
    return value_at(record, path) not in (None, "", {}, [], ())


def _quoted(paths: tuple[str, ...]) -> str:
    return ", ".join(f"'{path}'" for path in paths)


@dataclass(frozen=True)
class AllOrNone:
    """Fields that are set together or not at all."""

    paths: tuple[str, ...]

    def check(self, record: Mapping[str, object]) -> Iterator[Violation]:
        missing = [path for path in self.paths if not is_set(record, path)]
        if missing and len(missing) < len(self.paths):
            yield missing[0], f"all or none of these fields must be set: {_quoted(self.paths)}"

    def kong(self) -> dict[str, object]:
        return {"mutually_required": list(self.paths)}


@dataclass(frozen=True)
class NotTogether:
    """Two sets of fields of which only one may be used."""

    one: tuple[str, ...]
    other: tuple[str, ...]

    def check(self, record: Mapping[str, object]) -> Iterator[Violation]:
        one = tuple(path for path in self.one if is_set(record, path))
        other = tuple(path for path in self.other if is_set(record, path))
        if one and other:
            sets = f"({_quoted(one)}), ({_quoted(other)})"
            yield other[0], f"these sets are mutually exclusive: {sets}"

    def kong(self) -> dict[str, object]:
        return {"mutually_exclusive_sets": {"set1": list(self.one), "set2": list(self.other)}}


@dataclass(frozen=True)
class Needs:
    """When `path` has `value`, at least one of `fields` must be set; the first is the usual one."""

    path: str
    value: str | bool
    fields: tuple[str, ...]
    message: str

    def check(self, record: Mapping[str, object]) -> Iterator[Violation]:
        if value_at(record, self.path) != self.value:
            return
        if not any(is_set(record, field) for field in self.fields):
            yield self.fields[0], self.message

    def kong(self) -> dict[str, object]:
        # Not `conditional`: that one fails when the record that `path` is in is null.
        return {
            "conditional_at_least_one_of": {
                "if_field": self.path,
                "if_match": {"eq": self.value},
                "then_at_least_one_of": list(self.fields),
                "then_err": self.message,
            }
        }


@dataclass(frozen=True)
class MustNotBe:
    """When `path` is one of `values`, `field` must not be `wrong`."""

    path: str
    values: tuple[str, ...]
    field: str
    wrong: str | bool
    message: str

    def check(self, record: Mapping[str, object]) -> Iterator[Violation]:
        concerned = value_at(record, self.path) in self.values
        if concerned and value_at(record, self.field) == self.wrong:
            yield self.field, self.message

    def kong(self) -> dict[str, object]:
        # `ne` and not `eq`: a record that is null has no wrong value in it.
        return {
            "conditional": {
                "if_field": self.path,
                "if_match": {"one_of": list(self.values)},
                "then_field": self.field,
                "then_match": {"ne": self.wrong},
                "then_err": self.message,
            }
        }


@dataclass(frozen=True)
class Excludes:
    """When `path` has `value`, `field` must be left out."""

    path: str
    value: str | bool
    field: str
    message: str

    def check(self, record: Mapping[str, object]) -> Iterator[Violation]:
        if value_at(record, self.path) == self.value and is_set(record, self.field):
            yield self.field, self.message

    def kong(self) -> dict[str, object]:
        return {
            "conditional": {
                "if_field": self.path,
                "if_match": {"eq": self.value},
                "then_field": self.field,
                "then_match": {"eq": None},
                "then_err": self.message,
            }
        }


@dataclass(frozen=True)
class OneOf:
    """When `path` has `value`, `field` must be one of `allowed`. `message` says which are."""

    path: str
    value: str
    field: str
    allowed: tuple[str, ...]
    message: str

    def check(self, record: Mapping[str, object]) -> Iterator[Violation]:
        if value_at(record, self.path) != self.value:
            return
        if is_set(record, self.field) and value_at(record, self.field) not in self.allowed:
            yield self.field, self.message

    def kong(self) -> dict[str, object]:
        return {
            "conditional": {
                "if_field": self.path,
                "if_match": {"eq": self.value},
                "then_field": self.field,
                "then_match": {"one_of": list(self.allowed)},
                "then_err": self.message,
            }
        }


@dataclass(frozen=True)
class AllNeed:
    """When all of `when` hold, `field` must be set.

    Kong's `entity_checks` know one condition only.
    """

    when: tuple[tuple[str, str], ...]
    field: str
    wrong: str
    message: str

    def check(self, record: Mapping[str, object]) -> Iterator[Violation]:
        holds = all(value_at(record, path) == value for path, value in self.when)
        if holds and not is_set(record, self.field):
            yield self.wrong, self.message

    def kong(self) -> None:
        return None


@dataclass(frozen=True)
class NotBoth:
    """`when` must not all hold; `field` is what is wrong then.

    Kong's `entity_checks` know one condition only.
    """

    when: tuple[tuple[str, str], ...]
    field: str
    message: str

    def check(self, record: Mapping[str, object]) -> Iterator[Violation]:
        if all(value_at(record, path) == value for path, value in self.when):
            yield self.field, self.message

    def kong(self) -> None:
        return None


@dataclass(frozen=True)
class EachNeeds:
    """When all of `when` hold, each element of the array `array` must have `field`.

    Kong's `entity_checks` cannot look into an array.
    """

    when: tuple[tuple[str, str], ...]
    array: str
    field: str
    message: str

    def check(self, record: Mapping[str, object]) -> Iterator[Violation]:
        if any(value_at(record, path) != value for path, value in self.when):
            return
        elements = value_at(record, self.array)
        for index, element in enumerate(elements if isinstance(elements, list | tuple) else ()):
            if not is_set(element, self.field):
                yield f"{self.array}[{index}].{self.field}", self.message

    def kong(self) -> None:
        return None


@dataclass(frozen=True)
class EachValue:
    """When `when` holds, each text in the array `array` must be one that `accepts` takes.

    `pattern` is what a Kong schema can say of it: attributes of the array's elements.
    """

    when: tuple[str, str]
    array: str
    accepts: Callable[[str], bool]
    pattern: Mapping[str, object]
    message: str

    def check(self, record: Mapping[str, object]) -> Iterator[Violation]:
        path, value = self.when
        if value_at(record, path) != value:
            return
        elements = value_at(record, self.array)
        for index, element in enumerate(elements if isinstance(elements, list | tuple) else ()):
            if isinstance(element, str) and element and not self.accepts(element):
                yield f"{self.array}[{index}]", self.message

    def kong(self) -> dict[str, object]:
        path, value = self.when
        return {
            "conditional": {
                "if_field": path,
                "if_match": {"eq": value},
                "then_field": self.array,
                "then_match": {"elements": {"type": "string", **self.pattern}},
                "then_err": self.message,
            }
        }


@dataclass(frozen=True)
class NotEnforced:
    """A rule of Kong's that does not hold here."""

    name: str
    rule: str
    reason: str


_ANY_FORMAT = "every client format works with every provider here: formats are converted"

NOT_ENFORCED = (
    NotEnforced(
        "native_route_type",
        "llm_format bedrock or gemini only with route_type llm/v1/chat",
        _ANY_FORMAT,
    ),
    NotEnforced(
        "native_provider",
        "llm_format bedrock, gemini, cohere or huggingface only with the provider of that name; "
        "anthropic only with eight providers",
        _ANY_FORMAT,
    ),
    NotEnforced(
        "statistics_unsupported",
        "logging.log_statistics not with Anthropic's completions nor with audio route types",
        "statistics are counted for every route type",
    ),
    NotEnforced(
        "max_request_body_size",
        "max_request_body_size must be greater than 0",
        "0 means no limit, as in Kong since 3.13",
    ),
    NotEnforced(
        "cost_needs_statistics",
        "balancer.tokens_count_strategy cost needs logging.log_statistics on every target",
        "the balancer counts usage whether or not it is logged",
    ),
)
"""Rules that Kong's schema or documentation states and that are not applied, with the reason."""


REFUSED: Mapping[str, str] = {
    "balancer.tokens_count_strategy llm-accuracy": (
        "llm-accuracy needs the Enterprise plugin ai-llm-as-judge, whose judgements stay inside "
        "Kong: choose total-tokens, prompt-tokens, completion-tokens or cost"
    ),
}
"""What Kong takes and is refused here for good: the configuration that asks for it, and why."""
