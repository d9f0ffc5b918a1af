"""A plugin whose event lasts until the test answers its getter, and which tells its worker's pid
and its configuration, or a ticket for `GET /` at the relay where its note is "ticket"."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from kong_ai_proxy.relay.ticket import Claims, Issuer


class Plugin:
    def __init__(self, config: Mapping[str, Any], relay: Issuer) -> None:
        self.note = config.get("note")
        self.relay = relay
        self.claims = Claims(instance=1, digest=bytes(32))

    def started(self, number: int, digest: bytes) -> None:
        self.claims = Claims(instance=number, digest=digest)

    def access(self, kong: Any) -> None:
        kong.request.get_method()
        told = [os.getpid(), self.note]
        if self.note == "ticket":
            told += [self.relay.port, self.relay.issue(self.claims, "GET", "/")]
        kong.response.set_header("x-probe", json.dumps(told))
