"""What a valid configuration lacks for its route type: every request would be an error.

Kong's schema has no rules about these, so they are no reason to refuse a configuration; `validate`
warns of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from kong_ai_proxy.config import Config, Target


class _Hint(NamedTuple):
    """One thing that is needed: the field below `model.options`, and whether a target lacks it."""

    field: str
    lacks: Callable[[Target], bool]
    message: str


_FILES = frozenset({"llm/v1/files", "llm/v1/batches"})


def _bedrock_bucket(target: Target) -> bool:
    wanted = target.model.provider == "bedrock" and target.route_type in _FILES
    return wanted and not target.model.options.bedrock.batch_bucket_prefix


def _bedrock_video(target: Target) -> bool:
    is_video = target.route_type == "video/v1/videos/generations"
    wanted = target.model.provider == "bedrock" and is_video
    return wanted and not target.model.options.bedrock.video_output_s3_uri


def _vertex_bucket(target: Target) -> bool:
    is_vertex = target.model.provider == "gemini" and bool(target.model.options.gemini.project_id)
    return (
        is_vertex and target.route_type == "llm/v1/files" and not target.model.options.upstream_url
    )


_HINTS = (
    _Hint(
        "bedrock.batch_bucket_prefix",
        _bedrock_bucket,
        "expected s3://BUCKET/PREFIX, the place for files and batches: requests will get a 500",
    ),
    _Hint(
        "bedrock.video_output_s3_uri",
        _bedrock_video,
        "expected s3://BUCKET/PREFIX, the place for videos: requests will get a 500",
    ),
    _Hint(
        "upstream_url",
        _vertex_bucket,
        "expected https://storage.googleapis.com/BUCKET, the place for files: requests will get "
        "a 500",
    ),
)


def hints(config: Config) -> Iterator[tuple[int, str, str]]:
    """Index of the target, field below `model.options` and message of all that is lacking. Native
    formats say themselves where their files are."""
    if config.llm_format != "openai":
        return
    for index, target in enumerate(config.targets):
        for hint in _HINTS:
            if hint.lacks(target):
                yield index, hint.field, hint.message
