"""Amazon S3: objects that are put, whole and in parts, copied, read, listed and deleted.

Buckets are named in the path. Requests are checked with botocore's model of s3, signatures are
recomputed by botocore, and answers are read back by its parsers. What the model does not hold (the
least size of a part, ETags, paths as S3 encodes them) is checked here, with its source.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any, Final
from urllib.parse import quote, unquote
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from aiohttp import web
from botocore.credentials import Credentials  # type: ignore[import-untyped, unused-ignore]
from botocore.model import OperationModel, Shape  # type: ignore[import-untyped, unused-ignore]
from botocore.parsers import create_parser  # type: ignore[import-untyped, unused-ignore]
from typing_extensions import override

from tests.providers import aws
from tests.providers.upstream import Json, Recorded, RefusedError, Reply, Turn, Upstream

_MODEL: Final = aws.service("s3")
_HEAD: Final = '<?xml version="1.0" encoding="UTF-8"?>\n'
_XML: Final = "application/xml"
_NAMESPACE: Final = "http://s3.amazonaws.com/doc/2006-03-01/"

# https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
_LEAST_PART: Final = 5 << 20
_MOST_PARTS: Final = 10_000
_MOST_KEY: Final = 1024

# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html#ErrorCodeList
_CODES: Final = {
    400: "InvalidRequest",
    403: "AccessDenied",
    404: "NoSuchKey",
    405: "MethodNotAllowed",
}

_TEXTS: Final = {
    "EntityTooSmall": "Your proposed upload is smaller than the minimum allowed size",
    "InvalidPart": "One or more of the specified parts could not be found.",
    "InvalidPartOrder": "The list of parts was not in ascending order.",
    "NoSuchBucket": "The specified bucket does not exist",
    "NoSuchKey": "The specified key does not exist.",
    "NoSuchUpload": "The specified upload does not exist.",
}
_STATUSES: Final = {"NoSuchBucket": 404, "NoSuchKey": 404, "NoSuchUpload": 404}


class S3Error(RefusedError):
    """An error that S3 has a name for."""

    def __init__(self, code: str) -> None:
        super().__init__(_TEXTS[code], _STATUSES.get(code, 400))
        self.code = code


@dataclass(frozen=True)
class Stored:
    """One object."""

    content: bytes
    media_type: str = "binary/octet-stream"
    metadata: Mapping[str, str] = field(default_factory=dict)
    modified: datetime = field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))

    @property
    def etag(self) -> str:
        """As a header has it."""
        return f'"{hashlib.md5(self.content).hexdigest()}"'


@dataclass
class _Parts:
    """An upload under way."""

    key: str
    begun: Stored
    parts: dict[int, bytes] = field(default_factory=dict)


class S3(Upstream):
    """S3 with one bucket.

    objects: what is in it, by key.
    uploads: those under way; a test that expects none to be left over looks here.
    late: an error that the next CompleteMultipartUpload tells in an answer of status 200.
    page: keys in one answer of a list, at most.
    """

    name = "s3"
    ROUTES = ((("*", re.compile(r"/.*")), "any"),)

    def __init__(
        self,
        bucket: str = "my-bucket",
        access_key: str = "AKIASTANDIN",
        secret_key: str = "stand-in-secret",
        token: str | None = None,
        region: str = "us-east-1",
    ) -> None:
        super().__init__()
        self.bucket = bucket
        self.credentials = Credentials(access_key, secret_key, token)
        self.region = region
        self.objects: dict[str, Stored] = {}
        self.uploads: dict[str, _Parts] = {}
        self.late: str | None = None
        self.page = 1000
        self.operations: list[str] = []
        """Names of what was asked for, oldest first."""

    # ---- as Upstream wants it

    @override
    def _answer(self, seen: Recorded, turn: Turn) -> Reply:
        self.authorize(seen)
        reply = self.any(seen)
        return self.error(seen, turn.status, turn.message) if turn.status >= 400 else reply

    @override
    async def _serve(self, request: web.Request) -> web.StreamResponse:
        """An answer to HEAD has the length of what it stands for, and nothing else."""
        if request.method != "HEAD":
            return await super()._serve(request)
        path, _, query = request.raw_path.partition("?")
        seen = Recorded("HEAD", path, query, request.headers, b"")
        self.requests.append(seen)
        reply = self._reply(seen, self._turns.pop(0) if len(self._turns) > 1 else self._turns[0])
        headers = {"Content-Type": reply.content_type, **reply.headers}
        headers.setdefault("Content-Length", "0")
        return web.Response(status=reply.status, headers=headers)

    @override
    def authorize(self, request: Recorded) -> None:
        """https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html"""
        if "x-amz-content-sha256" not in request.headers:
            raise RefusedError("Missing required header for this request: x-amz-content-sha256")
        if request.path != quote(unquote(request.path), safe="/-_.~"):
            text = f"the path {request.path} is not encoded as S3 encodes it for the signature"
            raise RefusedError(text, 403)
        aws.check_signature(request, self.credentials, self.region, "s3")

    @override
    def error(self, request: Recorded, status: int, message: str) -> Reply:
        """https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html"""
        code = next((code for code, text in _TEXTS.items() if text == message), None)
        body = _error(code or _CODES.get(status, "InternalError"), message)
        kept = b"" if request.method == "HEAD" else body
        return Reply(kept, status=status, content_type=_XML)

    # ---- operations

    def any(self, request: Recorded) -> Reply:
        """Which operation it is, and its answer."""
        bucket, _, key = unquote(request.path[1:]).partition("/")
        name = _operation(request, key)
        self.operations.append(name)
        operation = _MODEL.operation_model(name)
        params = _params(operation, request, bucket, key)
        if bucket != self.bucket:
            raise S3Error("NoSuchBucket")
        if len(key.encode()) > _MOST_KEY:
            raise RefusedError("Your key is too long")
        reply: Reply = getattr(self, f"_{_snake(name)}")(params, request)
        if reply.content_type == _XML and reply.body and b"<Error>" not in reply.body:
            _read_back(operation, reply)
        return reply

    def _put_object(self, params: Json, request: Recorded) -> Reply:
        self.objects[params["Key"]] = stored = _stored(params, request.body)
        return Reply(headers={"ETag": stored.etag})

    def _copy_object(self, params: Json, request: Recorded) -> Reply:
        bucket, _, key = unquote(params["CopySource"]).lstrip("/").partition("/")
        if bucket != self.bucket:
            raise S3Error("NoSuchBucket")
        source = self._object(key)
        self.objects[params["Key"]] = copied = replace(source)
        return _xml(
            "CopyObjectResult",
            f"<LastModified>{_iso(copied.modified)}</LastModified><ETag>{copied.etag}</ETag>",
        )

    def _create_multipart_upload(self, params: Json, _: Recorded) -> Reply:
        upload = f"upload.{len(self.operations)}-a_b~c"
        self.uploads[upload] = _Parts(params["Key"], _stored(params, b""))
        told = f"<Bucket>{self.bucket}</Bucket><Key>{escape(params['Key'])}</Key>"
        return _xml("InitiateMultipartUploadResult", f"{told}<UploadId>{upload}</UploadId>")

    def _upload_part(self, params: Json, request: Recorded) -> Reply:
        upload = self._upload(params)
        if not 1 <= params["PartNumber"] <= _MOST_PARTS:
            raise RefusedError("Part number must be an integer between 1 and 10000, inclusive")
        upload.parts[params["PartNumber"]] = request.body
        return Reply(headers={"ETag": Stored(request.body).etag})

    def _complete_multipart_upload(self, params: Json, _: Recorded) -> Reply:
        upload = self._upload(params)
        if self.late is not None:
            code, self.late = self.late, None
            error = _error(code, "We encountered an internal error.")
            return Reply(b" \r\n" * 9 + error, content_type=_XML)
        parts = params["MultipartUpload"]["Parts"]
        numbers = [each["PartNumber"] for each in parts]
        if numbers != sorted(set(numbers)) or not numbers:
            raise S3Error("InvalidPartOrder")
        for each in parts:
            if Stored(upload.parts.get(each["PartNumber"], b"")).etag != each["ETag"]:
                raise S3Error("InvalidPart")
        contents = [upload.parts[number] for number in numbers]
        if any(len(content) < _LEAST_PART for content in contents[:-1]):
            raise S3Error("EntityTooSmall")
        del self.uploads[params["UploadId"]]
        self.objects[upload.key] = made = replace(upload.begun, content=b"".join(contents))
        told = f"<Bucket>{self.bucket}</Bucket><Key>{escape(upload.key)}</Key>"
        return _xml("CompleteMultipartUploadResult", f"{told}<ETag>{made.etag}</ETag>")

    def _abort_multipart_upload(self, params: Json, _: Recorded) -> Reply:
        self._upload(params)
        del self.uploads[params["UploadId"]]
        return Reply(status=204)

    def _head_object(self, params: Json, _: Recorded) -> Reply:
        stored = self._object(params["Key"])
        length = {"Content-Length": str(len(stored.content))}
        return Reply(content_type=stored.media_type, headers={**_headers(stored), **length})

    def _get_object(self, params: Json, _: Recorded) -> Reply:
        stored = self._object(params["Key"])
        return Reply(stored.content, content_type=stored.media_type, headers=_headers(stored))

    def _delete_object(self, params: Json, _: Recorded) -> Reply:
        self.objects.pop(params["Key"], None)
        return Reply(status=204)

    def _list_objects_v2(self, params: Json, _: Recorded) -> Reply:
        """In the order of their UTF-8; a token stands for the last key of the page before."""
        prefix = params.get("Prefix", "")
        after = bytes.fromhex(params.get("ContinuationToken", "")).decode()
        after = after or params.get("StartAfter", "")
        keys = sorted(
            (key for key in self.objects if key.startswith(prefix) and key > after), key=str.encode
        )
        size = min(params.get("MaxKeys", 1000), self.page)
        page, rest = keys[:size], keys[size:]
        encode = quote if params.get("EncodingType") == "url" else escape
        told = [
            f"<Name>{self.bucket}</Name><Prefix>{encode(prefix)}</Prefix>"
            f"<KeyCount>{len(page)}</KeyCount><MaxKeys>{size}</MaxKeys>"
            f"<IsTruncated>{str(bool(rest)).lower()}</IsTruncated>",
            "<EncodingType>url</EncodingType>" if encode is quote else "",
            f"<NextContinuationToken>{page[-1].encode().hex()}</NextContinuationToken>"
            if rest
            else "",
            *(_listed(encode(key), self.objects[key]) for key in page),
        ]
        return _xml("ListBucketResult", "".join(told))

    def _object(self, key: str) -> Stored:
        if key not in self.objects:
            raise S3Error("NoSuchKey")
        return self.objects[key]

    def _upload(self, params: Json) -> _Parts:
        upload = self.uploads.get(params["UploadId"])
        if upload is None or upload.key != params["Key"]:
            raise S3Error("NoSuchUpload")
        return upload


# ---- requests


def _operation(request: Recorded, key: str) -> str:
    """https://docs.aws.amazon.com/AmazonS3/latest/API/API_Operations_Amazon_Simple_Storage_Service.html"""
    asked = request.params
    found = {
        ("GET", False): "ListObjectsV2" if asked.get("list-type") == "2" else "",
        ("GET", True): "GetObject",
        ("HEAD", True): "HeadObject",
        ("DELETE", True): "AbortMultipartUpload" if "uploadId" in asked else "DeleteObject",
        ("POST", True): "CreateMultipartUpload"
        if "uploads" in asked
        else "CompleteMultipartUpload"
        if "uploadId" in asked
        else "",
        ("PUT", True): "UploadPart"
        if "partNumber" in asked
        else "CopyObject"
        if "x-amz-copy-source" in request.headers
        else "PutObject",
    }.get((request.method, bool(key)))
    if not found:
        raise RefusedError("The specified method is not allowed against this resource.", 405)
    return found


def _params(operation: OperationModel, request: Recorded, bucket: str, key: str) -> Json:
    """The operation's input, put together and checked. Raises RefusedError."""
    shape = operation.input_shape
    params: Json = {}
    for name, member in shape.members.items():
        found = _outside(member, name, request, {"Bucket": bucket, "Key": key})
        if found is not None and name != "ContentLength":
            params[name] = found
    known = {each.serialization.get("name") for each in shape.members.values()}
    if odd := set(request.params) - known - {"list-type", "uploads"}:
        raise RefusedError(f"{operation.name} has no {sorted(odd)}")
    payload = shape.serialization.get("payload")
    if payload == "MultipartUpload":
        params[payload] = {"Parts": _parts(request.body)}
    elif payload == "Body":
        _check_length(request)
    elif request.body:
        raise RefusedError(f"{operation.name} has no body")
    aws.check_shape(shape, params)
    return params


def _outside(member: Shape, name: str, request: Recorded, path: Mapping[str, str]) -> Any:
    """A member that does not stand in the body; None where it is not there."""
    wire = member.serialization.get("name", name)
    location = member.serialization.get("location")
    found = {"uri": path, "querystring": request.params, "header": request.headers}
    if location in found:
        text = found[location].get(wire)
        return None if text is None else _typed(member.type_name, text)
    if location != "headers":
        return None
    return {
        each.lower().removeprefix(wire): value
        for each, value in request.headers.items()
        if each.lower().startswith(wire)
    }


def _check_length(request: Recorded) -> None:
    if "Content-Length" not in request.headers:
        raise RefusedError("You must provide the Content-Length HTTP header.", 411)


def _typed(kind: str, text: str) -> Any:
    if kind in ("integer", "long"):
        if not text.isdigit():
            raise RefusedError(f"{text!r} is not a number")
        return int(text)
    return text == "true" if kind == "boolean" else text


def _parts(body: bytes) -> list[Json]:
    """https://docs.aws.amazon.com/AmazonS3/latest/API/API_CompleteMultipartUpload.html"""
    try:
        root = ElementTree.fromstring(body)
    except ElementTree.ParseError as error:
        raise RefusedError(f"The XML you provided was not well-formed: {error}") from None
    if root.tag != f"{{{_NAMESPACE}}}CompleteMultipartUpload":
        raise RefusedError("The XML you provided did not validate against our published schema")
    return [
        {
            "ETag": each.findtext(f"{{{_NAMESPACE}}}ETag"),
            "PartNumber": int(each.findtext(f"{{{_NAMESPACE}}}PartNumber") or ""),
        }
        for each in root
    ]


# ---- answers


def _stored(params: Json, content: bytes) -> Stored:
    given = {"media_type": params["ContentType"]} if "ContentType" in params else {}
    return Stored(content, metadata=params.get("Metadata", {}), **given)


def _headers(stored: Stored) -> dict[str, str]:
    return {
        "ETag": stored.etag,
        "Last-Modified": format_datetime(stored.modified, usegmt=True),
        "Accept-Ranges": "bytes",
        **{f"x-amz-meta-{name}": value for name, value in stored.metadata.items()},
    }


def _listed(key: str, stored: Stored) -> str:
    return (
        f"<Contents><Key>{key}</Key><LastModified>{_iso(stored.modified)}</LastModified>"
        f"<ETag>{escape(stored.etag)}</ETag><Size>{len(stored.content)}</Size>"
        "<StorageClass>STANDARD</StorageClass></Contents>"
    )


def _iso(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%S}.000Z"


def _xml(name: str, content: str) -> Reply:
    text = (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<{name} xmlns="{_NAMESPACE}">{content}</{name}>'
    )
    return Reply(text.encode(), content_type=_XML)


def _error(code: str, message: str) -> bytes:
    return (
        f"{_HEAD}<Error><Code>{code}</Code><Message>"
        f"{escape(message)}</Message><RequestId>4442587FB7D0A2F9</RequestId></Error>"
    ).encode()


def _read_back(operation: OperationModel, reply: Reply) -> None:
    """Raises AssertionError where botocore finds nothing in it."""
    response = {"status_code": 200, "headers": {}, "body": reply.body}
    read = create_parser("rest-xml").parse(response, operation.output_shape)
    read.pop("ResponseMetadata")
    assert read, f"botocore reads nothing in {reply.body!r}"


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
