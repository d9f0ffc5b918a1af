"""Files that belong to the package but live at the top of the repository."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def path(*parts: str) -> Path:
    """The path of `schemas/...` or `examples/...`, in a wheel or in a checkout.

    Raises FileNotFoundError when neither place has it.
    """
    for root in (_PACKAGE / "_data", _PACKAGE.parent):
        candidate = root.joinpath(*parts)
        if candidate.exists():
            return candidate
    raise FileNotFoundError(f"kong-ai-proxy is installed without {'/'.join(parts)}")
