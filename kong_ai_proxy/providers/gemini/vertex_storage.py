"""Where files for Vertex AI lie: a bucket of Cloud Storage, that of the operator."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import quote, unquote, urlsplit

from kong_ai_proxy.config import ModelOptions
from kong_ai_proxy.formats.errors import ProviderError
from kong_ai_proxy.formats.openai import batches as openai_batches
from kong_ai_proxy.formats.openai import files as openai_files
from kong_ai_proxy.providers.files import file_id, file_name, no_file
from kong_ai_proxy.providers.flow import ProviderFailed

KINDS = {openai_batches.CHAT_URL: "chat", "/v1/completions": "completions"}
"""What is asked in a batch by the URL of its requests."""

_SERVER_ERROR = 500
_BUCKET = r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]"
_PLACE = re.compile(rf"/(?P<bucket>{_BUCKET})(?P<prefix>(?:/[^/]+)*)/?")
_URI = re.compile(rf"gs://(?P<bucket>{_BUCKET})/(?P<name>.+)", re.DOTALL)
_MAX_NAME = 1024  # bytes
_MODEL = re.compile(r"[A-Za-z0-9._@-]{1,128}")
_MADE = re.compile(
    rf"(?:(?:input|output)-(?P<kind>{'|'.join(KINDS.values())})|(?P<purpose>[a-z_-]+))"
    r"-[A-Za-z0-9]{24}\Z"
)


class Bucket(NamedTuple):
    """A bucket, and which part of it is for files."""

    base_url: str
    name: str
    prefix: str
    """Of all objects' names; "" or ending with a slash."""


class Location(NamedTuple):
    """An object."""

    bucket: str
    name: str

    @property
    def uri(self) -> str:
        """Its gs:// URI."""
        return f"gs://{self.bucket}/{self.name}"


class Made(NamedTuple):
    """What an object's name tells that was made here."""

    purpose: str
    """Under OpenAI's names."""
    kind: str = ""
    """What is asked or answered, of a batch's file."""
    model: str = ""
    """That the lines of a batch's input ask for; "" where they tell none, or an odd one."""


def bucket_of(options: ModelOptions) -> Bucket:
    """The operator's bucket. Raises ProviderFailed (500) where the configuration names none."""
    parts = urlsplit(options.upstream_url or "")
    found = _PLACE.fullmatch(parts.path)
    if found is None or not parts.netloc:
        raise _no_bucket()
    segments = [unquote(each) for each in found["prefix"].split("/")[1:]]
    if any(each in (".", "..") or "/" in each or not each.isprintable() for each in segments):
        raise _no_bucket()
    prefix = "".join(f"{each}/" for each in segments)
    return Bucket(f"{parts.scheme}://{parts.netloc}", found["bucket"], prefix)


def _no_bucket() -> ProviderFailed:
    text = (
        "files of Vertex AI are objects in Cloud Storage: must set 'model.options.upstream_url' to "
        "the bucket they lie in, as https://storage.googleapis.com/<bucket>[/<prefix>]"
    )
    return ProviderFailed(ProviderError(text, status=_SERVER_ERROR))


# ---- ids


def object_id(place: Location) -> str:
    """The id that clients get for an object."""
    return file_id(place.uri)


def location(told: str) -> Location:
    """The object that an id, or a gs:// URI, means. Raises ProviderFailed (404)."""
    found = _URI.fullmatch(told if told.startswith("gs://") else file_name(told))
    if found is None or not _is_name(found["name"]):
        raise no_file(told)
    return Location(found["bucket"], found["name"])


def _is_name(name: str) -> bool:
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        return False
    segments = name.split("/")
    odd = any(each in ("", ".", "..") for each in segments)
    return length <= _MAX_NAME and name.isprintable() and not odd


def own_location(told: str, bucket: Bucket) -> Location:
    """The same of the operator's bucket, below its prefix. Raises ProviderFailed (404)."""
    place = location(told)
    if place.bucket != bucket.name or not place.name.startswith(bucket.prefix):
        raise no_file(told)
    return place


# ---- names


def object_name(
    bucket: Bucket, filename: str, number: str, *, purpose: str, kind: str = "", model: str = ""
) -> str:
    """The name for a new object; `number` is 24 letters and digits, `kind` and `model` what the
    lines of a batch's input ask for."""
    directory = f"input-{kind}-{number}" if kind else f"{purpose or 'user_data'}-{number}"
    short = model.removeprefix("google/")
    own = f"/{short}" if kind and _MODEL.fullmatch(short) and short not in (".", "..") else ""
    plain = re.split(r"[/\\]", filename)[-1]
    plain = plain if plain not in ("", ".", "..") else "file"
    return f"{bucket.prefix}{directory}{own}/{plain}"


def made(name: str) -> Made:
    """What the name of an object tells."""
    segments = name.split("/")
    for at in range(len(segments) - 2, -1, -1):
        found = _MADE.match(segments[at])
        if found is None:
            continue
        if segments[at].startswith("output-"):
            is_told = segments[-1] == "predictions.jsonl"
            return Made("batch_output", found["kind"] if is_told else "")
        if found["kind"]:
            return Made("batch", found["kind"], segments[at + 1] if at + 3 == len(segments) else "")
        if found["purpose"] in openai_files.PURPOSES:
            return Made(found["purpose"])
    return Made("user_data")


def output_prefix(place: Location, kind: str, number: str) -> str:
    """The beginning of the gs:// URIs for what a batch writes: beside its input."""
    folder, slash, _ = place.name.rpartition("/")
    return f"gs://{place.bucket}/{folder}{slash}output-{kind}-{number}"


def encoded(name: str) -> str:
    """An object's name as one segment of a path."""
    return quote(name, safe="")
