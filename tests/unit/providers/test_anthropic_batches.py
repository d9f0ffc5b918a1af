"""Anthropic's message batches for OpenAI's clients, before the stand-in."""

from __future__ import annotations

import base64
from typing import Any

import orjson
import pytest
from openai.types import Batch, FileObject

from kong_ai_proxy.formats.anthropic import batches as lines_of
from kong_ai_proxy.formats.errors import FormatError
from kong_ai_proxy.providers.anthropic.batches import BATCHES
from kong_ai_proxy.providers.files import SLICE
from kong_ai_proxy.providers.flow import ProviderFailed, Send, Wait
from tests.flows import Driven, reply, run, wanted
from tests.providers import ToolCall, Turn, Usage
from tests.providers.anthropic_batches_api import AnthropicBatches
from tests.unit.providers.batch_worlds import CHAT, World, asks, jsonl, line

MODEL = "claude-sonnet-4-6"
BODY = asks("2 + 2?", model=MODEL, max_tokens=9)
TWO = [{"custom_id": "a", "body": BODY}, {"custom_id": "b", "body": BODY}]
NEW: Any = {"endpoint": CHAT, "completion_window": "24h", "input_file_id": "inline"}


@pytest.fixture
def upstream() -> AnthropicBatches:
    return AnthropicBatches()


@pytest.fixture
def world(upstream: AnthropicBatches) -> World:
    credentials = {"x-api-key": "k", "anthropic-version": "2023-06-01"}
    world = World("anthropic", {"batches": BATCHES, "files": BATCHES}, credentials, "")
    world.options = {"anthropic_version": "2023-06-01"}
    world.serve("batches", upstream)
    world.serve("files", upstream)
    return world


def data_url(content: bytes) -> str:
    return f"data:application/jsonl;base64,{base64.b64encode(content).decode()}"


def test_requests_come_inline(world: World, upstream: AnthropicBatches) -> None:
    batch = Batch.model_validate(world.ask("POST", "/batches", requests=TWO, **NEW).value)
    assert (batch.status, batch.id) == ("in_progress", "batch_msgbatch_01StandIn0")
    assert batch.request_counts is not None
    assert batch.request_counts.total == 2
    first = upstream.asked["msgbatch_01StandIn0"][0]
    assert first["custom_id"] == "a"
    assert first["params"]["messages"][0]["role"] == "user"
    assert first["params"]["model"] == MODEL
    assert upstream.failures == []


def test_others_have_a_turn_while_requests_are_converted(world: World) -> None:
    many = [{"custom_id": f"r{number}", "body": BODY} for number in range(300)]
    asked = wanted(
        "llm/v1/batches", collection="batches", texts=world.texts, body={"requests": many, **NEW}
    )
    steps = BATCHES.run(asked)
    waits, step = 0, next(steps)
    while isinstance(step, Wait):
        waits, step = waits + 1, steps.send(0.0)
    assert isinstance(step, Send)
    assert waits >= len(orjson.dumps(many)) // SLICE


def test_requests_come_as_a_data_url(world: World, upstream: AnthropicBatches) -> None:
    content = jsonl(line("a", BODY), line("b", BODY))
    asked = {**NEW, "input_file_id": data_url(content)}
    batch = Batch.model_validate(world.ask("POST", "/batches", **asked).value)
    assert batch.input_file_id == "inline"
    assert [each["custom_id"] for each in upstream.asked["msgbatch_01StandIn0"]] == ["a", "b"]


def test_a_batch_runs_and_its_output_is_openais(world: World, upstream: AnthropicBatches) -> None:
    names = ["a", "b", "c", "d"]
    requests = [{"custom_id": name, "body": BODY} for name in names]
    batch = world.ask("POST", "/batches", requests=requests, **NEW).value
    upstream.finish(
        "msgbatch_01StandIn0",
        {
            "a": Turn(text="Four.", usage=Usage(input=5, output=2)),
            "b": Turn(status=529, message="busy"),
            "c": "canceled",
            "d": "expired",
        },
    )
    ended = Batch.model_validate(world.ask("GET", f"/batches/{batch['id']}").value)
    assert ended.status == "expired"
    assert ended.request_counts is not None
    assert (ended.request_counts.completed, ended.request_counts.failed) == (1, 3)
    file = FileObject.model_validate(world.ask("GET", f"/files/{ended.output_file_id}").value)
    assert file.purpose == "batch_output"
    lines = world.lines(f"/files/{ended.output_file_id}/content")
    answer = lines["a"]["response"]["body"]
    assert answer["choices"][0]["message"]["content"] == "Four."
    assert answer["usage"]["total_tokens"] == 7
    assert lines["b"]["response"]["status_code"] == 529
    assert lines["b"]["response"]["body"]["error"]["message"] == "busy"
    assert lines["c"]["error"]["code"] == "batch_cancelled"
    assert lines["d"]["error"]["code"] == "batch_expired"
    assert world.lines(f"/batches/{batch['id']}/results") == lines
    assert upstream.failures == []


def test_output_is_the_same_however_it_is_cut(world: World, upstream: AnthropicBatches) -> None:
    batch = world.ask("POST", "/batches", requests=TWO, **NEW).value
    turn = Turn(text="Füür", tool_calls=[ToolCall("add", {"a": 1})])
    upstream.finish("msgbatch_01StandIn0", {"a": turn, "b": turn})
    path = f"/batches/{batch['id']}/results"
    whole = world.read(path)
    assert world.read(path, 1) == whole
    assert {world.read(path, size) for size in range(2, 40, 7)} == {whole}


def test_a_good_end_and_a_cancelled_one(world: World, upstream: AnthropicBatches) -> None:
    ids = [world.ask("POST", "/batches", requests=TWO, **NEW).value["id"] for _ in range(2)]
    upstream.finish("msgbatch_01StandIn0", {"a": Turn(), "b": Turn()})
    done = Batch.model_validate(world.ask("GET", f"/batches/{ids[0]}").value)
    assert (done.status, done.completed_at is None) == ("completed", False)
    stopped = Batch.model_validate(world.ask("POST", f"/batches/{ids[1]}/cancel").value)
    assert stopped.status == "cancelling"
    assert stopped.cancelling_at is not None
    assert stopped.output_file_id is None
    upstream.finish("msgbatch_01StandIn1", {"a": Turn(), "b": "canceled"}, canceled=True)
    assert world.ask("GET", f"/batches/{ids[1]}").value["status"] == "cancelled"
    assert world.ask("DELETE", f"/batches/{ids[1]}").value["deleted"] is True


def test_a_batch_whose_answers_are_gone_has_no_output(
    world: World, upstream: AnthropicBatches
) -> None:
    told = world.ask("POST", "/batches", requests=TWO, **NEW).value["id"]
    upstream.finish("msgbatch_01StandIn0", {"a": Turn(), "b": Turn()})
    upstream.batches["msgbatch_01StandIn0"]["archived_at"] = "2026-09-20T19:04:00Z"
    assert world.ask("GET", f"/batches/{told}").value["output_file_id"] is None
    with pytest.raises(ProviderFailed, match="No such File"):
        world.ask("GET", f"/files/file-{told}")


@pytest.mark.parametrize(("order", "dropped"), [("asc", ("order",)), ("desc", ())])
def test_an_order_that_cannot_be_had_is_named(
    world: World, order: str, dropped: tuple[str, ...]
) -> None:
    driven = world.ask("GET", "/batches", query={"order": order})
    assert getattr(driven.result, "dropped", None) == dropped


def test_batches_are_listed(world: World) -> None:
    ids = [world.ask("POST", "/batches", requests=TWO, **NEW).value["id"] for _ in range(3)][::-1]
    page = world.ask("GET", "/batches", query={"limit": "2"}).value
    assert [each["id"] for each in page["data"]] == ids[:2]
    assert page["has_more"]
    rest = world.ask("GET", "/batches", query={"after": ids[1]}).value
    assert [each["id"] for each in rest["data"]] == ids[2:]
    assert not rest["has_more"]


def test_what_anthropic_does_not_know_is_told(world: World) -> None:
    asked = {**NEW, "completion_window": "48h", "metadata": {"a": "b"}, "priority": 1}
    driven = world.ask("POST", "/batches", requests=TWO, **asked)
    assert driven.result is not None
    assert driven.result.dropped == (  # type: ignore[union-attr]
        "priority",
        "metadata",
        "completion_window",
    )


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({"input_file_id": "file-abc"}, "input_file_id: Anthropic keeps no files for batches"),
        ({"input_file_id": None}, "input_file_id"),
        ({"input_file_id": "data:application/jsonl;base64,!"}, "expected base64"),
        ({"input_file_id": "data:application/jsonl,x"}, "Anthropic keeps no files"),
        ({"input_file_id": data_url(b"hello")}, "line 1: expected a JSON object"),
        ({"input_file_id": data_url(b"")}, "at least one request"),
        ({"endpoint": "/v1/embeddings"}, "endpoint: expected /v1/chat/completions"),
        ({"requests": {}}, "requests: expected an array"),
        ({"requests": []}, "at least one request"),
        ({"requests": ["x"]}, r"requests\[0\]: expected an object"),
        ({"requests": [{"custom_id": "a b", "body": BODY}]}, "line 1: custom_id: Anthropic"),
        ({"requests": [TWO[0], TWO[0]]}, "line 2: custom_id: 'a' occurs twice"),
        ({"requests": [{"custom_id": "a", "body": asks("x")}]}, "line 1: model parameter"),
        ({"requests": [{**TWO[0], "url": "/v1/embeddings"}]}, "line 1: url: expected"),
    ],
)
def test_a_batch_that_cannot_be_is_refused(world: World, body: Any, why: str) -> None:
    driven = Driven()
    with pytest.raises(FormatError, match=why):
        world.ask("POST", "/batches", driven=driven, **{**NEW, **body})
    assert driven.sends == []


@pytest.mark.parametrize("told", ["x", "batch_", "batch_abc", "batch_msgbatch_a-b", "msgbatch_a"])
def test_what_is_not_there_is_not_found(world: World, told: str) -> None:
    for path in (f"/batches/{told}", f"/batches/{told}/results", f"/files/file-{told}/content"):
        with pytest.raises(ProviderFailed, match="No such") as failed:
            world.ask("GET", path)
        assert failed.value.error.status == 404
    with pytest.raises(ProviderFailed, match="not found") as failed:
        world.ask("GET", "/batches/batch_msgbatch_none")
    assert failed.value.error.status == 404


def test_results_that_are_not_there_yet_are_anthropics_error(world: World) -> None:
    batch = world.ask("POST", "/batches", requests=TWO, **NEW).value
    with pytest.raises(ProviderFailed, match="not available yet"):
        world.read(f"/batches/{batch['id']}/results")
    with pytest.raises(ProviderFailed, match="No such File"):
        world.ask("GET", f"/files/file-{batch['id']}")


@pytest.mark.parametrize(
    ("method", "path", "there"),
    [
        ("POST", "/files", "GET /files/{id}, GET /files/{id}/content"),
        ("DELETE", "/files/x", "GET /files/{id}, GET /files/{id}/content"),
        ("PUT", "/batches", "POST /batches, .*, DELETE /batches/{id}"),
    ],
)
def test_files_cannot_be_uploaded(world: World, method: str, path: str, there: str) -> None:
    with pytest.raises(ProviderFailed, match=f"no such operation; it has {there}"):
        world.ask(method, path)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"id": "msgbatch_1"}'])
def test_a_batch_that_makes_no_sense_is_an_error(body: bytes) -> None:
    asked = wanted("llm/v1/batches", method="GET", rest=("batch_msgbatch_1",))
    with pytest.raises(ProviderFailed) as failed:
        run(BATCHES, asked, [reply(body)])
    assert failed.value.error.status == 502


@pytest.mark.parametrize(
    "value",
    [None, {}, {"custom_id": "a"}, {"result": {"type": "new"}}, {"result": {"type": "succeeded"}}],
)
def test_a_line_that_makes_no_sense_is_an_error(value: object) -> None:
    with pytest.raises(FormatError):
        lines_of.parse_answer(value)
