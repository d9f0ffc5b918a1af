"""What botocore knows of Bedrock: its service model, its serializer, its parsers.

The only place that imports botocore, which has no types.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import orjson
from botocore.eventstream import EventStreamBuffer  # type: ignore[import-untyped]
from botocore.model import ServiceModel  # type: ignore[import-untyped]
from botocore.parsers import create_parser  # type: ignore[import-untyped]
from botocore.serialize import create_serializer  # type: ignore[import-untyped]
from botocore.session import get_session  # type: ignore[import-untyped]
from botocore.validate import ParamValidator  # type: ignore[import-untyped]


def messages(data: bytes) -> list[tuple[dict[str, Any], bytes]]:
    """Headers and payloads of an event stream."""
    buffer = EventStreamBuffer()
    buffer.add_data(data)
    return [(message.headers, message.payload) for message in buffer]


@cache
def _service(name: str) -> Any:
    return ServiceModel(
        get_session().get_component("data_loader").load_service_model(name, "service-2"), name
    )


def endpoint_url(service: str, region: str) -> str:
    """Where boto3 would call a service."""
    client = get_session().create_client(
        service, region, aws_access_key_id="AKIA", aws_secret_access_key="secret"
    )
    return str(client.meta.endpoint_url)


def signing_name(service: str) -> str:
    """What boto3 would sign for."""
    return str(_service(service).signing_name)


def serialized(operation: str, service: str = "bedrock-runtime", **parameters: Any) -> Any:
    """The HTTP request that boto3 makes of these parameters, after it has checked them."""
    shape = _service(service).operation_model(operation)
    report = ParamValidator().validate(parameters, shape.input_shape)
    assert not report.has_errors(), report.generate_report()
    return create_serializer("rest-json").serialize_to_request(parameters, shape)


def json_body(request: Any) -> Any:
    """The JSON of a request."""
    return orjson.loads(request["body"])


def received(operation: str, body: object) -> Any:
    """What a server gets of a request: its JSON read by the service model, base64 as bytes.

    Raises AssertionError for members that the model does not have, and where a value does not fit.
    """
    shape = _service("bedrock-runtime").operation_model(operation).input_shape
    _no_unknown(body, shape, operation)
    parser = create_parser("rest-json")
    values = parser._parse_shape(shape, body)
    report = ParamValidator().validate({"modelId": "some.model", **values}, shape)
    assert not report.has_errors(), report.generate_report()
    return values


def answer(operation: str, body: object, status: int = 200, **headers: str) -> Any:
    """What boto3 makes of a server's answer."""
    shape = _service("bedrock-runtime").operation_model(operation).output_shape
    response = {"status_code": status, "headers": headers, "body": orjson.dumps(body)}
    if status == 200:
        _no_unknown(body, shape, operation)
        _all_required(body, shape, operation)
    return create_parser("rest-json").parse(response, shape)


def events(operation: str, data: bytes) -> list[dict[str, Any]]:
    """What boto3 makes of the events of a stream; of an exception its `Error`."""
    shape = _service("bedrock-runtime").operation_model(operation).get_event_stream_output()
    parser = create_parser("rest-json")._event_stream_parser
    found = []
    for headers, payload in messages(data):
        if headers[":message-type"] == "event":
            event = shape.members[headers[":event-type"]]
            body = orjson.loads(payload)
            _no_unknown(body, event, headers[":event-type"])
            _all_required(body, event, headers[":event-type"])
        status = 200 if headers[":message-type"] == "event" else 400
        response = {"status_code": status, "headers": headers, "body": payload}
        found.append(parser.parse(response, shape))
    return found


def _no_unknown(value: Any, shape: Any, where: str) -> None:
    if shape.type_name == "structure" and not shape.is_document_type:
        assert isinstance(value, dict), where
        for name, member in value.items():
            assert name in shape.members, f"{where}.{name}"
            _no_unknown(member, shape.members[name], f"{where}.{name}")
    elif shape.type_name == "list":
        assert isinstance(value, list), where
        for index, member in enumerate(value):
            _no_unknown(member, shape.member, f"{where}[{index}]")


def _all_required(value: Any, shape: Any, where: str) -> None:
    if shape.type_name == "structure" and not shape.is_document_type:
        for name in shape.required_members:
            assert name in value, f"{where}.{name}"
        for name, member in value.items():
            _all_required(member, shape.members[name], f"{where}.{name}")
    elif shape.type_name == "list":
        for index, member in enumerate(value):
            _all_required(member, shape.member, f"{where}[{index}]")
