"""AWS for stand-ins, by botocore: the service model, signatures and event streams."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import struct
import zlib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import orjson
from botocore.auth import S3SigV4Auth, SigV4Auth  # type: ignore[import-untyped, unused-ignore]
from botocore.awsrequest import AWSRequest  # type: ignore[import-untyped, unused-ignore]
from botocore.credentials import Credentials  # type: ignore[import-untyped, unused-ignore]
from botocore.eventstream import EventStreamBuffer  # type: ignore[import-untyped, unused-ignore]
from botocore.model import OperationModel, ServiceModel, Shape  # type: ignore[import-untyped, unused-ignore]
from botocore.parsers import create_parser  # type: ignore[import-untyped, unused-ignore]
from botocore.session import Session  # type: ignore[import-untyped, unused-ignore]
from botocore.utils import parse_timestamp  # type: ignore[import-untyped, unused-ignore]
from botocore.validate import ParamValidator  # type: ignore[import-untyped, unused-ignore]

from tests.providers.strict import parsed
from tests.providers.upstream import Json, Recorded, RefusedError

_AUTHORIZATION: Final = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<key>[^/]+)/(?P<day>\d{8})/(?P<region>[^/]+)/"
    r"(?P<service>[^/]+)/aws4_request, ?SignedHeaders=(?P<names>[^,]+), ?Signature=(?P<sum>\w{64})"
)
_SKEW: Final = timedelta(minutes=5)


def service(name: str) -> ServiceModel:
    """botocore's model of a service."""
    return Session().get_service_model(name)


# ---- shapes


def decoded(shape: Shape, value: Any, place: str = "") -> Any:
    """JSON as it came over the wire in the form that ParamValidator takes: blobs as bytes, members
    by their names in the model. Raises RefusedError for a blob that is not base64."""
    if shape.type_name == "blob" and isinstance(value, str):
        try:
            return base64.b64decode(value, validate=True)
        except binascii.Error:
            raise RefusedError(f"{place}: not base64") from None
    if shape.type_name == "timestamp" and isinstance(value, str):
        return parse_timestamp(value)
    if shape.type_name == "list" and isinstance(value, list):
        return [decoded(shape.member, each, f"{place}[{at}]") for at, each in enumerate(value)]
    if shape.type_name == "map" and isinstance(value, dict):
        return {key: decoded(shape.value, each, f"{place}.{key}") for key, each in value.items()}
    if shape.type_name == "structure" and isinstance(value, dict) and not shape.is_document_type:
        names = {each.serialization.get("name", name): name for name, each in shape.members.items()}
        return {
            names.get(key, key): decoded(shape.members[names[key]], each, f"{place}.{key}")
            if key in names
            else each
            for key, each in value.items()
        }
    return value


def check_shape(shape: Shape, params: Any) -> None:
    """Raises RefusedError. ParamValidator leaves enums, patterns and greatest lengths to the
    service: they are in the same model."""
    report = ParamValidator().validate(params, shape)
    problems = [report.generate_report()] if report.has_errors() else []
    if not problems:
        problems = list(_limits(shape, params, ""))
    if problems:
        raise RefusedError("; ".join(problems).replace("\n", "; "))


def _limits(shape: Shape, value: Any, place: str) -> Iterator[str]:
    if shape.type_name == "structure" and not shape.is_document_type:
        for name, each in value.items():
            yield from _limits(shape.members[name], each, f"{place}.{name}")
    elif shape.type_name == "list":
        for at, each in enumerate(value):
            yield from _limits(shape.member, each, f"{place}[{at}]")
    elif shape.type_name == "map":
        for name, each in value.items():
            yield from _limits(shape.value, each, f"{place}.{name}")
    yield from _own_limits(shape.metadata, value, place)


def _own_limits(limits: Mapping[str, Any], value: Any, place: str) -> Iterator[str]:
    if limits.get("enum") and value not in limits["enum"]:
        yield f"{place}: {value!r} is none of {limits['enum']}"
    if limits.get("pattern") and not re.fullmatch(limits["pattern"], value):
        yield f"{place}: {value!r} does not match {limits['pattern']}"
    if "max" in limits:
        size = len(value) if hasattr(value, "__len__") else value
        if size > limits["max"]:
            yield f"{place}: {size} is more than {limits['max']}"


def request_params(operation: OperationModel, request: Recorded, path: Mapping[str, str]) -> Json:
    """The operation's input, put together from path, headers and body, and checked. Raises
    RefusedError."""
    shape = operation.input_shape
    params: Json = {}
    payload = shape.serialization.get("payload")
    if payload:
        params[payload] = request.body
    elif request.body:
        params.update(decoded(shape, parsed(request.body)))
        outside = [n for n in params if n in shape.members and _location(shape.members[n])]
        if outside:
            raise RefusedError(f"{outside}: does not belong in the body")
    for name, member in shape.members.items():
        wire = member.serialization.get("name", name)
        if _location(member) == "uri" and wire in path:
            params[name] = path[wire]
        elif _location(member) == "header" and wire in request.headers:
            params[name] = request.headers[wire]
    check_shape(shape, params)
    return params


def _location(shape: Shape) -> str | None:
    location: str | None = shape.serialization.get("location")
    return location


def answer(operation: OperationModel, value: Json) -> bytes:
    """A JSON answer that the model allows and that botocore's parser reads in full. Raises
    AssertionError otherwise."""
    body = orjson.dumps(value)
    given = decoded(operation.output_shape, value)
    _assert_shape(operation.output_shape, given)
    response = {"status_code": 200, "headers": {}, "body": body}
    read = create_parser("rest-json").parse(response, operation.output_shape)
    read.pop("ResponseMetadata")
    assert read == given, f"botocore reads {read}"
    return body


def _assert_shape(shape: Shape, given: Any) -> None:
    try:
        check_shape(shape, given)
    except RefusedError as refused:
        raise AssertionError(f"no {shape.name}: {refused.message}") from None


# ---- event streams: https://docs.aws.amazon.com/transcribe/latest/dg/streaming-setting-up.html


def frame(headers: Mapping[str, str], payload: bytes) -> bytes:
    """One message of an event stream, all headers strings."""
    head = b"".join(
        struct.pack(">B", len(name))
        + name.encode()
        + struct.pack(">BH", 7, len(value.encode()))
        + value.encode()
        for name, value in headers.items()
    )
    prelude = struct.pack(">II", 16 + len(head) + len(payload), len(head))
    message = prelude + struct.pack(">I", zlib.crc32(prelude)) + head + payload
    return message + struct.pack(">I", zlib.crc32(message))


def event(operation: OperationModel, kind: str, value: Json, padding: str = "") -> bytes:
    """An event that the model allows and that botocore reads in full. `padding` is the member `p`
    by which Bedrock hides the length of tokens; botocore does not see it. Raises AssertionError."""
    shape = operation.get_event_stream_output()
    given = decoded(shape.members[kind], value)
    _assert_shape(shape.members[kind], given)
    payload = orjson.dumps({**value, "p": padding} if padding else value)
    headers = {
        ":event-type": kind,
        ":content-type": "application/json",
        ":message-type": "event",
    }
    made = frame(headers, payload)
    assert _read(operation, made) == {kind: given}, f"botocore reads {_read(operation, made)}"
    return made


def exception(operation: OperationModel, kind: str, text: str) -> bytes:
    """An exception inside a stream. Raises AssertionError for one that the model does not name."""
    headers = {
        ":exception-type": kind,
        ":content-type": "application/json",
        ":message-type": "exception",
    }
    made = frame(headers, orjson.dumps({"message": text}))
    assert _read(operation, made)["Error"] == {"Code": kind, "Message": text}
    assert kind in operation.get_event_stream_output().members
    return made


def _read(operation: OperationModel, made: bytes) -> Json:
    buffer = EventStreamBuffer()
    buffer.add_data(made)
    (message,) = list(buffer)
    parser = create_parser("rest-json")._event_stream_parser
    read: Json = parser.parse(message.to_response_dict(), operation.get_event_stream_output())
    read.pop("ResponseMetadata", None)
    return read


# ---- signatures


def check_signature(
    request: Recorded, credentials: Credentials, region: str, service_name: str
) -> None:
    """Signature version 4 of a received request, recomputed by botocore from what it says was
    signed. Raises RefusedError 403.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
    """
    given = _AUTHORIZATION.fullmatch(request.headers.get("Authorization", ""))
    if given is None:
        raise RefusedError("Authorization is neither AWS4-HMAC-SHA256 nor Bearer", 403)
    names = given["names"].split(";")
    _check_signed(request, names)
    if given["key"] != credentials.access_key:
        raise RefusedError("The security token included in the request is invalid.", 403)
    if (given["region"], given["service"]) != (region, service_name):
        raise RefusedError(f"Credential should be scoped to {region}/{service_name}", 403)
    if credentials.token and request.headers.get("x-amz-security-token") != credentials.token:
        raise RefusedError("The security token included in the request is invalid.", 403)
    _check_date(request, given["day"])
    expected = _signature(request, names, credentials, region, service_name)
    if expected != given["sum"]:
        text = "The request signature we calculated does not match the signature you provided."
        raise RefusedError(text, 403)


def _check_signed(request: Recorded, names: list[str]) -> None:
    if names != sorted(names):
        raise RefusedError("SignedHeaders must be sorted", 403)
    needed = {name.lower() for name in request.headers if name.lower().startswith("x-amz-")}
    if missing := ({"host"} | needed) - set(names):
        raise RefusedError(f"these headers must be signed: {sorted(missing)}", 403)
    claimed = request.headers.get("x-amz-content-sha256", "UNSIGNED-PAYLOAD")
    if claimed not in ("UNSIGNED-PAYLOAD", hashlib.sha256(request.body).hexdigest()):
        raise RefusedError("x-amz-content-sha256 is not the body's", 403)


def _check_date(request: Recorded, day: str) -> None:
    stamp = request.headers.get("x-amz-date", "")
    try:
        at = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        raise RefusedError(f"x-amz-date {stamp!r} is not a time", 403) from None
    if not stamp.startswith(day) or abs(datetime.now(UTC) - at) > _SKEW:
        raise RefusedError(f"Signature expired: {stamp}", 403)


def _signature(
    request: Recorded, names: list[str], credentials: Credentials, region: str, service_name: str
) -> str:
    query = f"?{request.query}" if request.query else ""
    signed = AWSRequest(
        method=request.method,
        url=f"http://{request.headers['Host']}{request.path}{query}",
        data=request.body,
    )
    for name in names:
        for value in request.headers.getall(name, []):
            signed.headers[name] = value
    signed.context["timestamp"] = request.headers["x-amz-date"]
    # S3 does not encode the path once more.
    kind = S3SigV4Auth if service_name == "s3" else SigV4Auth
    signer = kind(credentials, service_name, region)
    canonical = signer.canonical_request(signed)
    return str(signer.signature(signer.string_to_sign(signed, canonical), signed))
