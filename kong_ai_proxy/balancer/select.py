"""Which targets can answer a request, by the model that the client named."""

from __future__ import annotations

from collections.abc import Sequence

from kong_ai_proxy.config import Target


class UnknownModelError(ValueError):
    """Every target has an alias and the client named none of them."""


def candidates(targets: Sequence[Target], requested: str | None) -> tuple[Target, ...]:
    """The targets among which an algorithm may choose.

    An alias selects its targets, then a model's own name does; a request without a model may go
    to any. Where every target has an alias, an unknown name raises UnknownModelError; otherwise
    it is left to the model rules of the targets without one.
    """
    if requested is None:
        return tuple(targets)
    if len(targets) == 1 and targets[0].model.model_alias is None:
        return tuple(targets)
    for attribute in ("model_alias", "name"):
        found = tuple(t for t in targets if getattr(t.model, attribute) == requested)
        if found:
            return found
    rest = tuple(target for target in targets if target.model.model_alias is None)
    if not rest:
        raise UnknownModelError("model not configured")
    return rest
