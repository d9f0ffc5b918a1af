"""Pytest's side of the gateways: the option that chooses them, the fixtures that hand them out."""

from __future__ import annotations

import gc
import os
from collections.abc import AsyncIterator, Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.gateways import (
    ABSENT,
    GatewayFactory,
    GatewayPool,
    build_images,
    chosen_kinds,
    real_kinds,
)
from tests.recorder import Recorder

# Before NumPy is loaded: the threads of several test processes would wait for each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# A busy machine is no failure. (Where CI is set, Hypothesis has a profile of its own that says the
# same, and takes the same examples each time.)
settings.register_profile(
    "busy",
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.too_slow],
    parent=settings(),
)
settings.load_profile("busy")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--gateway",
        action="append",
        default=[],
        metavar="KIND",
        help="where scenarios run: standin, installed (KONG_AI_PROXY_TEST_KONG=<kong executable>), "
        "or a Kong version in a container such as 3.9; repeat it or separate with commas. Default: "
        "standin, and installed when that variable is set.",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    kinds = chosen_kinds(metafunc.config.getoption("--gateway"))
    if "gateway" in metafunc.fixturenames:
        metafunc.parametrize("gateway", kinds, indirect=True)
    if "kong" in metafunc.fixturenames:
        metafunc.parametrize("kong", real_kinds(kinds) or [ABSENT], indirect=True)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Images are built before the tests, whose time limit a first build would exceed. And the
    collector of garbage need not look at twenty thousand tests again and again."""
    gc.collect()
    gc.freeze()
    fixtures = {name for item in session.items for name in getattr(item, "fixturenames", ())}
    if fixtures & {"gateway", "kong"} and not session.config.option.collectonly:
        build_images(chosen_kinds(session.config.getoption("--gateway")))


@pytest.fixture(scope="session")
def gateway_pool() -> Iterator[GatewayPool]:
    """Kongs and plugin servers that tests share, ended with the session."""
    pool = GatewayPool()
    yield pool
    pool.close()


@pytest.fixture
async def gateway(
    request: pytest.FixtureRequest, gateway_pool: GatewayPool
) -> AsyncIterator[GatewayFactory]:
    """`await gateway(deck, protocol=..., env=..., shim=...) -> RunningGateway`, on each kind."""
    factory = GatewayFactory(gateway_pool, request.param)
    yield factory
    await factory.close()


@pytest.fixture
async def kong(
    request: pytest.FixtureRequest, gateway_pool: GatewayPool
) -> AsyncIterator[GatewayFactory]:
    """The same for a real Kong only; skipped where there is none."""
    if request.param == ABSENT:
        pytest.skip(
            "no Kong chosen: set KONG_AI_PROXY_TEST_KONG=<kong executable>, or run with "
            "--gateway 3.9 where Docker runs"
        )
    factory = GatewayFactory(gateway_pool, request.param)
    yield factory
    await factory.close()


@pytest.fixture
async def provider() -> AsyncIterator[Recorder]:
    """An upstream that keeps what reached it."""
    async with Recorder() as recorder:
        yield recorder
