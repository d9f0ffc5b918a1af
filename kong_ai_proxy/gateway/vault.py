"""Kong's `env` vault: `{vault://env/my-key}` is the environment variable MY_KEY."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from urllib.parse import parse_qs, unquote, urlsplit


class Unresolved(Exception):  # noqa: N818 - a result
    """A reference without a value; the text says why."""


def lookup(reference: str, env: Mapping[str, str]) -> str:
    """The value of `{vault://env/name}`, or of `{vault://env/name/key}` in a JSON object.

    `?prefix=X_` goes before the name; dashes become underscores, letters capitals. Raises
    Unresolved.
    """
    parts = urlsplit(reference.strip("{}"))
    if parts.scheme != "vault" or parts.netloc != "env":
        raise Unresolved(f"could not find vault ({parts.netloc}): the stand-in has env only")
    resource, _, key = unquote(parts.path).strip("/").partition("/")
    prefix = parse_qs(parts.query).get("prefix", [""])[0]
    value = env.get((prefix + resource).replace("-", "_").upper())
    if value is None:
        raise Unresolved("no value found")
    return _subfield(value, key) if key else value


def _subfield(value: str, key: str) -> str:
    try:
        secret = json.loads(value)
    except ValueError:
        secret = None
    if not isinstance(secret, dict):
        raise Unresolved("could not get subfield value: unable to json decode value")
    if key not in secret:
        raise Unresolved(f"could not get subfield value: subfield {key} not found in JSON secret")
    if not isinstance(secret[key], str):
        raise Unresolved(f"could not get subfield value: subfield {key} is not a string")
    return str(secret[key])


def resolver(env: Mapping[str, str], warn: Callable[[str], None]) -> Callable[[str], str]:
    """A lookup as Kong's loader does it: what cannot be resolved is a warning and an empty text."""

    def resolve(reference: str) -> str:
        try:
            return lookup(reference, env)
        except Unresolved as reason:
            warn(f"unable to resolve reference {reference} ({reason})")
            return ""

    return resolve
