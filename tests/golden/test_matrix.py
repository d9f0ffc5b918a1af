"""Each cell of the matrix in README, by what the providers' API references say."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kong_ai_proxy.config.matrix import SUPPORTED
from kong_ai_proxy.providers.registry import PROVIDERS
from tests.golden import checks, exchanges, fixture, judges, matrix
from tests.golden.exchanges import Exchanges
from tests.golden.fixture import Golden

ROWS = [row.name for row in matrix.ROWS]


def _cells() -> Iterator[str]:
    """The names of all cells that have something in them."""
    for row in matrix.ROWS:
        yield from (f"{row.name}-{capability}" for capability in sorted(matrix.capabilities(row)))


_EXCHANGES = [exchanges.load(name) for name in exchanges.names()]


def _of_cell(cell: str) -> list[Golden]:
    return [golden for golden in fixture.fixtures(*ROWS) if cell in golden.cells]


@pytest.mark.parametrize("cell", list(_cells()))
def test_cell(cell: str) -> None:
    found = _of_cell(cell)
    several = [golden for golden in _EXCHANGES if cell in golden.cells]
    assert found or several, f"{cell}: expected a file in tests/golden that has it in its cells"
    for golden in found:
        checks.request(golden)
        checks.answer(golden)
    for each in several:
        exchanges.check(each)


def test_usage_that_nobody_asked_for_stays_here() -> None:
    checks.answer(fixture.load("deepseek/usage-unasked"))


@pytest.mark.parametrize("name", fixture.names(*ROWS))
def test_the_vendors_models_take_the_request(name: str) -> None:
    judges.check(name.partition("/")[0], fixture.load(name))


@pytest.mark.parametrize("name", fixture.names())
def test_a_fixture_cites_a_page(name: str) -> None:
    assert fixture.load(name).source.startswith("https://")


@pytest.mark.parametrize("golden", _EXCHANGES, ids=lambda golden: golden.name)
def test_an_exchange_cites_a_page_and_shows_no_key(golden: Exchanges) -> None:
    assert golden.source.startswith("https://")
    played = exchanges.play(golden)
    told = played.body + repr(played.headers).encode()
    assert b"golden-key" not in told
    assert b"golden-secret" not in told


@pytest.mark.parametrize("name", fixture.names())
def test_no_key_of_the_configuration_reaches_the_client(name: str) -> None:
    played = fixture.load(name).play()
    told = played.body + repr(played.head).encode()
    assert b"golden-key" not in told
    assert b"golden-secret" not in told
    assert b"golden-private-key" not in told


def test_fixtures_name_cells_of_the_matrix_only() -> None:
    named = {cell for golden in fixture.fixtures(*ROWS) for cell in golden.cells}
    named |= {cell for golden in _EXCHANGES for cell in golden.cells}
    assert named == set(_cells())


@pytest.mark.parametrize("row", matrix.ROWS, ids=lambda row: row.name)
def test_what_the_reference_has_is_in_the_registry(row: matrix.Row) -> None:
    """The floor: https://developer.konghq.com/ai-gateway/ai-providers/."""
    lacking = matrix.reference(row.reference) - matrix.capabilities(row) - row.lacks
    assert not lacking


@pytest.mark.parametrize("row", matrix.ROWS, ids=lambda row: row.name)
def test_a_configuration_may_name_what_the_registry_has(row: matrix.Row) -> None:
    known = {
        route_type
        for name, route_type in {**matrix.ROUTE_TYPES, **matrix.MORE_ROUTE_TYPES}.items()
        if name in matrix.capabilities(row)
    }
    assert known <= set(SUPPORTED[row.provider])


@pytest.mark.parametrize("provider", sorted(SUPPORTED))
def test_a_configuration_may_name_nothing_else(provider: str) -> None:
    """Of all formats that the provider may speak."""
    rows = [row for row in matrix.ROWS if row.provider == provider]
    columns = frozenset[str]().union(*map(matrix.capabilities, rows))
    route_types = {**matrix.ROUTE_TYPES, **matrix.MORE_ROUTE_TYPES}
    assert set(SUPPORTED[provider]) == {
        route_type for name, route_type in route_types.items() if name in columns
    }


def test_every_provider_has_a_row() -> None:
    assert {row.provider for row in matrix.ROWS} == set(PROVIDERS)
    assert {row.reference for row in matrix.ROWS} == matrix.reference_names()


def test_readme_has_the_matrix() -> None:
    assert matrix.in_readme() == matrix.table()
