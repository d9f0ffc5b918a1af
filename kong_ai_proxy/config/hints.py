"""What a valid configuration lacks for its route type: every request would be an error.

Kong's schema has no rules about these, so they are no reason to refuse a configuration; `validate`
warns of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from kong_ai_proxy.config import Config, Target

_FILES = frozenset({"llm/v1/files", "llm/v1/batches"})
_VIDEOS = "video/v1/videos/generations"

# https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
_S3_URI = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](?:/.*)?")
_IN_A_BUCKET = re.compile(r"https?://[^/]+/[^/?]+.*")


class _Hint(NamedTuple):
    """One thing that is needed, and whether a target lacks it."""

    field: str
    """Below the target."""
    lacks: Callable[[Target], bool]
    message: str


def _is(text: str | None, pattern: re.Pattern[str]) -> bool:
    """Whether it is what is expected; what a request fills in may be."""
    return bool(text) and ("$(" in str(text) or pattern.fullmatch(str(text)) is not None)


def _bedrock_bucket(target: Target) -> bool:
    wanted = target.model.provider == "bedrock" and target.route_type in _FILES
    place = target.model.options.bedrock.batch_bucket_prefix
    return wanted and not _is(place and f"s3://{place.removeprefix('s3://')}", _S3_URI)


def _bedrock_video(target: Target) -> bool:
    wanted = target.model.provider == "bedrock" and target.route_type == _VIDEOS
    return wanted and not _is(target.model.options.bedrock.video_output_s3_uri, _S3_URI)


def _vertex_bucket(target: Target) -> bool:
    options = target.model.options
    is_vertex = target.model.provider == "gemini" and bool(options.gemini.project_id)
    wanted = is_vertex and target.route_type == "llm/v1/files"
    return wanted and not _is(options.upstream_url, _IN_A_BUCKET)


def _gemini_realtime(target: Target) -> bool:
    return target.model.provider == "gemini" and target.route_type == "realtime/v1/realtime"


_HINTS = (
    _Hint(
        "model.options.bedrock.batch_bucket_prefix",
        _bedrock_bucket,
        "expected s3://BUCKET/PREFIX, the place for files and batches: requests will get a 500",
    ),
    _Hint(
        "model.options.bedrock.video_output_s3_uri",
        _bedrock_video,
        "expected s3://BUCKET/PREFIX, the place for videos: requests will get a 500",
    ),
    _Hint(
        "model.options.upstream_url",
        _vertex_bucket,
        "expected https://storage.googleapis.com/BUCKET, the place for files: requests will get "
        "a 500",
    ),
    _Hint(
        "route_type",
        _gemini_realtime,
        "Gemini Live is for clients of its own format: set llm_format: gemini, or requests will "
        "get a 404",
    ),
)


def hints(config: Config) -> Iterator[tuple[int, str, str]]:
    """Index of the target, field below it and message of all that is lacking. Native formats say
    themselves where their files are."""
    if config.llm_format != "openai":
        return
    for index, target in enumerate(config.targets):
        for hint in _HINTS:
            if hint.lacks(target):
                yield index, hint.field, hint.message
