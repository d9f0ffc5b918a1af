"""Files and batches for Vertex AI, before the stand-ins of Cloud Storage and of its jobs."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from openai.types import Batch, FileObject
from typing_extensions import override

from kong_ai_proxy.formats.batches import BatchRequest
from kong_ai_proxy.formats.errors import FormatError
from kong_ai_proxy.formats.gemini import vertex_batches as lines_of
from kong_ai_proxy.providers.files import file_id
from kong_ai_proxy.providers.flow import ProviderFailed
from kong_ai_proxy.providers.gemini.vertex_batches import BATCHES
from kong_ai_proxy.providers.gemini.vertex_files import FILES, PIECE
from tests.flows import Driven, reply, run, wanted
from tests.providers import ToolCall, Turn, Usage
from tests.providers.storage_api import Storage, VertexBatches
from tests.unit.providers.batch_worlds import (
    BOUNDARY,
    CHAT,
    TYPE,
    World,
    asks,
    form,
    jsonl,
    line,
)

MODEL = "gemini-2.5-flash"
INPUT = jsonl(line("a", asks("2 + 2?", model=MODEL)), line("B/ü", asks("3 + 3?", model=MODEL)))
BUCKET = "https://storage.googleapis.com/the-bucket/ai/files"
WHERE = {
    "api_endpoint": "us-central1-aiplatform.googleapis.com",
    "project_id": "acme",
    "location_id": "us-central1",
}


@pytest.fixture
def storage() -> Storage:
    return Storage("the-bucket", "another")


@pytest.fixture
def jobs(storage: Storage) -> VertexBatches:
    return VertexBatches(storage)


@pytest.fixture
def world(storage: Storage, jobs: VertexBatches) -> World:
    world = World("gemini", {"files": FILES, "batches": BATCHES}, {"authorization": "Bearer t"}, "")
    world.options = {"upstream_url": BUCKET, "gemini": WHERE}
    world.serve("files", storage)
    world.serve("batches", jobs)
    return world


def made(world: World, content: bytes = INPUT, **body: Any) -> Any:
    file = world.upload(content).value
    asked = {"endpoint": CHAT, "completion_window": "24h", **body}
    return world.ask("POST", "/batches", input_file_id=file["id"], **asked).value


def number(batch: Any) -> str:
    return str(batch["id"]).removeprefix("batch_")


# ---- files


def test_a_batch_is_converted_while_it_is_uploaded(world: World, storage: Storage) -> None:
    file = FileObject.model_validate(world.upload(INPUT).value)
    ((bucket, name), content), *_ = storage.objects.items()
    assert bucket == "the-bucket"
    assert name.startswith("ai/files/input-chat-")
    assert name.endswith(f"/{MODEL}/in.jsonl")
    lines = [orjson.loads(each)["request"] for each in content.splitlines()]
    assert lines[0]["contents"] == [{"role": "user", "parts": [{"text": "2 + 2?"}]}]
    assert (file.filename, file.purpose, file.bytes) == ("in.jsonl", "batch", len(content))
    assert storage.failures == []


def test_every_request_goes_to_the_operators_bucket(world: World) -> None:
    sends = world.upload(b"x", "user_data").sends
    assert {each.base_url for each in sends} == {"https://storage.googleapis.com"}


@pytest.mark.parametrize("size", [1, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE])
def test_a_file_of_any_size_arrives_whole(world: World, storage: Storage, size: int) -> None:
    content = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    told = world.upload(content, "user_data", filename="a b.bin").value
    assert list(storage.objects.values()) == [content]
    assert told["bytes"] == size
    assert world.read(f"/files/{told['id']}/content") == content
    assert storage.failures == []


def test_what_storage_did_not_keep_is_sent_again(world: World, storage: Storage) -> None:
    storage.keeps = PIECE // 2
    content = bytes(range(256)) * (PIECE // 128) + b"more"
    world.upload(content, "user_data")
    assert list(storage.objects.values()) == [content]
    assert storage.failures == []


def test_an_upload_that_does_not_go_on_is_an_error(world: World, storage: Storage) -> None:
    storage.keeps = 0
    with pytest.raises(ProviderFailed, match="does not go on"):
        world.upload(b"x", "user_data")


def test_an_upload_of_100_mb_holds_a_few_pieces_only() -> None:
    chunk = bytes(1 << 16)
    options = {"upstream_url": BUCKET}
    asked = wanted("llm/v1/files", options=options, content_type=TYPE)

    def body() -> Iterator[bytes]:
        head, tail = form(b"|", "user_data").split(b"|")
        yield head
        for _ in range(1600):
            yield chunk
        yield tail

    sizes: list[int] = []

    def answer(send: Any) -> Any:
        if send.method == "POST":
            return reply(b"", location="http://h/upload/storage/v1/b/the-bucket/o?upload_id=1")
        sizes.append(len(send.body))
        end = sum(sizes) - 1
        if "*" in send.headers["content-range"]:
            return reply(b"", 308, range=f"bytes=0-{end}")
        return reply({"name": "x", "size": str(end + 1)})

    class Forgets(list[Any]):
        @override
        def append(self, _: Any) -> None: ...

    tracemalloc.start()
    run(FILES, asked, answer, body=body(), driven=Driven(sends=Forgets()))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sum(sizes) == 1600 * len(chunk)
    assert peak < 4 * PIECE


@pytest.mark.parametrize(
    ("filename", "purpose"),
    [("../../etc/passwd", "vision"), ("..", "assistants"), ("a/b\\c.txt", "fine-tune")],
)
def test_a_file_name_leads_nowhere_else(
    world: World, storage: Storage, filename: str, purpose: str
) -> None:
    told = world.upload(b"x", purpose, filename=filename).value
    ((_, name),) = storage.objects
    assert name.startswith("ai/files/")
    assert ".." not in name
    assert name.count("/") == 3
    assert world.ask("GET", f"/files/{told['id']}").value["purpose"] == purpose


def test_files_are_listed_and_deleted(world: World, storage: Storage) -> None:
    storage.put("gs://the-bucket/elsewhere/x", b"")
    storage.put("gs://the-bucket/ai/files/folder/", b"")
    ids = [world.upload(b"x", "user_data").value["id"] for _ in range(3)]
    page = world.ask("GET", "/files", query={"limit": "2"}).value
    assert [each["id"] for each in page["data"]] == ids[:2]
    assert page["has_more"]
    rest = world.ask("GET", "/files", query={"after": ids[1]}).value
    assert [each["id"] for each in rest["data"]] == ids[2:]
    assert not rest["has_more"]
    assert world.ask("DELETE", f"/files/{ids[0]}").value["deleted"] is True
    with pytest.raises(ProviderFailed, match="No such object") as failed:
        world.ask("GET", f"/files/{ids[0]}")
    assert failed.value.error.status == 404


@pytest.mark.parametrize(
    "told",
    [
        "abc",
        file_id("gs://another/ai/files/x"),
        file_id("gs://the-bucket/ai/filesx"),
        file_id("gs://the-bucket/elsewhere"),
        file_id("gs://the-bucket/ai/files/../x"),
        file_id("gs://the-bucket/ai/files//x"),
        file_id("gs://the-bucket/ai/files/"),
        file_id("gs://the-bucket/ai/files/a\nb"),
        file_id("s3://the-bucket/ai/files/x"),
        file_id("gs://the-bucket/ai/files/" + "x" * 1024),
    ],
)
def test_an_object_of_somebody_elses_is_not_there(world: World, told: str) -> None:
    driven = Driven()
    for method, path in (("GET", told), ("GET", f"{told}/content"), ("DELETE", told)):
        with pytest.raises(ProviderFailed, match="No such File") as failed:
            world.ask(method, f"/files/{path}", driven=driven)
        assert failed.value.error.status == 404
    assert driven.sends == []


@pytest.mark.parametrize(
    "url",
    [
        None,
        "https://storage.googleapis.com",
        "https://storage.googleapis.com/",
        "https://storage.googleapis.com/Bucket",
        "https://storage.googleapis.com/ab/../other",
        "https://storage.googleapis.com/abc/%2e%2e/other",
        "https://storage.googleapis.com/abc/a%2Fb",
    ],
)
def test_without_a_bucket_the_operator_is_told_what_to_set(url: str | None) -> None:
    options = {"upstream_url": url} if url else {}
    with pytest.raises(ProviderFailed, match=r"must set 'model\.options\.upstream_url'") as failed:
        run(FILES, wanted("llm/v1/files", method="GET", options=options))
    assert failed.value.error.status == 500


@pytest.mark.parametrize("location", ["", "https://evil.example/x", "https://[?upload_id=1"])
def test_an_upload_without_a_session_is_an_error(location: str) -> None:
    asked = wanted("llm/v1/files", options={"upstream_url": BUCKET}, content_type=TYPE)
    replies = [reply(b"", location=location)]
    with pytest.raises(ProviderFailed, match="not usable"):
        run(FILES, asked, replies, body=[form(b"x", "user_data")])


@pytest.mark.parametrize(
    ("status", "body"), [(200, b""), (200, b"<html>"), (200, b"{}"), (410, b"Gone"), (500, b"")]
)
def test_an_upload_that_fails_at_its_end_is_an_error(status: int, body: bytes) -> None:
    asked = wanted("llm/v1/files", options={"upstream_url": BUCKET}, content_type=TYPE)
    replies = [reply(b"", location="https://h/?upload_id=1"), reply(body, status)]
    with pytest.raises(ProviderFailed) as failed:
        run(FILES, asked, replies, body=[form(b"x", "user_data")])
    assert failed.value.error.status == (502 if status == 200 else status)


def test_a_form_that_is_cut_short_is_refused(world: World) -> None:
    body = form(b"x", "user_data").removesuffix(f"--{BOUNDARY}--\r\n".encode())
    with pytest.raises(FormatError):
        world.ask("POST", "/files", pieces=[body])


# ---- batches


def test_a_batch_runs_and_its_output_is_openais(
    world: World, storage: Storage, jobs: VertexBatches
) -> None:
    batch = Batch.model_validate(made(world))
    assert (batch.status, batch.endpoint, batch.model) == ("validating", CHAT, MODEL)
    four = Turn(text="Four.", usage=Usage(input=5, output=2))
    jobs.finish(batch.id.removeprefix("batch_"), {"2 + 2?": four, "3 + 3?": Turn(status=400)})
    ended = Batch.model_validate(world.ask("GET", f"/batches/{batch.id}").value)
    assert (ended.status, ended.input_file_id) == ("completed", batch.input_file_id)
    assert ended.request_counts is not None
    assert (ended.request_counts.completed, ended.request_counts.failed) == (1, 1)
    assert ended.completed_at is not None
    output = world.ask("GET", f"/files/{ended.output_file_id}").value
    assert (output["purpose"], output["filename"]) == ("batch_output", "predictions.jsonl")
    lines = world.lines(f"/files/{ended.output_file_id}/content")
    answer = lines["a"]["response"]["body"]
    assert answer["choices"][0]["message"]["content"] == "Four."
    assert answer["usage"]["total_tokens"] == 7
    assert lines["B/ü"]["response"]["status_code"] == 400
    assert lines["B/ü"]["response"]["body"]["error"]["message"] == "the stand-in was told to fail"
    assert storage.failures == jobs.failures == []


@pytest.mark.parametrize("spelled", [MODEL, f"google/{MODEL}"])
def test_a_file_for_another_model_than_the_configured_makes_no_batch(
    world: World, jobs: VertexBatches, spelled: str
) -> None:
    file = world.upload(jsonl(line("a", asks("2 + 2?", model=spelled)))).value
    asked: Any = {"input_file_id": file["id"], "endpoint": CHAT, "completion_window": "24h"}
    world.model = "gemini-2.5-pro"
    with pytest.raises(FormatError, match=f"{MODEL}.*must be: gemini-2.5-pro"):
        world.ask("POST", "/batches", **asked)
    assert jobs.jobs == {}
    assert world.ask("POST", "/batches", **{**asked, "model": world.model}).value["model"]
    world.model = spelled
    assert world.ask("POST", "/batches", **asked).value["model"] == MODEL


def test_output_is_the_same_however_it_is_cut(world: World, jobs: VertexBatches) -> None:
    batch = made(world)
    turn = Turn(text="Füür", tool_calls=[ToolCall("add", {"a": 1})])
    jobs.finish(number(batch), {"2 + 2?": turn, "3 + 3?": turn})
    ended = world.ask("GET", f"/batches/{batch['id']}").value
    path = f"/files/{ended['output_file_id']}/content"
    whole = world.read(path)
    assert world.read(path, 1) == whole
    assert {world.read(path, size) for size in range(2, 60, 7)} == {whole}


def test_completions_are_batched_too(world: World, jobs: VertexBatches) -> None:
    url = "/v1/completions"
    body = {"model": MODEL, "prompt": "2 + 2 is"}
    batch = made(world, jsonl(line("c", body, url)), endpoint=url)
    assert batch["endpoint"] == url
    jobs.finish(number(batch), {"2 + 2 is": Turn(text=" four")})
    ended = world.ask("GET", f"/batches/{batch['id']}").value
    lines = world.lines(f"/files/{ended['output_file_id']}/content")
    assert lines["c"]["response"]["body"]["object"] == "text_completion"
    assert lines["c"]["response"]["body"]["choices"][0]["text"] == " four"


def test_a_clients_own_object_is_an_input_too(
    world: World, storage: Storage, jobs: VertexBatches
) -> None:
    request = {"request": {"contents": [{"role": "user", "parts": [{"text": "x"}]}]}}
    storage.put("gs://another/dir/in.jsonl", orjson.dumps(request))
    world.options = {"gemini": WHERE}
    asked: Any = {"endpoint": CHAT, "completion_window": "24h", "model": MODEL}
    batch = world.ask("POST", "/batches", input_file_id="gs://another/dir/in.jsonl", **asked).value
    job = jobs.jobs[number(batch)]
    target = job["outputConfig"]["gcsDestination"]["outputUriPrefix"]
    assert target.startswith("gs://another/dir/output-chat-")
    assert job["model"] == f"publishers/google/models/{MODEL}"


def test_of_a_job_a_client_chooses_the_labels_only(world: World) -> None:
    file = world.upload(INPUT).value
    key = {"kmsKeyName": "projects/other/locations/l/keyRings/r/cryptoKeys/k"}
    operators: Any = {
        "serviceAccount": "root@acme.iam.gserviceaccount.com",
        "encryptionSpec": key,
        "dedicatedResources": {"machineSpec": {"machineType": "a2-ultragpu-8g"}},
        "outputConfig": {"gcsDestination": {"outputUriPrefix": "gs://another/"}},
        "unmanagedContainerModel": {"artifactUri": "gs://another/"},
    }
    asked = world.ask(
        "POST",
        "/batches",
        input_file_id=file["id"],
        endpoint=CHAT,
        completion_window="24h",
        labels={"team": "a"},
        **operators,
    )
    job = asked.sent()
    assert job["labels"] == {"team": "a"}
    assert set(job) == {"displayName", "model", "inputConfig", "outputConfig", "labels"}
    assert job["outputConfig"]["gcsDestination"]["outputUriPrefix"].startswith("gs://the-bucket/")
    assert getattr(asked.result, "dropped", None) == tuple(operators)


@pytest.mark.parametrize(
    ("body", "error", "why"),
    [
        ({"endpoint": "/v1/embeddings"}, FormatError, "endpoint: expected"),
        ({"endpoint": "/v1/completions"}, FormatError, "are for another one"),
        ({"model": "claude-sonnet-4-6"}, FormatError, "one of Google's own"),
        ({"input_file_id": "gs://the-bucket"}, ProviderFailed, "No such File"),
        ({"input_file_id": "gs://x/../y"}, ProviderFailed, "No such File"),
        ({"input_file_id": "file-abc"}, ProviderFailed, "No such File"),
    ],
)
def test_a_batch_that_cannot_be_is_refused(
    world: World, body: Any, error: type[Exception], why: str
) -> None:
    file = world.upload(INPUT).value
    asked = {"input_file_id": file["id"], "endpoint": CHAT, "completion_window": "24h", **body}
    driven = Driven()
    with pytest.raises(error, match=why):
        world.ask("POST", "/batches", driven=driven, **asked)
    assert driven.sends == []


def test_a_batch_without_any_model_is_refused(world: World) -> None:
    asked: Any = {"input_file_id": "gs://another/x", "endpoint": CHAT, "completion_window": "24h"}
    with pytest.raises(FormatError, match="model: expected it in the lines"):
        world.ask("POST", "/batches", **asked)


@pytest.mark.parametrize("path", ["/files", "/batches"])
def test_googles_lists_have_an_order_of_their_own(world: World, path: str) -> None:
    for order in ("asc", "desc"):
        driven = world.ask("GET", path, query={"order": order})
        assert getattr(driven.result, "dropped", None) == ("order",)
    assert getattr(world.ask("GET", path).result, "dropped", None) == ()


def test_batches_are_listed_cancelled_and_deleted(world: World, jobs: VertexBatches) -> None:
    ids = [made(world)["id"] for _ in range(3)][::-1]
    page = world.ask("GET", "/batches", query={"limit": "2"}).value
    assert [each["id"] for each in page["data"]] == ids[:2]
    assert page["has_more"]
    rest = world.ask("GET", "/batches", query={"after": ids[1]}).value
    assert [each["id"] for each in rest["data"]] == ids[2:]
    assert world.ask("POST", f"/batches/{ids[0]}/cancel").value["status"] == "cancelling"
    assert world.ask("DELETE", f"/batches/{ids[0]}").value["deleted"] is True
    with pytest.raises(ProviderFailed, match="not found") as failed:
        world.ask("GET", f"/batches/{ids[0]}")
    assert failed.value.error.status == 404
    assert [each.path for each in jobs.requests if "acme" not in each.path] == []


STATES = {
    "JOB_STATE_QUEUED": "validating",
    "JOB_STATE_PENDING": "validating",
    "JOB_STATE_RUNNING": "in_progress",
    "JOB_STATE_PAUSED": "in_progress",
    "JOB_STATE_UPDATING": "in_progress",
    "JOB_STATE_SUCCEEDED": "completed",
    "JOB_STATE_PARTIALLY_SUCCEEDED": "completed",
    "JOB_STATE_FAILED": "failed",
    "JOB_STATE_CANCELLING": "cancelling",
    "JOB_STATE_CANCELLED": "cancelled",
    "JOB_STATE_EXPIRED": "expired",
}


@pytest.mark.parametrize(("state", "status"), STATES.items())
def test_states_are_openais(state: str, status: str) -> None:
    options = {"gemini": WHERE}
    asked = wanted("llm/v1/batches", method="GET", rest=("batch_1",), options=options)
    job = {"name": "projects/p/locations/l/batchPredictionJobs/1", "state": state}
    batch = Batch.model_validate(run(BATCHES, asked, [reply(job)]).value)
    assert batch.status == status


@pytest.mark.parametrize(
    "custom_id", ["a", "request-1", "_", "x" * 63, "x" * 64, "A", "1.2", "Zürich", "a" * 512, " "]
)
def test_a_custom_id_survives(custom_id: str) -> None:
    request = BatchRequest(custom_id, CHAT, {})
    told = orjson.loads(lines_of.render_request(request, {"labels": {"team": "x"}}))
    assert told["request"]["labels"]["team"] == "x"
    assert all(len(value) <= 63 for value in told["request"]["labels"].values())
    answered = {"status": "", **told, "response": {"candidates": []}}
    assert lines_of.parse_answer(answered).custom_id == custom_id


@pytest.mark.parametrize(
    ("status", "message", "code"),
    [
        ('Bad Request: {"error": {"code": 400, "message": "no"}}', "no", 400),
        ('{"error": {"code": 8, "message": "much"}}', "much", 429),
        ("Bad Request: {", "Bad Request: {", 0),
        ("it broke", "it broke", 0),
    ],
)
def test_a_failed_line_tells_why(status: str, message: str, code: int) -> None:
    found = lines_of.parse_answer({"status": status, "request": {}, "response": {}})
    assert found.error is not None
    assert (found.error.message, found.error.status) == (message, code)


@pytest.mark.parametrize("value", [None, [], "x", 1])
def test_a_line_that_is_none_is_an_error(value: object) -> None:
    with pytest.raises(FormatError):
        lines_of.parse_answer(value)


def test_a_line_without_an_answer_says_so() -> None:
    found = lines_of.parse_answer({"request": {"labels": {"custom-id-0": "!!"}}})
    assert found.custom_id is None
    assert found.error is not None
