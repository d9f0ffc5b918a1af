"""What one try at a target may come to, beside an answer."""

from __future__ import annotations

from typing import NamedTuple

from kong_ai_proxy.exchange.attempt import Attempt
from kong_ai_proxy.exchange.errors import Refused
from kong_ai_proxy.exchange.messages import Address, Fail, UpstreamRequest


class Failed(NamedTuple):
    """One try that has failed before the client got anything."""

    attempt: Attempt
    outgoing: UpstreamRequest | None
    first_place: Address | None
    fail: Fail


class TargetFailed(Exception):  # noqa: N818 - a result
    """This try is over."""

    def __init__(self, fail: Fail) -> None:
        super().__init__(fail.reason)
        self.fail = fail


class Unsuited(Exception):  # noqa: N818 - a result
    """The target cannot be asked this, which is nobody's failure."""

    def __init__(self, refused: Refused) -> None:
        super().__init__(refused.message)
        self.refused = refused
