"""Fixtures of the tests of flows."""

from tests.unit.exchange.flowing_world import as_flow, upstream

__all__ = ["as_flow", "upstream"]
