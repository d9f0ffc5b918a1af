"""What ranks documents, and answers out of them: Bedrock's agent runtime and Google's Discovery
Engine.

The first is checked with botocore's model; of the second there is no client here, so its models are
written from the API reference.
"""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Final

import orjson
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from typing_extensions import override

from tests.providers import aws
from tests.providers.bedrock_api import Bedrock
from tests.providers.gemini_api import Vertex
from tests.providers.strict import Validator, parsed
from tests.providers.upstream import (
    Json,
    Recorded,
    RefusedError,
    Reply,
    Routes,
    Turn,
    json_reply,
    route,
)

_MODEL: Final = aws.service("bedrock-agent-runtime")
_RERANK: Final = _MODEL.operation_model("Rerank")
_ANSWER: Final = _MODEL.operation_model("RetrieveAndGenerate")
_ANSWER_STREAM: Final = _MODEL.operation_model("RetrieveAndGenerateStream")


class BedrockAgents(Bedrock):
    """bedrock-agent-runtime.{region}.amazonaws.com: `/rerank`, `/retrieveAndGenerate` and its
    streaming sister. The service that requests are signed for is `bedrock` too."""

    name = "bedrock-agents"
    ROUTES: ClassVar[Routes] = (
        (route("POST", "/rerank"), "rerank"),
        (route("POST", "/retrieveAndGenerate"), "retrieve_and_generate"),
        (route("POST", "/retrieveAndGenerateStream"), "retrieve_and_generate_stream"),
    )

    def rerank(self, request: Recorded, turn: Turn) -> Reply:
        """POST /rerank; the order is that of the sources."""
        given = aws.request_params(_RERANK, request, {})
        told = given["rerankingConfiguration"]["bedrockRerankingConfiguration"]
        count = min(told.get("numberOfResults", len(given["sources"])), len(given["sources"]))
        results = [{"index": at, "relevanceScore": 0.9 / (at + 1)} for at in range(count)]
        return Reply(aws.answer(_RERANK, {"results": results}))

    def retrieve_and_generate(self, request: Recorded, turn: Turn) -> Reply:
        """POST /retrieveAndGenerate"""
        aws.request_params(_ANSWER, request, {})
        value = {"sessionId": "session-1", "output": {"text": turn.said}, "citations": []}
        return Reply(aws.answer(_ANSWER, value))

    def retrieve_and_generate_stream(self, request: Recorded, turn: Turn) -> Reply:
        """POST /retrieveAndGenerateStream"""
        aws.request_params(_ANSWER_STREAM, request, {})
        frames = [aws.event(_ANSWER_STREAM, "output", {"text": turn.said}, "abcd")]
        return Reply(
            frames=frames,
            content_type="application/vnd.amazon.eventstream",
            headers={"x-amzn-bedrock-knowledge-base-session-id": "session-1"},
        )


class _Camel(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, extra="forbid")


class _Record(_Camel):
    """https://cloud.google.com/generative-ai-app-builder/docs/reference/rest/v1/projects.locations.rankingConfigs/rank#rankingrecord"""

    id: str
    title: str | None = None
    content: str | None = None
    score: float | None = None


class _Rank(_Camel):
    """https://cloud.google.com/generative-ai-app-builder/docs/reference/rest/v1/projects.locations.rankingConfigs/rank"""

    query: str
    # The page tells no number any more; google-cloud-discoveryengine 0.20 does.
    records: Annotated[list[_Record], Field(min_length=1, max_length=200)]
    model: str | None = None
    top_n: int | None = None
    ignore_record_details_in_response: bool | None = None
    user_labels: dict[str, str] | None = None


_RANK: Final = Validator(_Rank)


class DiscoveryEngine(Vertex):
    """discoveryengine.googleapis.com: `/v1/projects/{p}/locations/{l}/rankingConfigs/{c}:rank`."""

    name = "discovery-engine"
    ROUTES: ClassVar[Routes] = (
        (
            route("POST", "/v1/projects/{project}/locations/{location}/rankingConfigs/{name}:rank"),
            "rank",
        ),
    )

    def rank(self, request: Recorded, turn: Turn, location: str, name: str, **_: str) -> Reply:
        """:rank; the order is that of the records."""
        body = parsed(request.body)
        _RANK.check(body)
        if location not in ("global", "us", "eu") or name != "default_ranking_config":
            raise RefusedError(f"there are no ranking configs {name} in {location}", 404)
        if not re.match(r"semantic-ranker-", body.get("model", "semantic-ranker-default@latest")):
            raise RefusedError(f"Invalid model: {body['model']}")
        if not all(each.get("title") or each.get("content") for each in body["records"]):
            raise RefusedError("records: at least one of title and content should be set")
        count = body.get("topN") or 0
        records: list[Json] = body["records"][:count] if count > 0 else body["records"]
        if body.get("ignoreRecordDetailsInResponse"):
            records = [{"id": record["id"]} for record in records]
        scored = [{**each, "score": 0.9 / (at + 1)} for at, each in enumerate(records)]
        return json_reply(orjson.loads(orjson.dumps({"records": scored})))

    @override
    def authorize(self, request: Recorded) -> None:
        """https://cloud.google.com/generative-ai-app-builder/docs/authentication"""
        super().authorize(request)
