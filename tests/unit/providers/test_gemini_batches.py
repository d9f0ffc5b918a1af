"""Files and batches of the Gemini API, before its stand-in."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from openai.types import Batch, FileObject

from kong_ai_proxy.formats.errors import FormatError
from kong_ai_proxy.formats.gemini import times
from kong_ai_proxy.providers.files import file_id
from kong_ai_proxy.providers.flow import ProviderFailed
from kong_ai_proxy.providers.gemini.batches import BATCHES
from kong_ai_proxy.providers.gemini.files import FILES, PIECE
from tests.flows import Driven, reply, run, wanted
from tests.providers import ToolCall, Turn, Usage
from tests.providers.gemini_files_api import GeminiFiles
from tests.unit.providers.batch_worlds import CHAT, TYPE, World, asks, form, jsonl, line

MODEL = "gemini-2.5-flash"
INPUT = jsonl(line("a", asks("2 + 2?", model=MODEL)), line("b/ü", asks("3 + 3?", model=MODEL)))


@pytest.fixture
def upstream() -> GeminiFiles:
    return GeminiFiles()


@pytest.fixture
def world(upstream: GeminiFiles) -> World:
    flows = {"files": FILES, "batches": BATCHES}
    world = World("gemini", flows, {"x-goog-api-key": "k"}, "")
    world.serve("files", upstream)
    world.serve("batches", upstream)
    return world


def made(world: World, content: bytes = INPUT, **body: Any) -> Any:
    file = world.upload(content).value
    asked = {"endpoint": CHAT, "completion_window": "24h", **body}
    return world.ask("POST", "/batches", input_file_id=file["id"], **asked).value


# ---- files


def test_a_batch_is_converted_while_it_is_uploaded(world: World, upstream: GeminiFiles) -> None:
    file = FileObject.model_validate(world.upload(INPUT).value)
    (name,) = upstream.files
    lines = [orjson.loads(each) for each in upstream.contents[name].splitlines()]
    assert [each["key"] for each in lines] == ["a", "b/ü"]
    assert lines[0]["request"]["contents"] == [{"role": "user", "parts": [{"text": "2 + 2?"}]}]
    assert (file.filename, file.purpose, file.bytes) == (
        "in.jsonl",
        "batch",
        len(upstream.contents[name]),
    )
    assert upstream.failures == []


def test_a_file_of_several_pieces_arrives_whole(world: World, upstream: GeminiFiles) -> None:
    content = bytes(range(256)) * (PIECE // 128) + b"more"
    file = world.upload(content, "user_data", filename="a.bin").value
    (stored,) = upstream.contents.values()
    assert stored == content
    assert file["bytes"] == 2 * PIECE + 4
    pieces = [each.body for each in upstream.requests[1:]]
    assert [len(each) for each in pieces] == [PIECE, PIECE, 4]


def test_a_file_keeps_what_openai_says_of_it(world: World) -> None:
    told = world.upload(b"hello", "vision", filename="a;model=b.png").value
    again = world.ask("GET", f"/files/{told['id']}").value
    assert again["purpose"] == "vision"
    assert again["filename"] == told["filename"] == "a;model=b.png"
    assert world.ask("GET", "/files").value["data"] == [again]
    assert world.ask("GET", "/files", query={"purpose": "batch"}).value["data"] == []
    assert world.ask("DELETE", f"/files/{told['id']}").value["deleted"] is True
    assert world.ask("GET", "/files").value["data"] == []


def test_a_life_that_is_asked_for_is_not_kept(world: World) -> None:
    more = {"expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}
    asked = world.upload(b"x", "user_data", **more)
    assert asked.result is not None
    assert asked.result.dropped == ("expires_after",)  # type: ignore[union-attr]


def test_a_list_goes_on_after_an_object(world: World) -> None:
    ids = [world.upload(b"x", "user_data").value["id"] for _ in range(7)]
    page = world.ask("GET", "/files", query={"limit": "3"}).value
    assert [each["id"] for each in page["data"]] == ids[:3]
    assert page["has_more"]
    rest = world.ask("GET", "/files", query={"limit": "4", "after": ids[2]}).value
    assert [each["id"] for each in rest["data"]] == ids[3:]
    assert not rest["has_more"]
    with pytest.raises(ProviderFailed, match="No such File"):
        world.ask("GET", "/files", query={"after": file_id("nowhere")})


def test_what_was_uploaded_cannot_be_downloaded_as_google_says(world: World) -> None:
    told = world.upload(b"hello", "user_data").value
    with pytest.raises(ProviderFailed, match="Only generated files"):
        world.read(f"/files/{told['id']}/content")


@pytest.mark.parametrize(
    "told",
    [
        "abc",
        "file-",
        "file-abc",
        file_id("../x"),
        file_id("a/b"),
        file_id("A"),
        file_id("-a"),
        file_id("a:b"),
        file_id("chat:"),
        file_id("x" * 101),
    ],
)
def test_an_id_of_somebody_elses_is_not_there(world: World, told: str) -> None:
    for method, path in (("GET", told), ("GET", f"{told}/content"), ("DELETE", told)):
        with pytest.raises(ProviderFailed, match="No such File") as failed:
            world.ask(method, f"/files/{path}")
        assert failed.value.error.status == 404


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (jsonl(line("a", asks("x"))), "line 1: model parameter not found"),
        (jsonl(line("a", asks("x", model=MODEL), "/v1/images")), "line 1: url: expected"),
        (INPUT + INPUT, "line 3: custom_id: 'a' occurs twice"),
        (jsonl(line("a", {"model": MODEL})), "line 1: request body doesn't contain"),
        (b"{}\n", "line 1: custom_id"),
        (b"hello\n", "line 1: expected a JSON object"),
        (b"\n\n", "file: expected at least one request"),
        (b"", "file: expected content; it is empty"),
    ],
)
def test_a_batch_that_cannot_be_is_refused_before_anything_is_stored(
    world: World, upstream: GeminiFiles, content: bytes, why: str
) -> None:
    with pytest.raises(FormatError, match=why):
        world.upload(content)
    assert upstream.requests == []


@pytest.mark.parametrize(
    "told",
    [
        "",
        "https://evil.example/elsewhere?upload_id=1",
        "https://evil.example/upload/v1beta/files",
        "https://[/upload/v1beta/files?upload_id=1",
    ],
)
def test_an_upload_goes_nowhere_else(told: str) -> None:
    asked = wanted("llm/v1/files", content_type=TYPE)
    replies = [reply(b"", x_goog_upload_url=told)]
    with pytest.raises(ProviderFailed, match="not usable"):
        run(FILES, asked, replies, body=[form(b"x", "user_data")])


def test_an_upload_stays_at_the_configured_host_and_shows_no_key_twice() -> None:
    asked = wanted("llm/v1/files", content_type=TYPE)
    url = "https://evil.example/upload/v1beta/files?upload_id=1%2B1&upload_protocol=r&key=secret"
    driven = Driven()
    replies = [reply(b"", x_goog_upload_url=url), reply({"file": {"name": "files/a"}})]
    run(FILES, asked, replies, body=[form(b"x", "user_data")], driven=driven)
    assert driven.sends[1].path == "/upload/v1beta/files"
    assert driven.sends[1].query == "upload_id=1%2B1&upload_protocol=r"
    assert {each.base_url for each in driven.sends} == {""}


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"file": {"name": "x"}}'])
def test_an_upload_that_ends_in_nonsense_is_an_error(body: bytes) -> None:
    asked = wanted("llm/v1/files", content_type=TYPE)
    started = reply(b"", x_goog_upload_url="http://h/upload/v1beta/files?upload_id=1")
    with pytest.raises(ProviderFailed) as failed:
        run(FILES, asked, [started, reply(body)], body=[form(b"x", "user_data")])
    assert failed.value.error.status == 502


def test_an_upload_that_ends_too_soon_is_an_error() -> None:
    asked = wanted("llm/v1/files", content_type=TYPE)
    started = reply(b"", x_goog_upload_url="http://h/upload/v1beta/files?upload_id=1")
    replies = [started, reply(b"", x_goog_upload_status="final")]
    with pytest.raises(ProviderFailed, match="ended before the file"):
        run(FILES, asked, replies, body=[form(bytes(2 * PIECE), "user_data")])


# ---- batches


def test_a_batch_runs_and_its_output_is_openais(world: World, upstream: GeminiFiles) -> None:
    batch = Batch.model_validate(made(world))
    assert (batch.status, batch.endpoint) == ("validating", CHAT)
    assert batch.request_counts is not None
    assert batch.request_counts.total == 2
    upstream.finish(
        batch.id.replace("batch_", "batches/"),
        {"a": Turn(text="Four.", usage=Usage(input=5, output=2)), "b/ü": Turn(status=429)},
    )
    ended = Batch.model_validate(world.ask("GET", f"/batches/{batch.id}").value)
    assert (ended.status, ended.input_file_id, ended.model) == (
        "completed",
        batch.input_file_id,
        MODEL,
    )
    assert ended.request_counts is not None
    assert (ended.request_counts.completed, ended.request_counts.failed) == (1, 1)
    assert ended.completed_at is not None
    output = FileObject.model_validate(world.ask("GET", f"/files/{ended.output_file_id}").value)
    assert output.purpose == "batch_output"
    lines = world.lines(f"/files/{ended.output_file_id}/content")
    answer = lines["a"]["response"]["body"]
    assert answer["choices"][0]["message"]["content"] == "Four."
    assert answer["usage"]["total_tokens"] == 7
    assert lines["b/ü"]["response"]["status_code"] == 429
    assert "error" in lines["b/ü"]["response"]["body"]
    assert upstream.failures == []


def test_requests_are_counted_as_google_counts_them() -> None:
    stats = {"requestCount": "3", "successfulRequestCount": "2", "failedRequestCount": "1"}
    job = {"name": "batches/a", "metadata": {"state": "BATCH_STATE_RUNNING", "batchStats": stats}}
    asked = wanted("llm/v1/batches", method="GET", rest=("batch_a",), collection="batches")
    counts = run(BATCHES, asked, [reply(job)]).value["request_counts"]
    assert counts == {"total": 3, "completed": 2, "failed": 1}


def test_output_is_the_same_however_it_is_cut(world: World, upstream: GeminiFiles) -> None:
    batch = made(world)
    turn = Turn(text="Füür", tool_calls=[ToolCall("add", {"a": 1})])
    upstream.finish(batch["id"].replace("batch_", "batches/"), {"a": turn, "b/ü": turn})
    path = f"/files/{world.ask('GET', '/batches/' + batch['id']).value['output_file_id']}/content"
    whole = world.read(path)
    assert world.read(path, 1) == whole
    assert {world.read(path, size) for size in range(2, 40, 7)} == {whole}


def test_a_file_for_another_model_than_the_configured_makes_no_batch(
    world: World, upstream: GeminiFiles
) -> None:
    file = world.upload(INPUT).value
    asked: Any = {"input_file_id": file["id"], "endpoint": CHAT, "completion_window": "24h"}
    world.model = "gemini-2.5-pro"
    with pytest.raises(FormatError, match=f"{MODEL}.*must be: gemini-2.5-pro"):
        world.ask("POST", "/batches", **asked)
    assert upstream.batches == {}
    world.model = MODEL
    assert world.ask("POST", "/batches", **asked).value["model"] == MODEL


def test_a_file_that_is_not_there_is_not_found(world: World, upstream: GeminiFiles) -> None:
    """Google says 403: You do not have permission to access the File x or it may not exist."""
    told = world.upload(INPUT).value["id"]
    upstream.files.clear()
    asked: Any = {"input_file_id": told, "endpoint": CHAT, "completion_window": "24h"}
    for method, path, body in (
        ("GET", f"/files/{told}", {}),
        ("DELETE", f"/files/{told}", {}),
        ("POST", "/batches", asked),
        ("POST", "/batches", {**asked, "model": MODEL}),
    ):
        with pytest.raises(ProviderFailed, match="No such File") as failed:
            world.ask(method, path, **body)
        assert failed.value.error.status == 404


def test_what_is_forbidden_stays_so() -> None:
    asked = wanted("llm/v1/files", method="GET", rest=(file_id("abc"),), collection="files")
    denied = reply({"error": {"code": 403, "message": "API key expired."}}, 403)
    with pytest.raises(ProviderFailed, match="API key expired") as failed:
        run(FILES, asked, [denied])
    assert failed.value.error.status == 403


def test_embeddings_are_batched_too(world: World, upstream: GeminiFiles) -> None:
    url = "/v1/embeddings"
    body = {"model": "gemini-embedding-001", "input": "hi", "dimensions": 4}
    batch = made(world, jsonl(line("e", body, url)), endpoint=url)
    assert batch["endpoint"] == url
    upstream.finish(batch["id"].replace("batch_", "batches/"), {"e": Turn()})
    ended = world.ask("GET", f"/batches/{batch['id']}").value
    lines = world.lines(f"/files/{ended['output_file_id']}/content")
    assert len(lines["e"]["response"]["body"]["data"][0]["embedding"]) == 4
    assert upstream.failures == []
    two = jsonl(line("e", {**body, "input": ["a", "b"]}, url))
    with pytest.raises(FormatError, match=r"line 1: body\.input: expected one text"):
        world.upload(two)


def test_the_configured_model_wins_and_lines_may_leave_it_out(
    world: World, upstream: GeminiFiles
) -> None:
    world.model = "gemini-2.5-pro"
    batch = made(world, jsonl(line("a", asks("x"))))
    assert batch["model"] == "gemini-2.5-pro"
    with pytest.raises(FormatError, match="cannot use own model"):
        world.upload(INPUT)


@pytest.mark.parametrize("model", ["x;y", "x" * 201])
def test_an_odd_name_of_a_model_is_not_kept(
    world: World, upstream: GeminiFiles, model: str
) -> None:
    told = world.upload(jsonl(line("a", asks("x", model=model))), filename="a;model=b.jsonl").value
    assert told["filename"] == "a;model=b.jsonl"
    asked = {"input_file_id": told["id"], "endpoint": CHAT, "completion_window": "24h"}
    with pytest.raises(FormatError, match="model: expected it in the lines"):
        world.ask("POST", "/batches", **asked)


def test_a_batch_without_any_model_is_refused(world: World, upstream: GeminiFiles) -> None:
    file = world.upload(b'{"key": "a", "request": {}}', "user_data").value
    asked = {"input_file_id": file["id"], "endpoint": CHAT, "completion_window": "24h"}
    with pytest.raises(FormatError, match="model: expected it in the lines"):
        world.ask("POST", "/batches", **asked)


def test_what_google_does_not_know_is_told(world: World) -> None:
    file = world.upload(INPUT).value
    asked = world.ask(
        "POST",
        "/batches",
        input_file_id=file["id"],
        endpoint=CHAT,
        completion_window="48h",
        metadata={"a": "b"},
        output_expires_after={"anchor": "created_at", "seconds": 3600},
        priority="7",
        webhookConfig={"uris": ["https://elsewhere.example"]},
    )
    assert asked.result is not None
    assert asked.result.dropped == (  # type: ignore[union-attr]
        "output_expires_after",
        "webhookConfig",
        "metadata",
        "completion_window",
    )
    assert "webhookConfig" not in asked.sent(1)["batch"]
    assert asked.sent(1)["batch"]["priority"] == "7"


@pytest.mark.parametrize("path", ["/files", "/batches"])
def test_googles_lists_have_an_order_of_their_own(world: World, path: str) -> None:
    for order in ("asc", "desc"):
        driven = world.ask("GET", path, query={"order": order})
        assert getattr(driven.result, "dropped", None) == ("order",)
    assert getattr(world.ask("GET", path).result, "dropped", None) == ()


def test_batches_are_listed_cancelled_and_deleted(world: World, upstream: GeminiFiles) -> None:
    ids = [made(world)["id"] for _ in range(3)]
    page = world.ask("GET", "/batches", query={"limit": "2"}).value
    assert [each["id"] for each in page["data"]] == ids[:2]
    assert page["has_more"]
    rest = world.ask("GET", "/batches", query={"after": ids[1]}).value
    assert [each["id"] for each in rest["data"]] == ids[2:]
    stopped = Batch.model_validate(world.ask("POST", f"/batches/{ids[0]}/cancel").value)
    assert stopped.status == "cancelling"
    assert world.ask("DELETE", f"/batches/{ids[0]}").value["deleted"] is True
    with pytest.raises(ProviderFailed, match="not found") as failed:
        world.ask("GET", f"/batches/{ids[0]}")
    assert failed.value.error.status == 404
    assert len(upstream.failures) == 1


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({"endpoint": "/v1/responses"}, "endpoint: expected /v1/chat/completions or"),
        ({"endpoint": "/v1/embeddings"}, "are for another one"),
        ({"completion_window": None}, "completion_window"),
        ({"completion_window": "soon"}, "completion_window"),
        ({"metadata": {"a": 1}}, "metadata.a"),
    ],
)
def test_a_batch_that_cannot_be_is_refused(world: World, body: Any, why: str) -> None:
    file = world.upload(INPUT).value
    asked = {"input_file_id": file["id"], "endpoint": CHAT, "completion_window": "24h", **body}
    with pytest.raises(FormatError, match=why):
        world.ask("POST", "/batches", **asked)


@pytest.mark.parametrize("told", ["x", "batch_", "batch_a/b", "batch_..", "batch_-a", "file-a"])
def test_a_batch_of_somebody_elses_is_not_there(world: World, told: str) -> None:
    with pytest.raises(ProviderFailed, match="No such Batch") as failed:
        run(BATCHES, wanted("llm/v1/batches", method="GET", collection="batches", rest=(told,)))
    assert failed.value.error.status == 404


@pytest.mark.parametrize(
    ("method", "path"),
    [("PUT", "/files"), ("POST", "/files/a"), ("GET", "/files/a/b"), ("DELETE", "/batches")],
)
def test_what_there_is_not_is_not_found(world: World, method: str, path: str) -> None:
    with pytest.raises(ProviderFailed, match="no such operation") as failed:
        world.ask(method, path)
    assert failed.value.error.status == 404


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("2026-08-20T18:37:24.123456789Z", 1787251044),
        ("2026-08-20T20:37:24+02:00", 1787251044),
        ("soon", None),
        ("", None),
        (7, None),
        (None, None),
        ("9999-12-31T23:59:59Z", 253402300799),
    ],
)
def test_googles_times_are_read(value: object, found: int | None) -> None:
    assert times.seconds({"at": value}, "at") == found


@pytest.mark.parametrize(
    ("value", "found"),
    [("7", 7), (7, 7), ("-1", -1), ("x", None), (True, None), (7.5, None), ("9" * 19, None)],
)
def test_googles_numbers_are_read(value: object, found: int | None) -> None:
    assert times.number({"at": value}, "at") == found


STATES = {
    "BATCH_STATE_UNSPECIFIED": "validating",
    "BATCH_STATE_PENDING": "validating",
    "BATCH_STATE_RUNNING": "in_progress",
    "BATCH_STATE_SUCCEEDED": "completed",
    "BATCH_STATE_FAILED": "failed",
    "BATCH_STATE_CANCELLED": "cancelled",
    "BATCH_STATE_EXPIRED": "expired",
    "JOB_STATE_SUCCEEDED": "completed",
    "NEW": "validating",
}


@pytest.mark.parametrize(("state", "status"), STATES.items())
def test_states_are_openais(state: str, status: str) -> None:
    operation = {
        "name": "batches/1",
        "metadata": {"state": state, "endTime": "2026-08-20T18:37:24Z"},
        "error": {"code": 3, "message": "bad input"},
    }
    asked = wanted("llm/v1/batches", method="GET", collection="batches", rest=("batch_1",))
    batch = Batch.model_validate(run(BATCHES, asked, [reply(operation)]).value)
    assert batch.status == status
    assert batch.errors is not None
    assert batch.errors.data is not None
    assert batch.errors.data[0].message == "bad input"
    told = {"failed": batch.failed_at, "completed": batch.completed_at}
    assert (told.get(status) is not None) == (status in told)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"name": "models/x"}'])
def test_a_batch_that_makes_no_sense_is_an_error(body: bytes) -> None:
    asked = wanted("llm/v1/batches", method="GET", collection="batches", rest=("batch_1",))
    with pytest.raises(ProviderFailed) as failed:
        run(BATCHES, asked, [reply(body)])
    assert failed.value.error.status == 502


@pytest.mark.parametrize("status", [400, 403, 429, 500, 503])
def test_an_error_of_googles_keeps_its_status(status: int) -> None:
    error = {"error": {"code": status, "message": "no", "status": "X"}}
    for asked in (
        wanted("llm/v1/batches", method="GET", collection="batches"),
        wanted("llm/v1/batches", method="GET", collection="batches", rest=("batch_1",)),
    ):
        with pytest.raises(ProviderFailed, match="no") as failed:
            run(BATCHES, asked, [reply(error, status)])
        assert failed.value.error.status == status
