"""What makes a target the same one in two configurations: what is asked of whom.

Another weight, description, alias, price, logging or metadata makes no other target, nor does an
option that has its default.
"""

from __future__ import annotations

import collections
import hashlib
import itertools
import json
from collections.abc import Iterable, Sequence
from typing import Final

from kong_ai_proxy.config import Target

_PRICES: Final = {
    "cache_read_cost",
    "cache_write_cost",
    "cache_write_cost_list",
    "context_window_factor",
    "input_cost",
    "output_cost",
    "service_tier_factor",
}


def identities(targets: Sequence[Target]) -> tuple[str, ...]:
    """A text for each target, without secrets. Equal targets are told apart by their order."""
    return _numbered(map(_asked, targets))


def keys(plugin_id: str, targets: Sequence[Target]) -> list[int]:
    """A key for each target of a plugin, of 64 bits and never 0. Here it matters too as whom the
    provider is asked, because providers limit that."""
    texts = _numbered(_asked(target) + _asking(target) for target in targets)
    return [_key(plugin_id, text) for text in texts]


def _asked(target: Target) -> str:
    model = target.model
    options = model.options.model_dump(mode="json", exclude_defaults=True, exclude=_PRICES)
    return json.dumps([model.provider, model.name, target.route_type, options], sort_keys=True)


def _asking(target: Target) -> str:
    return json.dumps(target.auth.model_dump(mode="json", exclude_defaults=True), sort_keys=True)


def _numbered(texts: Iterable[str]) -> tuple[str, ...]:
    seen: dict[str, itertools.count[int]] = collections.defaultdict(itertools.count)
    return tuple(f"{next(seen[text])} {text}" for text in texts)


def _key(plugin_id: str, text: str) -> int:
    digest = hashlib.blake2b(json.dumps([plugin_id, text]).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True) or 1
