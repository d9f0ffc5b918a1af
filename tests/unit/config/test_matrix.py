"""The provider reference of Kong 3.15 as configurations are checked against it."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from kong_ai_proxy.config import ConfigError, parse
from kong_ai_proxy.config.matrix import SUPPORTED
from kong_ai_proxy.config.records import Provider, RouteType
from tests.unit.config.samples import target
from tests.unit.config.test_choices import OPTIONS


def of(provider: str, route_type: str) -> dict[str, Any]:
    vertex = {"api_endpoint": "aiplatform.googleapis.com", "project_id": "p", "location_id": "l"}
    own = {"gemini": vertex} if provider == "gemini" else OPTIONS.get(provider, {})
    model = {"provider": provider, "options": own}
    return target(model=model, route_type=route_type)


def test_every_provider_is_in_the_matrix() -> None:
    assert set(SUPPORTED) == set(get_args(Provider))


@pytest.mark.parametrize("provider", sorted(SUPPORTED))
@pytest.mark.parametrize("route_type", get_args(RouteType))
def test_a_route_type_that_the_provider_has_not_is_refused_by_name(
    provider: str, route_type: str
) -> None:
    if route_type == "preserve" or route_type in SUPPORTED[provider]:
        assert parse("ai-proxy", of(provider, route_type)).route_type == route_type  # type: ignore[union-attr]
        return
    with pytest.raises(ConfigError) as refused:
        parse("ai-proxy", of(provider, route_type))
    (problem,) = refused.value.problems
    assert problem.field == "config.route_type"
    assert problem.message.startswith(f"provider {provider} does not support this route_type")
