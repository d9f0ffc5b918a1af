"""Tickets: what the relay takes for one, and what of it may not be altered."""

from __future__ import annotations

import base64
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kong_ai_proxy.relay.once import Once
from kong_ai_proxy.relay.ticket import (
    LIFETIME,
    MAX_BYTES,
    Claims,
    Issuer,
    TicketError,
    Verifier,
)

CLAIMS = Claims(
    instance=7,
    digest=bytes(range(32)),
    consumer_id="6b1f1c1e-2f0b-4c55-9d0e-1a2b3c4d5e6f",
    consumer_name="alice",
    client_address="192.0.2.7",
    request_id="0123456789abcdef0123456789abcdef",
    route_path="/openai",
    captures={"model": "gpt-5", "id": "a/b\udcff"},
)
METHOD, TARGET = "POST", "/v1/chat/completions?a=b"


class Clock:
    def __init__(self) -> None:
        self.now = 5_000.0

    def __call__(self) -> float:
        return self.now


class Side:
    """Issuer and verifier of one generation."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.once = Once.create(1, self.clock)
        self.issuer = Issuer(self.once.secret, self.once.numbers(0), 4242, self.clock)
        self.verifier = Verifier(self.once.secret, self.once, self.clock)

    def issue(self, claims: Claims = CLAIMS) -> str:
        return self.issuer.issue(claims, METHOD, TARGET)

    def verify(self, ticket: str | None, method: str = METHOD, target: str = TARGET) -> Claims:
        return self.verifier.verify(ticket, method, target)

    def refusal(self, ticket: str | None, method: str = METHOD, target: str = TARGET) -> str:
        """Why a ticket is refused, which must not be for its age."""
        with pytest.raises(TicketError) as refused:
            self.verify(ticket, method, target)
        assert not refused.value.expired
        assert not ticket or ticket not in str(refused.value)
        return str(refused.value)


@pytest.fixture(name="side")
def make_side() -> Iterator[Side]:
    side = Side()
    yield side
    side.once.close()


def test_a_ticket_brings_its_claims(side: Side) -> None:
    assert side.verify(side.issue()) == CLAIMS


def test_claims_that_nobody_made_come_as_nothing(side: Side) -> None:
    claims = Claims(instance=1, digest=bytes(32))
    assert side.verify(side.issue(claims)) == claims


text = st.text(
    st.one_of(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), st.just("\udcff")),
    max_size=30,
)


@settings(deadline=None)
@given(
    st.builds(
        Claims,
        instance=st.integers(1, 2**31 - 1),
        digest=st.binary(min_size=32, max_size=32),
        consumer_id=text,
        consumer_name=text,
        client_address=text,
        request_id=text,
        route_path=text,
        origin=text,
        captures=st.dictionaries(text, text, max_size=5),
        groups=st.lists(st.tuples(text, text), max_size=5).map(tuple),
    ),
    text,
    text,
)
def test_any_claims_arrive_as_they_were(claims: Claims, method: str, target: str) -> None:
    side = Side()
    ticket = side.issuer.issue(claims, method, target)
    assert side.verify(ticket, method, target) == claims
    side.once.close()


def test_a_ticket_is_a_short_header_value(side: Side) -> None:
    long = CLAIMS._replace(
        consumer_name="n" * 255,
        client_address="2001:0db8:0000:0000:0000:0000:0000:0001",
        route_path="/" + "p" * 255,
        captures={f"capture{i}": "v" * 100 for i in range(16)},
    )
    assert set(side.issue(long)) <= set(
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    )
    assert len(side.issue(long)) < 4096
    assert len(side.issue()) < 300


def test_the_port_is_the_generations(side: Side) -> None:
    assert side.issuer.port == 4242


@pytest.mark.parametrize("ticket", [None, ""])
def test_no_ticket(side: Side, ticket: str | None) -> None:
    assert side.refusal(ticket) == "there is no ticket"


@pytest.mark.parametrize(
    "ticket",
    [
        "A",
        "?",
        "a b",
        "AAAA=",
        "====",
        "\u00e4\u00f6",
        "\udcff",
        "AAAA\nAAAA",
        "AA+/",
        "A" * 20_000,
    ],
)
def test_garbage(side: Side, ticket: str) -> None:
    assert side.refusal(ticket) == "the ticket is no ticket"


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_bytes_without_our_signature(raw: bytes) -> None:
    side = Side()
    ticket = base64.urlsafe_b64encode(raw).decode().rstrip("=") or "AA"
    assert side.refusal(ticket) == "the ticket was not issued here for this request"
    side.once.close()


def test_a_ticket_made_with_another_secret(side: Side) -> None:
    other = Side()
    assert "not issued here" in side.refusal(other.issue())
    other.once.close()


def test_every_byte_is_signed(side: Side) -> None:
    ticket = side.issue()
    raw = base64.urlsafe_b64decode(ticket + "=" * (-len(ticket) % 4))
    for at in range(len(raw)):
        changed = raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]
        altered = base64.urlsafe_b64encode(changed).decode().rstrip("=")
        assert "not issued here" in side.refusal(altered)
    for size in range(1, len(raw)):
        cut = base64.urlsafe_b64encode(raw[:size]).decode().rstrip("=")
        assert "not issued here" in side.refusal(cut)
    assert side.verify(ticket) == CLAIMS


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", TARGET),
        ("post", TARGET),
        ("", METHOD + TARGET),
        (METHOD + TARGET, ""),
        (METHOD, "/v1/chat/completion"),
        (METHOD, "/v1/chat/completions"),
        (METHOD, "/v1/chat/completions?a=c"),
        (METHOD, "/v1/chat/completions?a=b&"),
        (METHOD, "/v1/chat%2Fcompletions?a=b"),
        (METHOD, "/v1/files?a=b"),
    ],
)
def test_another_request_than_the_one_it_was_issued_for(
    side: Side, method: str, target: str
) -> None:
    assert "not issued here" in side.refusal(side.issue(), method, target)


@pytest.mark.parametrize(
    ("claim", "value"),
    [
        ("instance", 8),
        ("digest", bytes(32)),
        ("consumer_id", "6b1f1c1e-2f0b-4c55-9d0e-1a2b3c4d5e60"),
        ("consumer_name", "bob"),
        ("client_address", "192.0.2.8"),
        ("request_id", ""),
        ("route_path", "/anthropic"),
        ("captures", {"model": "gpt-5-pro", "id": "a/b\udcff"}),
    ],
)
def test_each_claim_is_signed(side: Side, claim: str, value: Any) -> None:
    """The claims of one ticket under the signature of another."""
    other = CLAIMS._replace(**{claim: value})
    signed, altered = (
        base64.urlsafe_b64decode(t + "=" * (-len(t) % 4)) for t in (side.issue(), side.issue(other))
    )
    forged = base64.urlsafe_b64encode(signed[:32] + altered[32:]).decode().rstrip("=")
    assert "not issued here" in side.refusal(forged)


def test_the_boundary_between_two_claims_is_signed(side: Side) -> None:
    first = CLAIMS._replace(consumer_id="ab", consumer_name="c")
    second = CLAIMS._replace(consumer_id="a", consumer_name="bc")
    assert side.verify(side.issue(first)) == first
    assert side.verify(side.issue(second)) == second


def test_a_ticket_is_honoured_until_its_lifetime_is_over(side: Side) -> None:
    early, late = side.issue(), side.issue()
    side.clock.now += LIFETIME - 0.001
    assert side.verify(early) == CLAIMS
    side.clock.now += 0.001
    with pytest.raises(TicketError, match="expired 0 s ago") as refused:
        side.verify(late)
    assert refused.value.expired


def test_a_forged_ticket_is_not_called_expired(side: Side) -> None:
    ticket = side.issue()
    side.clock.now += LIFETIME + 1
    assert "not issued here" in side.refusal(ticket, "GET")


def test_an_expired_ticket_uses_no_number_up(side: Side) -> None:
    ticket = side.issue()
    side.clock.now += LIFETIME
    with pytest.raises(TicketError):
        side.verify(ticket)
    side.clock.now -= 1
    assert side.verify(ticket) == CLAIMS


def test_a_ticket_for_another_request_uses_no_number_up(side: Side) -> None:
    ticket = side.issue()
    side.refusal(ticket, "GET")
    assert side.verify(ticket) == CLAIMS


def test_a_ticket_is_honoured_once(side: Side) -> None:
    ticket = side.issue()
    side.verify(ticket)
    assert side.refusal(ticket) == "the ticket has a number that was claimed before"


def test_a_ticket_honoured_here_is_refused_in_another_process() -> None:
    once = Once.create(1)
    ticket = Issuer(once.secret, once.numbers(0), 1).issue(CLAIMS, METHOD, TARGET)
    Verifier(once.secret, once).verify(ticket, METHOD, TARGET)
    code = (
        "from kong_ai_proxy.relay.once import Once\n"
        "from kong_ai_proxy.relay.ticket import TicketError, Verifier\n"
        f"once = Once({once.fileno()})\n"
        f"try: Verifier(once.secret, once).verify({ticket!r}, {METHOD!r}, {TARGET!r})\n"
        "except TicketError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], pass_fds=[once.fileno()], capture_output=True, text=True
    )
    once.close()
    assert done.stdout.strip() == "the ticket has a number that was claimed before"


def test_claims_that_no_header_can_carry_get_no_ticket_and_no_number(side: Side) -> None:
    long = CLAIMS._replace(captures={"a": "x" * MAX_BYTES})
    with pytest.raises(TicketError, match="expected at most"):
        side.issue(long)
    assert side.once.unclaimed(0, 60) == 0


def test_the_longest_ticket_that_is_issued_is_read(side: Side) -> None:
    base = len(side.issue(CLAIMS._replace(captures={"a": ""})))
    room = (MAX_BYTES - base) * 3 // 4
    claims = CLAIMS._replace(captures={"a": "x" * room})
    assert side.verify(side.issue(claims)) == claims


def test_a_nul_in_a_claim_gets_no_ticket(side: Side) -> None:
    with pytest.raises(TicketError, match="NUL"):
        side.issue(CLAIMS._replace(captures={"a": "b\0c"}))


def test_a_digest_has_its_length(side: Side) -> None:
    with pytest.raises(ValueError, match="32 bytes, got 3"):
        side.issue(CLAIMS._replace(digest=b"abc"))
