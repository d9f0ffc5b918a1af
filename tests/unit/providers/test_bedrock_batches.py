"""Batches at Bedrock: the flow driven by hand against strict stand-ins of S3 and Bedrock."""

from __future__ import annotations

import orjson
import pytest

from kong_ai_proxy.formats import openai
from kong_ai_proxy.formats.bedrock import batches as bedrock_batches
from kong_ai_proxy.formats.errors import FormatError
from kong_ai_proxy.providers.bedrock.batches import BATCHES
from kong_ai_proxy.providers.files import file_id, file_name
from kong_ai_proxy.providers.flow import Passed, Reply
from tests.flows import reply, run, wanted
from tests.providers.s3_api import Stored
from tests.providers.upstream import Turn
from tests.unit.providers.bedrock_world import (
    ASSISTANTS,
    CREATE,
    INPUT_OF_MODEL,
    MODEL,
    PREFIX,
    ROLE,
    World,
    failure,
    options,
)
from tests.unit.providers.test_files import BATCH, line


def test_a_batch_is_made_of_a_file() -> None:
    world = World()
    made = world.create(metadata={"a": "b"})
    (job,) = world.upstream.jobs.values()
    assert made["id"] == f"batch_{job.id}"
    assert (made["status"], made["endpoint"], made["model"]) == (
        "validating",
        "/v1/chat/completions",
        MODEL,
    )
    assert job.asked["roleArn"] == ROLE
    assert job.asked["modelId"] == MODEL
    assert job.asked["modelInvocationType"] == "Converse"
    assert job.asked["timeoutDurationInHours"] == 24
    stamp = file_name(made["input_file_id"]).partition("/")[0]
    source = job.asked["inputDataConfig"]["s3InputDataConfig"]["s3Uri"]
    assert source == f"{PREFIX}/{stamp}/batch/in.jsonl"
    target = job.asked["outputDataConfig"]["s3OutputDataConfig"]["s3Uri"]
    assert target == f"{PREFIX}/{stamp}/batch_output/"
    assert world.upstream.failures == []


def test_what_bedrock_cannot_keep_of_a_batch_is_told() -> None:
    world = World()
    file = world.upload(BATCH, ("file", INPUT_OF_MODEL, "in.jsonl")).value
    asked = {
        **CREATE,
        "input_file_id": file["id"],
        "metadata": {"a": "b"},
        "odd": 1,
        "tags": [{"key": "team", "value": "a"}],
        "jobName": "nightly",
        "completion_window": "168h",
    }
    driven = world.batches("POST", body=asked)
    assert getattr(driven.result, "dropped", None) == ("odd", "metadata")
    (job,) = world.upstream.jobs.values()
    assert (job.asked["jobName"], job.asked["timeoutDurationInHours"]) == ("nightly", 168)
    assert job.asked["tags"] == [{"key": "team", "value": "a"}]


def test_a_client_chooses_neither_the_network_nor_the_role_of_a_job() -> None:
    world = World()
    file = world.upload(BATCH, ("file", INPUT_OF_MODEL, "in.jsonl")).value
    asked = {
        **CREATE,
        "input_file_id": file["id"],
        "vpcConfig": {"subnetIds": ["subnet-1"], "securityGroupIds": ["sg-1"]},
        "role_arn": "arn:aws:iam::123456789012:role/Other",
    }
    driven = world.batches("POST", body=asked)
    assert getattr(driven.result, "dropped", None) == ("vpcConfig", "role_arn")
    (job,) = world.upstream.jobs.values()
    assert "vpcConfig" not in job.asked
    assert job.asked["roleArn"] == ROLE


def test_hours_in_bedrocks_own_words_are_the_batchs() -> None:
    world = World()
    made = world.create(timeoutDurationInHours=72)
    (job,) = world.upstream.jobs.values()
    assert job.asked["timeoutDurationInHours"] == 72
    assert made["completion_window"] == "72h"
    assert made["expires_at"] == made["created_at"] + 72 * 3600


@pytest.mark.parametrize("hours", [23, 169, "72", 24.5, True])
def test_hours_that_bedrock_has_not_are_refused(hours: object) -> None:
    with pytest.raises(FormatError, match="timeoutDurationInHours: expected a whole number from"):
        World().create(timeoutDurationInHours=hours)


def test_an_api_key_of_bedrocks_lists_jobs_and_makes_none() -> None:
    aws = {"bedrock": options()["bedrock"]}
    asked = wanted(openai.BATCHES, method="POST", body=CREATE, options=aws, signs=False)
    status, text = failure(lambda: run(BATCHES, asked))
    assert (status, "opens no bucket in S3" in text) == (500, True)
    listed = run(BATCHES, asked._replace(method="GET"), [reply({"invocationJobSummaries": []})])
    assert listed.value["data"] == []


def test_members_that_are_nested_too_deeply_are_refused() -> None:
    deep: object = "x"
    for _ in range(300):
        deep = [deep]
    with pytest.raises(FormatError, match="the request is nested too deeply"):
        World().create(tags=deep)


def test_a_batch_goes_through_its_statuses() -> None:
    world = World()
    told = world.create()["id"]
    (job,) = world.upstream.jobs.values()
    expected = {
        "Submitted": "validating",
        "Validating": "validating",
        "Scheduled": "in_progress",
        "InProgress": "in_progress",
        "Stopping": "cancelling",
        "Stopped": "cancelled",
        "Completed": "completed",
        "PartiallyCompleted": "completed",
        "Failed": "failed",
        "Expired": "expired",
    }
    ended = {"cancelled": "cancelled_at", "completed": "completed_at"}
    ended |= {"failed": "failed_at", "expired": "expired_at"}
    for job.status, status in expected.items():
        job.more = {"message": "a text"}
        found = world.batches("GET", told).value
        assert found["status"] == status
        at = {name for name in ended.values() if found[name] is not None}
        assert at == ({ended[status]} if status in ended else set())
        assert bool(found["errors"]) is (status in ("failed", "expired"))
        assert bool(found["output_file_id"]) is (status == "completed")


def test_a_status_that_came_later_hides_no_list() -> None:
    world = World()
    world.create()
    (job,) = world.upstream.jobs.values()
    page = {"invocationJobSummaries": [job.shown, {**job.shown, "status": "Dreaming"}]}
    found = bedrock_batches.parse_jobs(page).jobs
    assert [each.status for each in found] == ["validating", "in_progress"]


def test_output_comes_back_in_openais_lines() -> None:
    world = World()
    failing = {"model": MODEL, "messages": [{"role": "user", "content": "fail"}]}
    data = INPUT_OF_MODEL + line(custom_id="é Z", body=failing)
    told = world.create(input=data)["id"]
    world.upstream.finish(told.removeprefix("batch_"), Turn(text="Hello"))
    batch = world.batches("GET", told).value
    assert batch["status"] == "completed"
    assert batch["request_counts"] == {"total": 3, "completed": 2, "failed": 1}
    output = batch["output_file_id"]
    about = world.files("GET", output).value
    assert (about["purpose"], about["filename"]) == ("batch_output", "in.jsonl.out")
    found = {
        each["custom_id"]: each for each in map(orjson.loads, world.content(output).splitlines())
    }
    assert set(found) == {"request-1", "request-2", "é Z"}
    answer = found["request-1"]["response"]
    assert answer["status_code"] == 200
    assert answer["body"]["object"] == "chat.completion"
    assert answer["body"]["choices"][0]["message"]["content"] == "Hello"
    assert answer["body"]["usage"]["total_tokens"] == 18
    failed = found["é Z"]["response"]
    assert failed["status_code"] == 400
    assert failed["body"]["error"]["message"] == "Malformed input request"
    listed = world.files("GET").value["data"]
    assert {each["purpose"] for each in listed} == {"batch", "batch_output"}


def test_the_manifest_of_a_job_is_no_file() -> None:
    world = World()
    told = world.create()["id"]
    world.upstream.finish(told.removeprefix("batch_"))
    (manifest,) = [key for key in world.upstream.objects if key.endswith("/manifest.json.out")]
    assert [each["filename"] for each in world.files("GET").value["data"]] == [
        *("in.jsonl", "in.jsonl.out"),
    ]
    own = file_id(manifest.removeprefix("llm/batches/"))
    assert failure(lambda: world.files("GET", own)) == (404, f"No such File object: {own}")


@pytest.mark.parametrize("name", ["manifest.json", ".jsonl", "odd name"])
def test_files_of_any_name_are_batched(name: str) -> None:
    world = World()
    file = world.upload(BATCH, ("file", INPUT_OF_MODEL, name)).value
    told = world.batches("POST", body={**CREATE, "input_file_id": file["id"]}).value["id"]
    world.upstream.finish(told.removeprefix("batch_"))
    output = world.batches("GET", told).value["output_file_id"]
    assert world.files("GET", output).value["filename"] == f"{name}.out"


def test_a_stopped_batch_has_what_was_done() -> None:
    world = World()
    told = world.create()["id"]
    world.upstream.finish(told.removeprefix("batch_"), status="Stopped")
    batch = world.batches("GET", told).value
    assert batch["status"] == "cancelled"
    assert len(world.content(batch["output_file_id"]).splitlines()) == 2


def test_embeddings_are_batched_as_the_models_own_format() -> None:
    world = World("amazon.titan-embed-text-v2:0")
    body = {"model": world.name, "input": "hello"}
    data = line(url="/v1/embeddings", body=body)
    file = world.upload(BATCH, ("file", data, "in.jsonl")).value
    assert file["purpose"] == "batch"
    asked = {**CREATE, "input_file_id": file["id"]}
    with pytest.raises(FormatError, match="endpoint: expected /v1/embeddings"):
        world.batches("POST", body=asked)
    made = world.batches("POST", body={**asked, "endpoint": "/v1/embeddings"}).value
    job = world.upstream.jobs[made["id"].removeprefix("batch_")]
    assert job.asked["modelInvocationType"] == "InvokeModel"
    world.upstream.finish(job.id)
    batch = world.batches("GET", made["id"]).value
    assert batch["endpoint"] == "/v1/embeddings"
    (found,) = map(orjson.loads, world.content(batch["output_file_id"]).splitlines())
    answer = found["response"]["body"]
    assert answer["data"][0]["embedding"] == [0.25, -0.5, 1.0]
    assert answer["usage"]["prompt_tokens"] == 3


def test_without_a_configured_model_the_files_own_is_used() -> None:
    world = World(None)
    assert world.create()["model"] == MODEL
    (job,) = world.upstream.jobs.values()
    assert job.asked["modelId"] == MODEL


def test_the_request_may_name_a_model_where_none_is_configured() -> None:
    world = World(None)
    assert world.create(model="us.amazon.nova-lite-v1:0")["model"] == "us.amazon.nova-lite-v1:0"
    with pytest.raises(FormatError, match="model: expected a string"):
        world.create(model=5)


def test_a_file_for_another_model_than_the_configured_makes_no_batch() -> None:
    world = World(None)
    file = world.upload(BATCH, ("file", INPUT_OF_MODEL, "in.jsonl")).value
    asked = {**CREATE, "input_file_id": file["id"]}
    world.name = "amazon.nova-pro-v1:0"
    with pytest.raises(FormatError, match=f"{MODEL}.*must be: amazon.nova-pro-v1:0"):
        world.batches("POST", body=asked)
    assert world.upstream.jobs == {}
    made = world.batches("POST", body={**asked, "model": world.name}).value
    assert made["model"] == world.name


def test_without_any_model_there_is_no_batch() -> None:
    world = World(None)
    file = world.upload(BATCH, ("file", INPUT_OF_MODEL, "in.jsonl")).value
    (key,) = world.upstream.objects
    world.upstream.objects[key] = Stored(world.upstream.objects[key].content)
    with pytest.raises(FormatError, match="model: expected it in the request or its file"):
        world.batches("POST", body={**CREATE, "input_file_id": file["id"]})


@pytest.mark.parametrize("depth", [300, 900, 1100])
def test_output_that_is_nested_deeply_becomes_an_error(depth: int) -> None:
    world = World()
    told = world.create()["id"]
    world.upstream.finish(told.removeprefix("batch_"))
    output = world.batches("GET", told).value["output_file_id"]
    key = "llm/batches/" + file_name(output)
    deep = b'{"a":' * depth + b"{}" + b"}" * depth
    good = world.upstream.objects[key].content.splitlines()[0]
    call = b'{"toolUse": {"toolUseId": "t", "name": "f", "input": ' + deep + b"}}"
    bad = good.replace(
        b'"content":[{"text":"Hello from the stand-in."}]', b'"content":[' + call + b"]"
    )
    assert bad != good
    world.upstream.objects[key] = Stored(bad + b"\n" + good)
    first, second = map(orjson.loads, world.content(output).splitlines())
    assert first["error"] or first["response"]["status_code"] == 200
    assert second["response"]["status_code"] == 200


def test_output_is_the_same_cut_at_every_byte() -> None:
    world = World()
    told = world.create()["id"]
    world.upstream.finish(told.removeprefix("batch_"), Turn(text="Grüße"))
    output = world.batches("GET", told).value["output_file_id"]
    data = world.upstream.objects["llm/batches/" + file_name(output)].content
    whole = world.content(output)
    for at in range(len(data)):
        passed = world.files("GET", output, "content", now=1.0).result
        assert isinstance(passed, Passed)
        assert passed.filter
        found = passed.filter.feed(data[:at]) + passed.filter.feed(data[at:])
        assert _steady(found + passed.filter.end()) == _steady(whole)


def _steady(data: bytes) -> list[object]:
    """Without the ids and times that an answer gets here."""
    lines = list(map(orjson.loads, data.splitlines()))
    for each in lines:
        each["response"]["body"] |= {"id": "", "created": 0}
    return lines


def test_a_role_may_come_with_the_request_where_none_is_configured() -> None:
    world = World(batch_role_arn=None)
    status, text = failure(world.create)
    assert status == 500
    assert text.startswith("model.options.bedrock.batch_role_arn: expected")
    other = ROLE.replace("Batch", "Other")
    world.create(role_arn=other)
    (job,) = world.upstream.jobs.values()
    assert job.asked["roleArn"] == other
    configured = World()
    configured.create(role_arn=other)
    (job,) = configured.upstream.jobs.values()
    assert job.asked["roleArn"] == ROLE


def test_a_batch_is_cancelled() -> None:
    world = World()
    told = world.create()["id"]
    found = world.batches("POST", told, "cancel").value
    assert found["status"] == "cancelling"
    assert found["cancelling_at"]
    world.upstream.finish(told.removeprefix("batch_"))
    status, text = failure(lambda: world.batches("POST", told, "cancel"))
    assert (status, text) == (409, "The job is Completed and cannot be stopped")


def test_batches_are_listed_the_newest_first() -> None:
    world = World()
    ids = [world.create()["id"] for _ in range(5)]
    ids.reverse()
    world.upstream.job_page = 2
    listed = world.batches("GET").value
    assert [each["id"] for each in listed["data"]] == ids
    assert listed["has_more"] is False
    page = world.batches("GET", query={"limit": "2"}).value
    assert [each["id"] for each in page["data"]] == ids[:2]
    assert page["has_more"] is True
    rest = world.batches("GET", query={"limit": "2", "after": page["last_id"]}).value
    assert [each["id"] for each in rest["data"]] == ids[2:4]


def test_jobs_of_others_are_not_there() -> None:
    world = World()
    told = world.create()["id"]
    (job,) = world.upstream.jobs.values()
    own = file_name(world.batches("GET", told).value["input_file_id"])
    for uri in (
        f"s3://other-bucket/llm/batches/{own}",
        "s3://my-bucket/llm/batches-2/x.jsonl",
        "s3://my-bucket/llm/batches/",
        "s3://my-bucket/secret.jsonl",
    ):
        job.asked["inputDataConfig"] = {"s3InputDataConfig": {"s3Uri": uri}}
        before = len(world.upstream.operations)
        assert failure(lambda: world.batches("GET", told)) == (404, f"No such Batch object: {told}")
        assert failure(lambda: world.batches("POST", told, "cancel"))[0] == 404
        assert world.batches("GET").value["data"] == []
        assert "StopModelInvocationJob" not in world.upstream.operations[before:]


@pytest.mark.parametrize(
    "told",
    ["job000000001", "batch_", "batch_..", "batch_job00000000", "batch_JOB000000001", "batch_a/b"],
)
def test_an_id_of_a_batch_is_checked(told: str) -> None:
    world = World()
    assert failure(lambda: world.batches("GET", told))[0] == 404
    assert failure(lambda: world.batches("POST", told, "cancel"))[0] == 404
    assert world.upstream.operations == []


def test_a_file_that_is_gone_makes_no_batch() -> None:
    world = World()
    file = world.upload(BATCH, ("file", INPUT_OF_MODEL, "in.jsonl")).value
    world.upstream.objects.clear()
    asked = {**CREATE, "input_file_id": file["id"]}
    status, text = failure(lambda: world.batches("POST", body=asked))
    assert (status, text) == (404, f"No such File object: {file['id']}")


def test_a_file_for_another_purpose_makes_no_batch() -> None:
    world = World()
    file = world.upload(ASSISTANTS, ("file", b"x", "in.jsonl")).value
    with pytest.raises(FormatError, match="input_file_id: expected the id of a file"):
        world.batches("POST", body={**CREATE, "input_file_id": file["id"]})


@pytest.mark.parametrize("window", ["23h", "169h"])
def test_bedrock_has_its_own_bounds_for_the_time(window: str) -> None:
    with pytest.raises(FormatError, match="completion_window: expected 24h to 168h"):
        World().create(completion_window=window)


@pytest.mark.parametrize(
    ("answer", "status", "text"),
    [
        (reply({"message": "Too many"}, 429), 429, "Too many"),
        (reply(b"", 500), 500, "the provider answered with status 500"),
        (reply(b"<html>"), 502, "the provider's answer is not usable: expected a JSON object"),
        (reply({}), 502, "the provider's answer is not usable: jobArn"),
    ],
)
def test_bedrocks_errors_are_told(answer: Reply, status: int, text: str) -> None:
    asked = wanted(
        openai.BATCHES,
        options=options(),
        method="GET",
        rest=("batch_job000000001",),
        collection="batches",
    )
    found = failure(lambda: run(BATCHES, asked, [answer]))
    assert (found[0], found[1][: len(text)]) == (status, text)


def test_lines_of_real_output_are_read() -> None:
    """https://docs.aws.amazon.com/bedrock/latest/userguide/batch-inference-results.html"""
    world = World()
    told = world.create()["id"]
    world.upstream.finish(told.removeprefix("batch_"))
    batch = world.batches("GET", told).value
    key = "llm/batches/" + file_name(batch["output_file_id"])
    world.upstream.objects[key] = Stored(
        b'{ "recordId" : "1223213ABCD", "modelInput" : {"inputText": "Hello world"}, '
        b'"error" : {"errorCode" : 400, "errorMessage" : "bad request" }}\n'
        b'{"modelInput": {}, "modelOutput": {"output": 5}}\nnot JSON'
    )
    first, second, third = map(orjson.loads, world.content(batch["output_file_id"]).splitlines())
    assert first["custom_id"] == "1223213ABCD"
    assert first["response"]["body"]["error"]["message"] == "bad request"
    assert (second["custom_id"], second["error"]["code"]) == (None, "invalid_answer")
    assert third["error"]["code"] == "invalid_answer"
