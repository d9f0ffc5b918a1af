"""Ids of answers whose provider gives none."""

from __future__ import annotations

import random
import string

_ALPHABET = string.ascii_letters + string.digits
_LENGTH = 24
_random = random.SystemRandom()


def new_id() -> str:
    """24 random letters and digits."""
    return "".join(_random.choices(_ALPHABET, k=_LENGTH))
