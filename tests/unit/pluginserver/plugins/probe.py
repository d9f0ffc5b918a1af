"""A plugin whose event lasts until the test answers its getter, and which tells its worker's pid
and its configuration."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any


class Plugin:
    def __init__(self, config: Mapping[str, Any]) -> None:
        self.note = json.dumps([os.getpid(), config.get("note")])

    def access(self, kong: Any) -> None:
        kong.request.get_method()
        kong.response.set_header("x-probe", self.note)
