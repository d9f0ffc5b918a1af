"""What Cohere's endpoints have in common: usage, names of settings, errors.

https://docs.cohere.com/reference/chat, https://docs.cohere.com/reference/errors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from kong_ai_proxy.formats.errors import ProviderError
from kong_ai_proxy.formats.fields import object_of, parsed, plain_error, text_of
from kong_ai_proxy.formats.usage import MAX_COUNT, Usage

_MAX_P = 0.99

SAME = frozenset(
    {"temperature", "max_tokens", "seed", "frequency_penalty", "presence_penalty"},
)
"""Settings that are called alike here and there."""

FAILURES: Mapping[str, tuple[str, int]] = {
    "ERROR": ("the provider failed to generate the answer", 500),
    "TIMEOUT": ("the answer took longer than the provider allows", 504),
    "USER_CANCEL": ("the request was cancelled", 499),
}
"""Finish reasons of answers that are none: message and status. The statuses are those of the same
failures in https://docs.cohere.com/reference/errors."""


def failure(reason: str, message: str = "") -> ProviderError:
    """The error that a finish reason of FAILURES means."""
    known, status = FAILURES.get(reason, FAILURES["ERROR"])
    return ProviderError(message or known, type=reason, status=status)


def count(value: object) -> int | None:
    """A count, which Cohere writes as 18 or as 18.0; None for anything else."""
    if type(value) is float and value.is_integer():
        value = int(value)
    return value if type(value) is int and 0 <= value <= MAX_COUNT else None


def usage_of(told: Mapping[str, object]) -> Usage | None:
    """The usage in `usage` of a chat or `meta` of the older endpoints.

    Of both countings `billed_units` is taken: it is what the provider's prices are for, as Kong's
    costs are. `tokens` also has those of Cohere's own templates, and stands in where nothing is
    billed. `cached_tokens` counts in `tokens`, so it may be more than was billed.
    """
    billed, tokens = object_of(told, "billed_units"), object_of(told, "tokens")
    read, written = (
        _first(count(each.get(name)) for each in (billed, tokens))
        for name in ("input_tokens", "output_tokens")
    )
    if read is None and written is None:
        return None
    prompt, completion = read or 0, written or 0
    cached = min(count(told.get("cached_tokens")) or 0, prompt)
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=prompt + completion,
        prompt_details={"cached_tokens": cached} if cached else {},
    )


def _first(counts: Iterable[int | None]) -> int | None:
    return next((each for each in counts if each is not None), None)


def usage_object(usage: Usage) -> dict[str, object]:
    """The same for a client."""
    tokens = {"input_tokens": usage.prompt_tokens, "output_tokens": usage.completion_tokens}
    cached = usage.prompt_details.get("cached_tokens")
    return {
        "billed_units": tokens,
        "tokens": dict(tokens),
        **({"cached_tokens": cached} if cached else {}),
    }


def top_p(value: object) -> object:
    """`p` of a `top_p`: the largest that Cohere takes is 0.99, and 1, which leaves nothing out, is
    what many clients send."""
    if isinstance(value, int | float) and value > _MAX_P:
        return _MAX_P
    return value


def settings_from(
    body: Mapping[str, object], known: frozenset[str], names: Mapping[str, str]
) -> dict[str, object]:
    """The settings of a request: all members but `known`, some of them under other `names`."""
    return {
        names.get(name, name): value
        for name, value in body.items()
        if name not in known and value is not None
    }


def render_settings(
    settings: Mapping[str, object],
    body: dict[str, object],
    names: Mapping[str, str],
    takes: Callable[[str, object], bool],
) -> list[str]:
    """Put the settings into `body`; returns those that it does not take."""
    dropped = []
    for name, value in settings.items():
        if name == "top_p":
            body["p"] = top_p(value)
        elif takes(name, value):
            body[names.get(name, name)] = value
        elif not (name == "n" and value == 1):
            dropped.append(name)
    return dropped


def parse_error(status: int, body: bytes) -> ProviderError:
    """{"id": ..., "message": ...}, or whatever a proxy before it says."""
    value = parsed(body)
    found = error_of(value, status) if isinstance(value, dict) else None
    return found or plain_error(status, body)


def error_of(value: Mapping[str, object], status: int = 0) -> ProviderError | None:
    """The error that an object is; None where it is none."""
    message = text_of(value, "message") or text_of(value, "error")
    return ProviderError(message, status=status) if message else None


def render_error(error: ProviderError) -> object:
    """The same for a client. Cohere's have an `id` too, which only the provider knows."""
    return {"message": error.message}
