"""What is odd about a valid configuration: something is lacking, or has no effect.

Kong's schema has no rules about these, so they are no reason to refuse a configuration; `validate`
warns of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from kong_ai_proxy.config import AiProxyAdvanced, Config, Target
from kong_ai_proxy.config.plugins import CATCHALL, Balancer
from kong_ai_proxy.config.vectors import missing_library
from kong_ai_proxy.formats import openai

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


_DEFAULT_RETRIES = Balancer.model_fields["retries"].default
_SENT_ALREADY = ("http_", "invalid_header")


def hints(config: Config) -> Iterator[tuple[str, str]]:
    """Field and message of all that is odd."""
    yield from _lacking(config)
    if isinstance(config, AiProxyAdvanced):
        yield from _of_one_target(config)
        yield from _of_kept_things(config)
        yield from _of_failover(config)
        yield from _of_descriptions(config)
        yield from _of_hashing(config)
        yield from _of_metadata(config)
        yield from _of_identity(config)


def _lacking(config: Config) -> Iterator[tuple[str, str]]:
    """Every request would be an error. Native formats say themselves where their files are."""
    if config.llm_format != "openai":
        return
    for index, target in enumerate(config.targets):
        base = f"config.targets[{index}]" if isinstance(config, AiProxyAdvanced) else "config"
        for hint in _HINTS:
            if hint.lacks(target):
                yield f"{base}.{hint.field}", hint.message


def _of_one_target(config: AiProxyAdvanced) -> Iterator[tuple[str, str]]:
    """Kong writes its defaults into what it gives out, so a default is no sign of an intention."""
    if len(config.targets) > 1:
        return
    if config.balancer.retries not in (0, _DEFAULT_RETRIES):
        message = "no effect with one target: a request is sent to each target at most once"
        yield "config.balancer.retries", message
    if config.balancer.max_fails:
        message = (
            "with one target all targets are out when it is: requests will get a 500 for "
            f"{config.balancer.fail_timeout} ms (fail_timeout)"
        )
        yield "config.balancer.max_fails", message


def _of_kept_things(config: AiProxyAdvanced) -> Iterator[tuple[str, str]]:
    keeping = [target for target in config.targets if target.route_type in _FILES]
    if len(keeping) > 1:
        message = (
            "each target has files and batches of its own: they are found by their ids, but a list "
            "shows one target's, and a batch is made where its file is"
        )
        yield "config.targets", message


def _of_failover(config: AiProxyAdvanced) -> Iterator[tuple[str, str]]:
    criteria = config.balancer.failover_criteria
    answered = [each for each in criteria if each.startswith(_SENT_ALREADY)]
    posted = all(map(_is_posted, config.targets))
    if answered and posted and len(config.targets) > 1 and "non_idempotent" not in criteria:
        message = (
            f"no effect of {', '.join(answered)}: a POST that a target has had is sent to another "
            "one only with non_idempotent"
        )
        yield "config.balancer.failover_criteria", message


def _is_posted(target: Target) -> bool:
    """Whether all requests of its route type are POSTs."""
    operation = openai.OPERATIONS[target.route_type]
    return not (operation.collections or operation.websocket or operation.any_body)


def _of_descriptions(config: AiProxyAdvanced) -> Iterator[tuple[str, str]]:
    if config.balancer.algorithm != "semantic":
        return
    if config.vectordb is not None and (missing := missing_library(config.vectordb)):
        yield "config.vectordb.strategy", missing
    if all(target.description == CATCHALL for target in config.targets):
        message = f"every target is {CATCHALL}, so no prompt is compared with anything"
        yield "config.targets[0].description", message
    for index, target in enumerate(config.targets):
        text = (target.description or "").strip()
        if text != CATCHALL and text.upper() == CATCHALL:
            yield f"config.targets[{index}].description", f"only {CATCHALL} in capitals is that"
    yield from _of_threshold(config)


def _of_threshold(config: AiProxyAdvanced) -> Iterator[tuple[str, str]]:
    found = config.vectordb
    if found is None or found.threshold is None:
        return
    farthest = 2 if found.distance_metric == "cosine" else 1
    if not 0 <= found.threshold < farthest:
        message = f"{found.distance_metric} distances are 0 to {farthest}: this tells nothing apart"
        yield "config.vectordb.threshold", message


_USUAL_HASH_HEADER = "x-kong-llm-request-id"


def _of_hashing(config: AiProxyAdvanced) -> Iterator[tuple[str, str]]:
    own = config.balancer
    if own.algorithm == "consistent-hashing" and own.hash_on_header.lower() == _USUAL_HASH_HEADER:
        message = (
            "hardly a client sends this header, and without it requests go round-robin: name one "
            "that yours send"
        )
        yield "config.balancer.hash_on_header", message


def _of_metadata(config: AiProxyAdvanced) -> Iterator[tuple[str, str]]:
    for index, target in enumerate(config.targets):
        for name, value in target.metadata.items():
            if not isinstance(value, str):
                message = "open-source Kong takes texts only here: put it in quotes"
                yield f"config.targets[{index}].metadata.{name}", message


def _of_identity(config: AiProxyAdvanced) -> Iterator[tuple[str, str]]:
    """Kong's authentication plugins set these headers; where none runs a client may."""
    for kind, rules in (("allow", config.acls.allow), ("deny", config.acls.deny)):
        for number, rule in enumerate(rules):
            for place, match in enumerate(rule.match):
                name = (match.key or "").lower() if match.type == "header" else ""
                if name.startswith(("x-consumer-", "x-credential-")):
                    message = (
                        "a client can send this header itself where no authentication plugin runs: "
                        "use type consumer or consumer_group"
                    )
                    yield f"config.acls.{kind}[{number}].match[{place}].key", message
