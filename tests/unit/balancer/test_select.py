"""Which targets a request may go to."""

from __future__ import annotations

import pytest

from kong_ai_proxy.balancer.select import UnknownModelError, candidates, share_requests
from kong_ai_proxy.config import AiProxyAdvanced, Target, parse


def targets(*models: tuple[str | None, str | None]) -> tuple[Target, ...]:
    """Targets with these names and aliases."""
    named = [{"provider": "openai", "name": name, "model_alias": alias} for name, alias in models]
    config = {"targets": [{"route_type": "llm/v1/chat", "model": each} for each in named]}
    parsed = parse("ai-proxy-advanced", config)
    assert isinstance(parsed, AiProxyAdvanced)
    return parsed.targets


THREE = targets(("gpt-4o", "big"), ("gpt-4o", "big"), ("gpt-4o-mini", "small"))


@pytest.mark.parametrize(
    ("requested", "found"),
    [
        (None, (0, 1, 2)),
        ("big", (0, 1)),
        ("small", (2,)),
        ("gpt-4o-mini", (2,)),
        ("gpt-4o", (0, 1)),
    ],
)
def test_an_alias_or_a_name_chooses_its_targets(
    requested: str | None, found: tuple[int, ...]
) -> None:
    assert candidates(THREE, requested) == found


def test_an_unknown_name_is_refused_where_every_target_has_an_alias() -> None:
    with pytest.raises(UnknownModelError, match="model not configured"):
        candidates(THREE, "gpt-5")


def test_an_unknown_name_is_left_to_the_targets_without_an_alias() -> None:
    assert candidates(targets(("gpt-4o", "big"), (None, None)), "gpt-5") == (1,)


@pytest.mark.parametrize(
    ("aliases", "shared"),
    [
        ((None,), False),
        (("fast",), False),
        (("fast", "powerful"), False),
        ((None, None), True),
        (("fast", None), True),
        (("a", "b", "a"), True),
    ],
)
def test_targets_compete_unless_each_has_an_alias_of_its_own(
    aliases: tuple[str | None, ...], shared: bool
) -> None:
    assert share_requests(targets(*(("m", alias) for alias in aliases))) is shared
