"""Which targets can answer a request, by the model that the client named."""

from __future__ import annotations

from collections.abc import Sequence

from kong_ai_proxy.config import Target


class UnknownModelError(ValueError):
    """Every target has an alias and the client named none of them."""


def candidates(targets: Sequence[Target], requested: str | None) -> tuple[int, ...]:
    """The indexes of the targets among which an algorithm may choose.

    An alias selects its targets, then a model's own name does; a request without a model may go
    to any. Where every target has an alias, an unknown name raises UnknownModelError; otherwise
    it is left to the model rules of the targets without one.
    """
    everywhere = tuple(range(len(targets)))
    if requested is None:
        return everywhere
    if len(targets) == 1 and targets[0].model.model_alias is None:
        return everywhere
    for attribute in ("model_alias", "name"):
        found = tuple(i for i in everywhere if getattr(targets[i].model, attribute) == requested)
        if found:
            return found
    rest = tuple(i for i in everywhere if targets[i].model.model_alias is None)
    if not rest:
        raise UnknownModelError("model not configured")
    return rest


def share_requests(targets: Sequence[Target]) -> bool:
    """Whether a request that names a model may have several candidates."""
    aliases = [target.model.model_alias for target in targets]
    return len(aliases) > 1 and (None in aliases or len(set(aliases)) < len(aliases))
