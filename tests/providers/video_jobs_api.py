"""What stand-ins for providers that make videos have in common.

Every poll moves a job on: the first `polls` find it under way. `refusal` makes jobs fail as the
vendor's filters do. Their videos are `FILM`.
"""

from __future__ import annotations

import re
from typing import Final

from tests.providers.upstream import (
    Json,
    Recorded,
    RefusedError,
    Reply,
)

FILM: Final = b"\x00\x00\x00\x18ftypmp42" + bytes(range(256)) * 1500
MP4: Final = "video/mp4"
FILTERED: Final = "Veo could not generate 1 videos. Support codes: 42237218"


def film(request: Recorded, content_type: str) -> Reply:
    """The film, or the part of it that is asked for."""
    given = re.fullmatch(r"bytes=([0-9]+)-([0-9]*)", request.headers.get("range", ""))
    if not given:
        return Reply(FILM, content_type=content_type)
    start, end = int(given[1]), min(int(given[2] or len(FILM)), len(FILM) - 1)
    if start > end:
        raise RefusedError("The requested range is not satisfiable", 416)
    told = {"Content-Range": f"bytes {start}-{end}/{len(FILM)}", "Accept-Ranges": "bytes"}
    return Reply(FILM[start : end + 1], content_type=content_type, status=206, headers=told)


class Jobs:
    """The jobs of a stand-in, and how many polls each has had."""

    polls: int
    refusal: str
    kept: dict[str, Json]

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """No jobs, and none that fail."""
        self.polls = 1
        self.refusal = ""
        self.kept = {}
        self._polled: dict[str, int] = {}

    def add(self, name: str, job: Json) -> None:
        """A new job."""
        self.kept[name] = job
        self._polled[name] = 0

    def poll(self, name: str) -> bool:
        """Whether it is done by now. Raises RefusedError for no job."""
        if name not in self.kept:
            raise RefusedError(f"Operation {name} is not found.", 404)
        self._polled[name] += 1
        return self._polled[name] > self.polls
