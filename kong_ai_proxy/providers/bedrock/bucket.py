"""The bucket in S3 where Bedrock's batches are read and written, and what is kept in it.

Below the configured prefix (`model.options.bedrock.batch_bucket_prefix`) the keys are

    {stamp}/{kind}/{file name}                      what clients have uploaded
    {stamp}/{kind}_output/{job}/{file name}.out     what a job has made of that

A stamp is the time, counted backwards so that S3, which lists by name, lists the newest first, and
24 random letters and digits. A kind is a purpose under OpenAI's name; a batch of embeddings has one
of its own, since its output is read otherwise. File names hold letters, digits and "-_.": Bedrock
takes no others, and everything else is written as "!" and two hexadecimal digits for each byte.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple
from urllib.parse import quote, urlencode

from kong_ai_proxy.config import ModelOptions
from kong_ai_proxy.formats.errors import ProviderError
from kong_ai_proxy.formats.openai.files import PURPOSES
from kong_ai_proxy.providers.bedrock.output import SERVICE, base_url
from kong_ai_proxy.providers.files import no_file
from kong_ai_proxy.providers.flow import ProviderFailed, Send, Wanted

BATCH = "batch"
EMBEDDINGS = "batch-embeddings"
"""Kinds of files that jobs read."""

_OUTPUT = "_output"
_NOTHING: Mapping[str, str] = MappingProxyType({})

# What AWS takes in an s3Uri: API_ModelInvocationJobS3InputDataConfig.html
_PREFIX = re.compile(
    r"(?:s3://)?(?P<bucket>[a-z0-9][-.a-z0-9]{1,61}[a-z0-9])"
    r"(?P<prefix>(?:/[-!_*'().a-z0-9A-Z]+)*)/?"
)
_DOTS = re.compile(r"(?:^|/)\.{1,2}(?:/|$)")
_LAST_SECOND = 0xFFFFFFFF
_KINDS = "|".join([*PURPOSES, EMBEDDINGS])
_NAME = r"(?!\.{1,2}\Z)(?:[-_.a-zA-Z0-9]|![0-9a-f]{2})+"
_SUFFIX = "!.jsonl"  # of a batch's file whose name has another one: Bedrock wants .jsonl
_UPLOADED = re.compile(
    rf"(?P<time>[0-9a-f]{{8}})[A-Za-z0-9]{{24}}/(?P<kind>{_KINDS})/(?P<name>{_NAME}(?:!\.jsonl)?)"
)
# Beside that a job writes manifest.json.out:
# https://docs.aws.amazon.com/bedrock/latest/userguide/batch-inference-results.html
_MADE = re.compile(
    rf"(?P<time>[0-9a-f]{{8}})[A-Za-z0-9]{{24}}/(?P<kind>{BATCH}|{EMBEDDINGS}){_OUTPUT}"
    rf"/(?P<job>[a-z0-9]{{12}})/(?=[^/]*\.jsonl\.out)(?P<name>{_NAME}(?:!\.jsonl)?)\.out"
)
_ODD = re.compile(r"[^-_.a-zA-Z0-9]")


class Key(NamedTuple):
    """What a key below the prefix says."""

    kind: str
    filename: str
    created_at: int
    """Seconds since 1970; of an output: when its input was uploaded."""
    is_output: bool

    @property
    def purpose(self) -> str:
        """Under OpenAI's name."""
        purpose = BATCH if self.kind == EMBEDDINGS else self.kind
        return f"{purpose}_output" if self.is_output else purpose


class Bucket(NamedTuple):
    """Where the files are kept."""

    name: str
    prefix: str
    """"" or with a slash at its end."""
    base_url: str
    root: str
    """The path before the prefix: virtual-hosted buckets have none."""

    def send(
        self,
        method: str,
        key: str,
        query: Mapping[str, str] = _NOTHING,
        headers: Mapping[str, str] = _NOTHING,
        body: bytes | None = None,
    ) -> Send:
        """A request for the object `key`, which is below the prefix."""
        path = f"{self.root}/{_encoded(self.prefix + key)}"
        return self._send(method, path, query, headers, body)

    def listing(self, query: Mapping[str, str]) -> Send:
        """A request for a list of what is below the prefix."""
        asked = {"list-type": "2", "encoding-type": "url", "prefix": self.prefix, **query}
        return self._send("GET", self.root or "/", asked, _NOTHING, None)

    def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        headers: Mapping[str, str],
        body: bytes | None,
    ) -> Send:
        return Send(
            method,
            path,
            query=urlencode(sorted(query.items()), quote_via=quote, safe="-_.~"),
            headers=headers,
            body=body,
            base_url=self.base_url,
            service=SERVICE,
        )

    def source(self, key: str) -> str:
        """What the header x-amz-copy-source says."""
        return f"/{self.name}/{_encoded(self.prefix + key)}"

    def uri(self, key: str) -> str:
        """Its s3:// address."""
        return f"s3://{self.name}/{self.prefix}{key}"

    def key_of(self, uri: str) -> str | None:
        """The key below the prefix that an s3:// address leads to; None for any other one."""
        start = self.uri("")
        return uri.removeprefix(start) if uri.startswith(start) else None


def bucket(options: ModelOptions) -> Bucket:
    """The configured bucket. Raises ProviderFailed (500) where none is configured, and FormatError
    for a region that is none."""
    told = options.bedrock.batch_bucket_prefix or ""
    found = _PREFIX.fullmatch(told)
    if not found or _DOTS.search(found["prefix"]):
        got = f"got {told!r}" if told else "set it"
        text = (
            "model.options.bedrock.batch_bucket_prefix: expected s3://BUCKET/PREFIX (a name of 3 "
            f"to 63 characters), the place for files and batches, {got}"
        )
        raise ProviderFailed(ProviderError(text, status=500))
    name, prefix = found["bucket"], found["prefix"].lstrip("/")
    below = f"{prefix}/" if prefix else ""
    root = f"/{name}" if options.upstream_url or "." in name else ""
    return Bucket(name, below, base_url(name, options), root)


def upload_key(wanted: Wanted, kind: str, filename: str) -> str:
    """The key for a new file."""
    name = _ODD.sub(lambda odd: "".join(f"!{each:02x}" for each in odd[0].encode()), filename)
    if kind in (BATCH, EMBEDDINGS) and not name.endswith(".jsonl"):
        name += _SUFFIX
    if name in (".", ".."):
        name = name.replace(".", "!2e")
    return f"{_LAST_SECOND - int(wanted.now):08x}{wanted.id}/{kind}/{name}"


def output_folder(key: str) -> str:
    """Where a job that reads `key` is to write: it makes a folder there with its own id."""
    stamp, kind, _ = key.split("/")
    return f"{stamp}/{kind}{_OUTPUT}/"


def output_key(key: str, job: str) -> str:
    """What the job then writes."""
    return f"{output_folder(key)}{job}/{key.rpartition('/')[2]}.out"


def parse_key(key: str) -> Key | None:
    """What a key says; None for one that was not made here."""
    found = _UPLOADED.fullmatch(key) or _MADE.fullmatch(key)
    if not found:
        return None
    name = found["name"].removesuffix(_SUFFIX)
    plain = re.sub("!([0-9a-f]{2})", lambda odd: chr(int(odd[1], 16)), name)
    filename = plain.encode("latin-1").decode("utf-8", "replace")
    is_output = found.re is _MADE
    if is_output:
        filename += ".out"
    return Key(found["kind"], filename, _LAST_SECOND - int(found["time"], 16), is_output)


def known_key(key: str, told: str) -> Key:
    """The same; `told` is the id that led to it. Raises ProviderFailed (404)."""
    found = parse_key(key)
    if found is None:
        raise no_file(told)
    return found


def _encoded(key: str) -> str:
    return quote(key, safe="/-_.~")
