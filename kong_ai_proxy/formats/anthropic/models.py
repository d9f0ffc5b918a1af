"""What Claude models accept, as far as requests differ between them.

A request's shape depends on the model's generation: how thinking is asked for, and whether
structured outputs exist. The name says the generation, whoever serves the model: claude-opus-4-7,
us.anthropic.claude-opus-4-6-v1, claude-opus-4-5@20251101, claude-3-7-sonnet-20250219.
Sources: https://platform.claude.com/docs/en/about-claude/models/migration-guide,
https://platform.claude.com/docs/en/build-with-claude/adaptive-thinking.
"""

from __future__ import annotations

import re

# A date of eight digits is no minor version.
_VERSION = re.compile(r"claude-(?:[a-z]+-)?v?([0-9]{1,2})(?:[-.:]([0-9]{1,2}))?(?![0-9])")
_ALWAYS_THINKS = re.compile(r"claude-(?:fable|mythos)")

Generation = tuple[int, int]
UNKNOWN: Generation = (0, 0)
NEWEST: Generation = (99, 0)


def generation(model: str) -> Generation:
    """Major and minor version of a Claude model. NEWEST for one that names none; UNKNOWN for other
    models, which servers that speak this format may have."""
    found = _VERSION.search(model)
    if found:
        return int(found[1]), int(found[2] or 0)
    return NEWEST if "claude-" in model else UNKNOWN


def always_thinks(model: str) -> bool:
    """Whether `thinking: disabled` is refused."""
    return _ALWAYS_THINKS.search(model) is not None


def thinks_adaptively(model: str) -> bool:
    """Whether the model decides itself how much to think, guided by an effort; earlier ones, and
    models that are no Claude, take a budget of tokens."""
    return generation(model) >= (4, 6) or always_thinks(model)


def has_structured_outputs(model: str) -> bool:
    """Whether `output_config.format` and `strict` tools exist; of other models it is assumed.
    https://platform.claude.com/docs/en/build-with-claude/structured-outputs"""
    found = generation(model)
    return found == UNKNOWN or found >= (4, 5)
