"""Logging of the processes behind the launcher: lines to stderr that never raise and never block.

Their stderr is a non-blocking pipe to the launcher. When it is full or the launcher is gone, lines
are lost and requests go on.
"""

from __future__ import annotations

import contextlib
import logging
import os

_STDERR = 2
_FORMAT = "kong-ai-proxy %(processName)s[%(process)d] %(levelname)s %(name)s: %(message)s"


class _Stderr:
    """A stream for logging.StreamHandler. Unlike sys.stderr it keeps nothing back when a write
    fails, and has no buffer whose flush could fail at the process's end."""

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError):
            os.write(_STDERR, text.encode(errors="backslashreplace"))

    def flush(self) -> None:
        """Nothing is buffered."""


def configure(level: str, process: str) -> None:
    """Send records of `level` and above to stderr, with the name of the process.

    A record whose formatting fails is lost silently: logging never fails a request.
    """
    logging.raiseExceptions = False
    logging.captureWarnings(True)
    handler = logging.StreamHandler(_Stderr())
    handler.setFormatter(logging.Formatter(_FORMAT.replace("%(processName)s", process)))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
