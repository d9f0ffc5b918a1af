"""The vendors' own models take what fixtures of files, batches and reranking say is asked and
answered, and OpenAI's types what its clients get of others."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from cohere import V2RerankResponse
from multidict import CIMultiDict, CIMultiDictProxy
from openai.types import Batch, FileDeleted, FileObject, ImagesResponse, Video, VideoDeleteResponse

from tests import providers
from tests.golden import exchanges
from tests.golden.exchanges import Exchanges
from tests.golden.fixture import NOW
from tests.providers import Recorded, Turn, Upstream, aws
from tests.providers.bedrock_batches_api import BedrockBatches, Job
from tests.providers.ranking_apis import BedrockAgents, DiscoveryEngine
from tests.providers.s3_api import Stored

GOLDEN = [exchanges.load(name) for name in exchanges.names()]

# ---- OpenAI's clients

OBJECTS: dict[str, Any] = {
    "batch": Batch,
    "file": FileObject,
    "video": Video,
}


def _type(told: Any) -> Any:
    if told.get("deleted"):
        return VideoDeleteResponse if told["object"].startswith("video") else FileDeleted
    return OBJECTS[told["object"]] if "object" in told else ImagesResponse


CONVERTED = [
    golden
    for golden in GOLDEN
    if "llm_format" not in golden.config
    and "json" in golden.client
    and golden.client.get("status", 200) == 200
]


@pytest.mark.parametrize("golden", CONVERTED, ids=lambda golden: golden.name)
def test_openais_types_take_an_answer(golden: Exchanges) -> None:
    """But for the sizes of videos, of which other vendors have others."""
    told = golden.client["json"]
    for each in told["data"] if told.get("object") == "list" else [told]:
        size = {"size": "1280x720"} if isinstance(each.get("size"), str) else {}
        _type(each).model_validate({**each, **size})


# ---- what is asked of the vendors


def _seen(golden: Exchanges, at: int = 0, path: str = "") -> Recorded:
    upstream, body = exchanges.play(golden).asked[at]
    place = upstream.address
    headers: CIMultiDict[str] = CIMultiDict(upstream.set_headers)
    headers.setdefault("Content-Type", "application/json")
    headers["Content-Length"] = str(len(body))
    seen = CIMultiDictProxy(headers)
    return Recorded(upstream.method, f"{path}{place.path}", place.query, seen, body)


def _answered(golden: Exchanges, at: int = 0) -> Any:
    return golden.exchanges[at]["answer"]["json"]


@pytest.mark.parametrize(
    ("name", "judge"),
    [
        ("bedrock/rerank", BedrockAgents("AKIASTANDIN", "golden-secret-access-key")),
        ("cohere/rerank", providers.cohere()),
        ("vertex/rerank", DiscoveryEngine()),
    ],
)
def test_who_reranks_takes_the_request(name: str, judge: Upstream) -> None:
    seen = _seen(exchanges.load(name))
    for (method, pattern), operation in judge.ROUTES:
        found = pattern.match(seen.path)
        if method == seen.method and found is not None:
            getattr(judge, operation)(seen, Turn(), **found.groupdict())
            return
    pytest.fail(f"{seen.path} is no operation")


def test_cohere_gives_such_an_order() -> None:
    told = _answered(exchanges.load("cohere/rerank"))
    assert V2RerankResponse.model_validate(told, strict=True).model_dump(exclude_unset=True) == told


def test_bedrock_gives_such_an_order() -> None:
    operation = aws.service("bedrock-agent-runtime").operation_model("Rerank")
    aws.answer(operation, _answered(exchanges.load("bedrock/rerank")))


BUCKET = "acme-batches"
OPERATIONS = {
    "batches": ("HeadObject", "CreateModelInvocationJob"),
    "batches-cancel": ("GetModelInvocationJob", "StopModelInvocationJob"),
    "batches-done": ("GetModelInvocationJob",),
    "batches-failed": ("GetModelInvocationJob",),
    "batches-list": ("ListModelInvocationJobs",),
    "batches-running": ("GetModelInvocationJob",),
    "files": ("PutObject",),
    "files-content": ("GetObject",),
    "files-delete": ("HeadObject", "DeleteObject"),
    "files-list": ("ListObjectsV2",),
    "files-read": ("HeadObject",),
    "files-small": ("PutObject",),
}
"""Of each fixture of Bedrock's."""
ASKED = ("modelId", "roleArn", "inputDataConfig", "outputDataConfig")


def _bucket() -> BedrockBatches:
    """With the file of the fixture `files`, and the job and the output of the others."""
    golden = exchanges.load("bedrock/files")
    put = _seen(golden)
    job = _answered(exchanges.load("bedrock/batches-running"))
    name = job["jobArn"].rpartition("/")[2]
    judge = BedrockBatches(BUCKET)
    judge.objects[put.path[1:]] = Stored(put.body)
    output = _seen(exchanges.load("bedrock/files-content")).path[1:]
    judge.objects[output] = Stored(b"")
    asked = {member: job[member] for member in ASKED} | {"jobName": "another"}
    judge.jobs[name] = Job(name, asked, datetime.fromtimestamp(NOW, UTC))
    return judge


@pytest.mark.parametrize("name", OPERATIONS)
def test_aws_takes_the_requests(name: str) -> None:
    """As botocore's models have it, the lines of a batch included."""
    golden = exchanges.load(f"bedrock/{name}")
    judge = _bucket()
    for at, exchange in enumerate(golden.exchanges):
        in_bucket = BUCKET in exchange["upstream"]["url"]
        judge.any(_seen(golden, at, f"/{BUCKET}" if in_bucket else ""))
    assert tuple(judge.operations) == OPERATIONS[name]


@pytest.mark.parametrize("name", [name for name in OPERATIONS if name.startswith("batches")])
def test_aws_gives_such_answers(name: str) -> None:
    golden = exchanges.load(f"bedrock/{name}")
    service = aws.service("bedrock")
    for operation, exchange in zip(OPERATIONS[name], golden.exchanges, strict=True):
        if "json" in exchange["answer"]:
            model = service.operation_model(operation)
            if model.output_shape.members:
                aws.answer(model, orjson.loads(orjson.dumps(exchange["answer"]["json"])))
