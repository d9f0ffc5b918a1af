"""What a valid configuration may ask for and this version does not bring yet.

This is the only list of it. A request that needs an entry is refused by its name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from kong_ai_proxy.config import AiProxyAdvanced, Config, Target


@dataclass(frozen=True)
class Pending:
    """One thing that is not there yet: its name, the field that asks for it, and whether it does.

    `field` is relative to the target when `of_target`, else to `config`.
    """

    name: str
    field: str
    asks: Callable[[Config, Target], bool]
    of_target: bool = True

    @property
    def message(self) -> str:
        """What an operator is told."""
        return f"{self.name} is not available in this version of kong-ai-proxy"


PENDING: tuple[Pending, ...] = (
)


def pending(config: Config, target: Target | None = None) -> tuple[str, ...]:
    """Messages for what `config` asks for and this version does not bring.

    With `target`, only what concerns that target or the whole configuration.
    """
    targets = config.targets if target is None else (target,)
    return tuple(dict.fromkeys(entry.message for _, entry in asked(config, targets)))


def asked(config: Config, targets: tuple[Target, ...]) -> Iterator[tuple[int, Pending]]:
    """Each entry that `config` asks for, with the index in `targets` of the target that does."""
    for entry in PENDING:
        for index, target in enumerate(targets):
            if entry.asks(config, target):
                yield index, entry
                if not entry.of_target:
                    break
