"""Numbers that are honoured once, whichever process they come to."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kong_ai_proxy.relay import once as module
from kong_ai_proxy.relay.once import MAX_SLOTS, SECRET_BYTES, ClaimError, Once

RING = 16


class Clock:
    """Seconds, set by hand."""

    def __init__(self) -> None:
        self.now = 100_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def once() -> Iterator[Once]:
    memory = Once.create(2)
    yield memory
    memory.close()


@contextlib.contextmanager
def small_ring(clock: Clock | None = None) -> Iterator[Once]:
    """Memory whose window is RING numbers."""
    with mock.patch.object(module, "WINDOW", RING):
        memory = Once.create(1, clock or Clock())
        yield memory
        memory.close()


def process(once: Once, code: str, *arguments: str) -> subprocess.Popen[str]:
    """Another process with the same memory, as `once`."""
    preamble = (
        "import sys\n"
        "from kong_ai_proxy.relay.once import ClaimError, Once\n"
        f"once = Once({once.fileno()})\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", preamble + code, *arguments],
        pass_fds=[once.fileno()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def output(once: Once, code: str) -> str:
    """What another process with the same memory prints."""
    out, _ = process(once, code).communicate(timeout=30)
    return out


def test_each_has_its_own_secret_which_other_processes_read(once: Once) -> None:
    other = Once.create(1)
    assert len(once.secret) == SECRET_BYTES
    assert once.secret != other.secret
    assert output(once, "print(once.secret.hex())").strip() == once.secret.hex()
    other.close()


def test_numbers_of_all_slots_differ() -> None:
    memory = Once.create(MAX_SLOTS)
    slots = [memory.numbers(slot) for slot in range(MAX_SLOTS)]
    taken = [numbers.take() for _ in range(100) for numbers in slots]
    memory.close()
    assert len(set(taken)) == len(taken)


def test_a_number_is_claimed_once(once: Once) -> None:
    number = once.numbers(1).take()
    once.claim(number)
    with pytest.raises(ClaimError, match="claimed before"):
        once.claim(number)


def test_a_number_claimed_here_is_refused_in_another_process(once: Once) -> None:
    number = once.numbers(0).take()
    once.claim(number)
    code = f"try: once.claim({number})\nexcept ClaimError as error: print(error)"
    assert "claimed before" in output(once, code)


def test_a_number_that_was_never_issued_is_refused(once: Once) -> None:
    number = once.numbers(0).take()
    for never in (number + MAX_SLOTS, number + 1, number + 2, -1, 1 << 63):
        with pytest.raises(ClaimError, match="never issued"):
            once.claim(never)


CONTEST = """
import os
from kong_ai_proxy.relay import once as module
me, other, amount = map(int, sys.argv[1:])
won = []
for number in range(0, 64 * amount, 64):
    met = once.take(me) >> 6  # the marks of slots 1 and 2 tell where each of the two is
    while once._words[module._mark(other)] <= met:
        os.sched_yield()
    try:
        once.claim(number)
    except ClaimError:
        continue
    won.append(number)
print(*won)
"""


def test_of_two_processes_at_the_same_moment_exactly_one_claims_each_number() -> None:
    amount = 5_000
    once = Once.create(3)
    numbers = [once.take(0) for _ in range(amount)]
    both = [process(once, CONTEST, *map(str, order), str(amount)) for order in ((1, 2), (2, 1))]
    won = [claimer.communicate(timeout=30)[0].split() for claimer in both]
    once.close()
    assert sorted(map(int, won[0] + won[1])) == numbers


def test_whoever_starts_again_in_a_slot_goes_on_after_the_last_number(once: Once) -> None:
    code = "print(*[once.numbers(1).take() for _ in range(1000)])"
    runs = [output(once, code).split() for _ in range(2)]
    taken = [*map(int, runs[0] + runs[1]), once.numbers(1).take()]
    assert sorted(set(taken)) == taken


def test_numbers_of_a_process_that_is_gone_are_honoured(once: Once) -> None:
    number = int(output(once, "print(once.numbers(1).take())"))
    once.claim(number)


HOLDING = """
class Slow(Once):
    def _claim_locked(self, *args):
        print('locked', flush=True)
        sys.stdin.read(1)
once.__class__ = Slow
once.claim(0)
"""


def test_a_killed_claimer_leaves_no_lock(once: Once) -> None:
    assert once.take(0) == 0
    other = process(once, HOLDING)
    assert other.stdout
    other.stdout.readline()
    with pytest.raises(ClaimError, match="at this moment"):
        once.claim(0)
    other.kill()
    other.communicate()
    once.claim(0)


def test_a_claim_locks_its_own_number_only(once: Once) -> None:
    assert once.take(0) == 0
    next_one = once.take(0)
    other = process(once, HOLDING)
    assert other.stdout
    other.stdout.readline()
    once.claim(next_one)
    other.kill()
    other.communicate()


def test_a_number_older_than_the_window_is_refused() -> None:
    with small_ring() as once:
        numbers = [once.take(0) for _ in range(RING + 1)]
        with pytest.raises(ClaimError, match="older than the last 16"):
            once.claim(numbers[0])
        once.claim(numbers[1])


def test_the_ring_goes_round() -> None:
    with small_ring() as once:
        for _ in range(300 * RING):  # more often than a lap's byte has values
            number = once.take(0)
            once.claim(number)
            with pytest.raises(ClaimError, match="claimed before"):
                once.claim(number)


@settings(deadline=None)
@given(st.lists(st.one_of(st.none(), st.integers(0, 3 * RING)), max_size=6 * RING))
def test_a_claim_succeeds_for_what_is_open_and_was_not_claimed(steps: list[int | None]) -> None:
    """A step takes a number, or claims the one that was taken so many before the newest."""
    clock = Clock()
    with small_ring(clock) as once:
        taken: list[int] = []
        claimed: set[int] = set()
        for back in steps:
            if back is None:
                taken.append(once.take(0))
                continue
            if back >= len(taken):
                continue
            number = taken[-1 - back]
            expected = back < RING and number not in claimed
            assert claims(once, number) is expected
            claimed.add(number)
        assert once.unclaimed(0, 60) == len(set(taken[-RING:]) - claimed)


def claims(once: Once, number: int) -> bool:
    try:
        once.claim(number)
    except ClaimError:
        return False
    return True


def test_what_is_not_claimed_is_counted_by_age() -> None:
    clock = Clock()
    once = Once.create(2, clock)
    old = once.take(0)
    clock.now += 100
    for _ in range(3):
        once.claim(once.take(0))
        once.take(0)
    assert [once.unclaimed(0, seconds) for seconds in (0, 60, 200, 1e9)] == [3, 3, 4, 4]
    assert once.unclaimed(1, 1e9) == 0
    once.claim(old)
    assert once.unclaimed(0, 200) == 3
    clock.now += 100
    assert once.unclaimed(0, 60) == 0
    clock.now += 86_400  # the table of times has gone round
    once.take(0)
    assert once.unclaimed(0, 60) == 1
    once.close()


def test_what_a_process_that_is_gone_took_is_counted(once: Once) -> None:
    output(once, "once.numbers(1).take()")
    assert once.numbers(1).unclaimed(60) == 1


def test_memory_that_is_not_used_takes_none() -> None:
    memory = Once.create(MAX_SLOTS)
    assert os.fstat(memory.fileno()).st_blocks * 512 < 100_000
    memory.close()


@pytest.mark.parametrize("slots", [0, MAX_SLOTS + 1])
def test_so_many_slots_cannot_be(slots: int) -> None:
    with pytest.raises(ValueError, match="expected 1 to 64 slots"):
        Once.create(slots)


def test_a_slot_that_is_not_there_is_named(once: Once) -> None:
    with pytest.raises(ValueError, match="expected a slot from 0 to 1, got 2"):
        once.numbers(2)
