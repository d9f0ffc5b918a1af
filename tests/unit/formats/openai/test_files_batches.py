"""Files and batches as OpenAI's clients read them; the judge is OpenAI's own package."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from openai.types import Batch as OpenAIBatch
from openai.types import FileDeleted
from openai.types import FileObject as OpenAIFile

from kong_ai_proxy.formats import batches
from kong_ai_proxy.formats.batches import Batch, BatchFault, BatchRequest, Counts
from kong_ai_proxy.formats.errors import FormatError, ProviderError
from kong_ai_proxy.formats.files import FileObject
from kong_ai_proxy.formats.openai import batches as openai_batches
from kong_ai_proxy.formats.openai import files as openai_files

FILE = FileObject(
    id="file-abc", size=120, created_at=1_677_610_602, filename="a.jsonl", purpose="batch"
)


def judged(model: Any, value: object) -> Any:
    """Read without any leniency: no member that the package does not know."""
    read = model.model_validate(orjson.loads(orjson.dumps(value)), strict=True)
    assert read.model_extra in ({}, None)
    return read


def test_a_file_is_one_to_openais_package() -> None:
    read = judged(OpenAIFile, openai_files.render_file(FILE))
    assert (read.id, read.bytes, read.created_at) == ("file-abc", 120, 1_677_610_602)
    assert (read.filename, read.purpose, read.status) == ("a.jsonl", "batch", "processed")


def test_a_deleted_file_is_one_to_openais_package() -> None:
    read = judged(FileDeleted, openai_files.render_deleted("file-abc"))
    assert (read.id, read.deleted) == ("file-abc", True)


def test_a_page_names_its_ends() -> None:
    page = openai_files.render_files([FILE, FILE], has_more=True)
    assert (page["object"], page["first_id"], page["last_id"]) == ("list", "file-abc", "file-abc")
    assert page["has_more"] is True
    assert openai_files.render_files([], has_more=False)["last_id"] is None


@pytest.mark.parametrize(
    ("status", "member"),
    [
        (batches.VALIDATING, None),
        (batches.IN_PROGRESS, None),
        (batches.FINALIZING, None),
        (batches.CANCELLING, None),
        (batches.FAILED, "failed_at"),
        (batches.COMPLETED, "completed_at"),
        (batches.EXPIRED, "expired_at"),
        (batches.CANCELLED, "cancelled_at"),
    ],
)
def test_a_batch_is_one_to_openais_package(status: str, member: str | None) -> None:
    batch = Batch(
        id="batch_abc",
        endpoint="/v1/chat/completions",
        input_file_id="file-abc",
        status=status,
        created_at=1_711_471_533,
        model="m",
        ended_at=1_711_475_133,
        counts=Counts(100, 95, 5),
        faults=(BatchFault("it is wrong", "invalid", 7),),
        metadata={"a": "b"},
    )
    read = judged(OpenAIBatch, openai_batches.render_batch(batch))
    assert read.status == status
    told = {"failed_at", "completed_at", "expired_at", "cancelled_at"}
    assert {name for name in told if getattr(read, name) == 1_711_475_133} == {member} - {None}
    assert read.request_counts.failed == 5
    assert read.errors.data[0].line == 7
    assert read.completion_window == "24h"


def test_what_is_not_known_of_a_batch_is_null() -> None:
    batch = Batch(id="batch_a", endpoint="/v1/x", input_file_id="f", status="failed", created_at=1)
    read = judged(OpenAIBatch, openai_batches.render_batch(batch))
    assert read.request_counts is read.errors is read.output_file_id is read.metadata is None


# https://platform.openai.com/docs/api-reference/batch/create
CREATE = {
    "input_file_id": "file-abc123",
    "endpoint": "/v1/chat/completions",
    "completion_window": "24h",
}


def test_a_request_for_a_batch_is_read() -> None:
    asked = {**CREATE, "metadata": {"a": "b"}, "role_arn": "arn", "output_expires_after": None}
    new = openai_batches.parse_create(asked)
    assert (new.input_file_id, new.endpoint, new.hours) == (
        "file-abc123",
        "/v1/chat/completions",
        24,
    )
    assert (new.metadata, new.settings) == ({"a": "b"}, {"role_arn": "arn"})


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"input_file_id": None}, "input_file_id: expected a string"),
        ({"input_file_id": ""}, "input_file_id: expected a string that is not empty"),
        ({"endpoint": 5}, "endpoint: expected a string"),
        ({"completion_window": None}, "completion_window: expected a number of hours such as 24h"),
        ({"completion_window": "1d"}, "completion_window: expected a number of hours"),
        ({"completion_window": "0h"}, "completion_window: expected a number of hours"),
        ({"completion_window": 24}, "completion_window: expected a string"),
        ({"metadata": []}, "metadata: expected an object"),
        ({"metadata": {"a": 1}}, "metadata.a: expected a string"),
        ({"metadata": {"a": "x" * 513}}, "metadata.a: expected at most 512 characters"),
        ({"metadata": {str(n): "x" for n in range(17)}}, "metadata: expected at most 16 members"),
        ({"metadata": {"x" * 65: "x"}}, "metadata: expected at most 16 members"),
    ],
)
def test_a_request_that_is_none_is_refused(changes: dict[str, object], text: str) -> None:
    with pytest.raises(FormatError) as error:
        openai_batches.parse_create({**CREATE, **changes})
    assert str(error.value).startswith(text)


def test_a_list_is_asked_for() -> None:
    query = openai_files.parse_list({"limit": "5", "after": "file-a", "purpose": "batch"})
    assert query == openai_files.ListQuery(5, "file-a", "batch")
    assert openai_files.parse_list({}).limit == 10_000
    assert openai_files.parse_list({"order": "asc"}, most=100, usual=20) == (20, "", "", "asc")


@pytest.mark.parametrize(
    "query",
    [{"limit": "0"}, {"limit": "10001"}, {"limit": "x"}, {"limit": "-1"}, {"order": "up"}],
)
def test_a_list_that_is_none_is_refused(query: dict[str, str]) -> None:
    with pytest.raises(FormatError, match=r"(limit|order): expected"):
        openai_files.parse_list(query)


def test_a_line_is_read_and_written() -> None:
    # https://platform.openai.com/docs/api-reference/batch/request-input
    line = (
        b'{"custom_id": "request-1", "method": "POST", "url": "/v1/chat/completions", "body": '
        b'{"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "What is 2+2?"}]}}'
    )
    assert openai_batches.is_request(line)
    assert not openai_batches.is_request(b'{"prompt": "a", "completion": "b"}')
    assert not openai_batches.is_request(b"{")
    request = openai_batches.parse_request(line)
    assert request == BatchRequest("request-1", "/v1/chat/completions", request.body)
    assert request.body["model"] == "gpt-4o-mini"
    # https://platform.openai.com/docs/api-reference/batch/request-output
    written = openai_batches.render_answer("batch_req_1", "request-1", 200, {"id": "chatcmpl-1"})
    assert written.endswith(b"}\n")
    assert orjson.loads(written) == {
        "id": "batch_req_1",
        "custom_id": "request-1",
        "response": {
            "status_code": 200,
            "request_id": "batch_req_1",
            "body": {"id": "chatcmpl-1"},
        },
        "error": None,
    }
    failed = openai_batches.render_failure("batch_req_2", None, ProviderError("no", code="late"))
    assert orjson.loads(failed)["error"] == {"code": "late", "message": "no"}
