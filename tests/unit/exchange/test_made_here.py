"""Which of several targets is asked for a file or a batch: the one whose form its id has."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from kong_ai_proxy.config import AiProxyAdvanced, parse
from kong_ai_proxy.exchange.made_here import makers
from kong_ai_proxy.exchange.messages import ClientRequest
from kong_ai_proxy.exchange.plan import Plan
from kong_ai_proxy.formats.json_object import JsonObject
from kong_ai_proxy.providers.files import file_id

OPENAI: Any = {"provider": "openai"}
_S3 = {"aws_region": "us-east-1", "batch_bucket_prefix": "s3://bucket"}
BEDROCK: Any = {"provider": "bedrock", "options": {"bedrock": _S3}}
GEMINI: Any = {"provider": "gemini"}
CLAUDE: Any = {"provider": "anthropic", "options": {"anthropic_version": "2023-06-01"}}
AZURE: Any = {
    "provider": "azure",
    "options": {"azure_instance": "a", "azure_deployment_id": "b"},
}


def vertex(url: str | None) -> Any:
    place = {"api_endpoint": "aiplatform.googleapis.com", "project_id": "p", "location_id": "l"}
    return {"provider": "gemini", "options": {"gemini": place, "upstream_url": url}}


STORAGE = "https://storage.googleapis.com"
VERTEX = vertex(f"{STORAGE}/bucket")
OF_BEDROCK = file_id("f" * 8 + "a" * 24 + "/batch/in.jsonl")
OF_GEMINI = file_id("input-chat-" + "a" * 20)
OF_VERTEX = file_id("gs://bucket/input-chat-" + "a" * 24 + "/in.jsonl")
OF_CLAUDE = "file-batch_msgbatch_01"
OF_OPENAI = "file-6F2ksmvXxt4VdoqmHRw6kL"


def chosen(kind: str, models: list[Any], path: str, body: Any = None) -> list[int]:
    auth = {"header_name": "authorization", "header_value": "Bearer key"}
    targets = [{"route_type": f"llm/v1/{kind}", "auth": auth, "model": each} for each in models]
    config = parse("ai-proxy-advanced", {"targets": targets})
    assert isinstance(config, AiProxyAdvanced)
    content = JsonObject(orjson.dumps(body)) if body is not None else None
    method = "POST" if body is not None else "GET"
    found = makers(config.targets, ClientRequest(method, path), content, (0, 1))
    return list(found)


@pytest.mark.parametrize(
    ("models", "told", "expected"),
    [
        ([OPENAI, BEDROCK], OF_BEDROCK, [1]),
        ([OPENAI, BEDROCK], OF_OPENAI, [0]),
        ([AZURE, GEMINI], OF_GEMINI, [1]),
        ([AZURE, GEMINI], "assistant-6F2ksmvXxt4VdoqmHRw6kL", [0]),
        ([BEDROCK, GEMINI], OF_GEMINI, [1]),
        ([BEDROCK, GEMINI], OF_BEDROCK, [0]),
        ([GEMINI, VERTEX], OF_VERTEX, [1]),
        ([VERTEX, OPENAI], OF_VERTEX, [0]),
        ([vertex(f"{STORAGE}/other"), VERTEX], OF_VERTEX, [1]),
        ([vertex(f"{STORAGE}/bucket/a"), VERTEX], OF_VERTEX, [1]),
        ([vertex(f"{STORAGE}/$(headers.x)"), VERTEX], OF_VERTEX, [0, 1]),
        ([BEDROCK, BEDROCK], OF_BEDROCK, [0, 1]),
        ([OPENAI, AZURE], OF_BEDROCK, [0, 1]),
        ([BEDROCK, GEMINI], OF_OPENAI, [0, 1]),  # each says that it is not there
    ],
)
def test_a_file_is_looked_for_where_it_can_have_been_made(
    models: list[Any], told: str, expected: list[int]
) -> None:
    assert chosen("files", models, f"/v1/files/{told}") == expected
    assert chosen("files", models, f"/v1/files/{told}/content") == expected


@pytest.mark.parametrize(
    ("models", "told", "expected"),
    [
        ([OPENAI, BEDROCK], OF_BEDROCK, [1]),
        ([OPENAI, BEDROCK], OF_OPENAI, [0]),
        ([GEMINI, BEDROCK], OF_GEMINI, [0]),
        ([VERTEX, BEDROCK], OF_VERTEX, [0]),
        ([VERTEX, OPENAI], "gs://any/lines.jsonl", [0]),
        ([CLAUDE, OPENAI], "inline", [0]),
        ([CLAUDE, BEDROCK], "data:application/jsonl;base64,e30=", [0]),
        ([CLAUDE, OPENAI], OF_OPENAI, [1]),
        ([CLAUDE, OPENAI], 5, [0, 1]),
    ],
)
def test_a_batch_is_made_where_its_file_is(
    models: list[Any], told: object, expected: list[int]
) -> None:
    assert chosen("batches", models, "/v1/batches", {"input_file_id": told}) == expected


@pytest.mark.parametrize(
    ("models", "told", "expected"),
    [
        ([BEDROCK, CLAUDE], "batch_job000000001", [0]),
        ([BEDROCK, CLAUDE], "batch_msgbatch_01", [1]),
        ([OPENAI, CLAUDE], "batch_msgbatch_01", [0, 1]),
        ([OPENAI, BEDROCK], "batch_2c11ebe955e848d39594bd7a0191de13", [0]),
        ([OPENAI, GEMINI], "batch_2c11ebe955e848d39594bd7a0191de13", [0, 1]),
        ([BEDROCK, GEMINI], "batch_job000000001", [0, 1]),
        ([BEDROCK, VERTEX], "batch_5367324938475687936", [1]),
    ],
)
def test_ids_of_batches_tell_less(models: list[Any], told: str, expected: list[int]) -> None:
    assert chosen("batches", models, f"/v1/batches/{told}") == expected
    assert chosen("batches", models, f"/v1/batches/{told}/cancel", {}) == expected


def test_what_a_batch_has_answered_is_looked_for_at_anthropic_alone() -> None:
    models = [CLAUDE, BEDROCK]
    assert chosen("batches", models, f"/v1/files/{OF_CLAUDE}/content") == [0]


@pytest.mark.parametrize("path", ["/v1/files", "/v1/files/..%2Fx", "/v1/files/"])
def test_what_names_nothing_goes_to_all(path: str) -> None:
    assert chosen("files", [OPENAI, BEDROCK], path) == [0, 1]


def test_what_is_not_kept_goes_to_all() -> None:
    body = {"messages": [{"role": "user", "content": "Hi"}], "input_file_id": OF_BEDROCK}
    assert chosen("chat", [OPENAI, BEDROCK], "/v1/chat/completions", body) == [0, 1]


@pytest.mark.parametrize(
    ("llm_format", "path", "kind"),
    [
        ("gemini", "/v1beta/files/abc", "files"),
        ("anthropic", "/v1/messages/batches/msgbatch_01", "batches"),
    ],
)
def test_a_native_id_has_no_form_of_ours(llm_format: str, path: str, kind: str) -> None:
    auth = {"header_name": "authorization", "header_value": "Bearer key"}
    models = [OPENAI, GEMINI if llm_format == "gemini" else CLAUDE]
    targets = [{"route_type": f"llm/v1/{kind}", "auth": auth, "model": each} for each in models]
    plan = Plan(parse("ai-proxy-advanced", {"targets": targets, "llm_format": llm_format}))
    assert plan.ask(ClientRequest("GET", path), b"").candidates == (0, 1)
