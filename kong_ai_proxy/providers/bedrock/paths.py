"""Where Bedrock's services live, and S3, and the paths of its models."""

from __future__ import annotations

import re
from urllib.parse import quote

from kong_ai_proxy.config import ModelOptions
from kong_ai_proxy.formats.errors import FormatError

RUNTIME = "bedrock-runtime"
AGENTS = "bedrock-agent-runtime"
CONTROL = "bedrock"

_REGION = re.compile(r"[a-z]{2,8}(?:-[a-z]+)+-[0-9]{1,2}")
_SUFFIXES = (("cn-", "amazonaws.com.cn"), ("eusc-", "amazonaws.eu"), ("", "amazonaws.com"))

# What a model id or ARN consists of, as all operations have it:
# https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html
_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,2047}")
_DOTS = re.compile(r"(?:^|/)\.{1,2}(?:/|$)")


def host(service: str, options: ModelOptions) -> str:
    """Where one of the services lives in the configured region. Raises FormatError for a region
    that is none: it may come from a template, and must not name another host."""
    region = options.bedrock.aws_region or ""
    if not _REGION.fullmatch(region):
        raise FormatError(
            f"model.options.bedrock.aws_region: expected an AWS region such as us-east-1, "
            f"got {region!r}"
        )
    suffix = next(suffix for start, suffix in _SUFFIXES if region.startswith(start))
    return f"https://{service}.{region}.{suffix}:443"


def model_path(model: str, operation: str) -> str:
    """The path of an operation of a model. An ARN is one segment, as AWS's own clients write it.
    Raises FormatError for what is no id."""
    if not _MODEL.fullmatch(model) or _DOTS.search(model):
        raise FormatError(
            "model: expected the id or ARN of a Bedrock model, inference profile or endpoint, "
            f"got {model[:100]!r}"
        )
    return f"/model/{quote(model, safe='')}/{operation}"


def elsewhere(service: str, options: ModelOptions) -> str:
    """Another service's host. Behind an `upstream_url` there is no telling services apart, nor
    any need of a region."""
    return "" if options.upstream_url else host(service, options)
