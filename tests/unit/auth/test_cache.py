"""Credentials are kept while they are good, and renewed before they are not."""

from __future__ import annotations

import asyncio
import timeit

import pytest

from kong_ai_proxy.auth.identity import AzureIdentity, BearerToken, Credential, Identity
from kong_ai_proxy.auth.tokens import cache as caches
from kong_ai_proxy.auth.tokens.cache import Cache
from kong_ai_proxy.auth.tokens.errors import TokenError
from tests.unit.auth.endpoints import Clock

WHO = AzureIdentity()
HOUR = 3600.0


class Fetches:
    """Fetches that end when a test says so."""

    def __init__(self) -> None:
        self.asked: list[Identity] = []
        self.waiting: list[asyncio.Future[Credential]] = []

    async def __call__(self, identity: Identity) -> Credential:
        self.asked.append(identity)
        self.waiting.append(asyncio.get_running_loop().create_future())
        return await self.waiting[-1]


@pytest.fixture
def fetches() -> Fetches:
    return Fetches()


@pytest.fixture
def cache(fetches: Fetches, clock: Clock) -> Cache:
    return Cache(fetches, clock)


async def turn() -> None:
    """Let everything run that can."""
    for _ in range(5):
        await asyncio.sleep(0)


async def filled(
    cache: Cache, fetches: Fetches, clock: Clock, name: str, lifetime: float | None = HOUR
) -> None:
    """Fetch a token into an empty cache."""
    asking = asyncio.create_task(cache.get(WHO))
    await turn()
    ends = None if lifetime is None else clock() + lifetime
    fetches.waiting[-1].set_result(BearerToken(name, ends))
    assert (await asking)[0] == name


async def test_fifty_callers_cause_one_fetch(cache: Cache, fetches: Fetches, clock: Clock) -> None:
    asking = [asyncio.create_task(cache.get(WHO)) for _ in range(50)]
    await turn()
    fetches.waiting[0].set_result(BearerToken("one", clock() + HOUR))
    assert {token[0] for token in await asyncio.gather(*asking)} == {"one"}
    assert len(fetches.asked) == 1


async def test_who_no_longer_waits_ends_nothing_for_others(
    cache: Cache, fetches: Fetches, clock: Clock
) -> None:
    first, second = asyncio.create_task(cache.get(WHO)), asyncio.create_task(cache.get(WHO))
    await turn()
    first.cancel()
    await turn()
    assert first.cancelled()
    fetches.waiting[0].set_result(BearerToken("one", clock() + HOUR))
    assert (await second)[0] == "one"


async def test_a_fetch_goes_on_when_nobody_waits(
    cache: Cache, fetches: Fetches, clock: Clock
) -> None:
    only = asyncio.create_task(cache.get(WHO))
    await turn()
    only.cancel()
    await turn()
    fetches.waiting[0].set_result(BearerToken("one", clock() + HOUR))
    await turn()
    assert cache.ready(WHO) == BearerToken("one", clock() + HOUR)


async def test_before_the_end_requests_go_on_with_the_old_while_one_renews(
    cache: Cache, fetches: Fetches, clock: Clock
) -> None:
    await filled(cache, fetches, clock, "old")
    clock.advance(HOUR - caches.MARGIN - 1)
    assert (await cache.get(WHO))[0] == "old"
    await turn()
    assert len(fetches.asked) == 1
    clock.advance(1)
    assert [(await cache.get(WHO))[0] for _ in range(3)] == ["old"] * 3
    await turn()
    assert len(fetches.asked) == 2
    fetches.waiting[1].set_result(BearerToken("new", clock() + HOUR))
    await turn()
    assert (await cache.get(WHO))[0] == "new"


async def test_what_has_ended_is_waited_for(cache: Cache, fetches: Fetches, clock: Clock) -> None:
    await filled(cache, fetches, clock, "old")
    clock.advance(HOUR - caches.LEEWAY)
    assert cache.ready(WHO) is None
    await filled(cache, fetches, clock, "new")


async def test_a_short_life_is_used_to_half_before_it_is_renewed(
    cache: Cache, fetches: Fetches, clock: Clock
) -> None:
    await filled(cache, fetches, clock, "short", lifetime=60)
    clock.advance(29)
    cache.ready(WHO)
    await turn()
    assert len(fetches.asked) == 1
    clock.advance(1)
    cache.ready(WHO)
    await turn()
    assert len(fetches.asked) == 2


async def test_what_does_not_say_when_it_ends_is_renewed_all_the_same(
    cache: Cache, fetches: Fetches, clock: Clock
) -> None:
    await filled(cache, fetches, clock, "endless", lifetime=None)
    clock.advance(caches.UNKNOWN)
    assert cache.ready(WHO) == BearerToken("endless")
    await turn()
    assert len(fetches.asked) == 2


async def test_a_failure_answers_everybody_for_a_second(
    cache: Cache, fetches: Fetches, clock: Clock
) -> None:
    asking = [asyncio.create_task(cache.get(WHO)) for _ in range(3)]
    await turn()
    fetches.waiting[0].set_exception(TokenError("no"))
    errors = await asyncio.gather(*asking, return_exceptions=True)
    assert [str(error) for error in errors] == ["no"] * 3
    clock.advance(0.9)
    with pytest.raises(TokenError, match="no"):
        await cache.get(WHO)
    assert len(fetches.asked) == 1
    clock.advance(0.1)
    await filled(cache, fetches, clock, "one")


async def test_a_failure_to_renew_is_logged_and_tried_again_later(
    cache: Cache, fetches: Fetches, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    await filled(cache, fetches, clock, "old")
    clock.advance(HOUR - caches.MARGIN)
    cache.ready(WHO)
    await turn()
    fetches.waiting[1].set_exception(TokenError("endpoint down"))
    await turn()
    assert "could not be renewed: endpoint down" in caplog.text
    assert cache.ready(WHO) is not None
    await turn()
    assert len(fetches.asked) == 2
    clock.advance(caches.PAUSE)
    assert (await cache.get(WHO))[0] == "old"
    await turn()
    assert len(fetches.asked) == 3


async def test_what_comes_expired_is_a_failure(
    cache: Cache, fetches: Fetches, clock: Clock
) -> None:
    asking = asyncio.create_task(cache.get(WHO))
    await turn()
    fetches.waiting[0].set_result(BearerToken("late", clock() - 1))
    with pytest.raises(TokenError, match="clock"):
        await asking


async def test_a_fetch_has_a_time_limit(
    cache: Cache, fetches: Fetches, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caches, "FETCH", 0.0)
    with pytest.raises(TokenError, match="within"):
        await cache.get(WHO)


async def test_a_defect_is_an_error_without_its_text(
    cache: Cache, fetches: Fetches, caplog: pytest.LogCaptureFixture
) -> None:
    asking = asyncio.create_task(cache.get(WHO))
    await turn()
    fetches.waiting[0].set_exception(KeyError("secret"))
    with pytest.raises(TokenError, match=r"^no credentials: KeyError$"):
        await asking
    assert "KeyError" in caplog.text
    assert "secret" not in caplog.text


async def test_the_least_recently_used_goes_first(fetches: Fetches, clock: Clock) -> None:
    cache = Cache(fetches, clock, size=2)
    one, two, three = (AzureIdentity(name) for name in ("1", "2", "3"))
    cache.keep(one, BearerToken("1"))
    cache.keep(two, BearerToken("2"))
    cache.ready(one)
    cache.keep(three, BearerToken("3"))
    found = [cache.ready(who) for who in (one, two, three)]
    assert found == [BearerToken("1"), None, BearerToken("3")]


async def test_closing_ends_what_is_fetched_and_answers_who_waits(
    cache: Cache, fetches: Fetches
) -> None:
    asking = asyncio.create_task(cache.get(WHO))
    await turn()
    await cache.close()
    with pytest.raises(TokenError, match="shutting down"):
        await asking
    with pytest.raises(TokenError, match="shutting down"):
        await cache.get(WHO)
    assert fetches.waiting[0].cancelled()


async def test_a_kept_credential_is_had_quickly(fetches: Fetches) -> None:
    cache = Cache(fetches, lambda: 0.0)
    cache.keep(WHO, BearerToken("one"))
    seconds = min(timeit.repeat(lambda: cache.ready(WHO), number=1000, repeat=5)) / 1000
    assert seconds < 50e-6  # in fact about one; the rest is for machines that are busy
