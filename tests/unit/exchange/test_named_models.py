"""Operations of a provider's own format are no way past the configured model, nor do they lose
what they said."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest

from kong_ai_proxy.exchange.errors import Refused
from tests.integration.known_text_vendors import VENDORS
from tests.providers.upstream import Reply
from tests.unit.exchange.known_text_exchange import Exchange, Json

CLAUDE = VENDORS["anthropic"]


def batch(*models: str) -> Json:
    messages = [{"role": "user", "content": "Hello"}]
    return {
        "requests": [
            {"custom_id": f"{n}", "params": {"model": m, "max_tokens": 9, "messages": messages}}
            for n, m in enumerate(models)
        ]
    }


def embedding(*models: str) -> Json:
    content = {"parts": [{"text": "a"}]}
    return {"requests": [{"model": model, "content": content} for model in models]}


OPERATIONS: dict[str, tuple[str, Callable[..., Json]]] = {
    "anthropic": ("/v1/messages/batches", batch),
    "gemini": (
        f"/v1beta/models/{VENDORS['gemini'].model}:batchEmbedContents",
        embedding,
    ),
    "bedrock": ("/async-invoke", lambda *models: {"modelId": models[-1]}),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_configured_model_passes_byte_for_byte(name: str) -> None:
    path, body = OPERATIONS[name]
    vendor = VENDORS[name]
    exchange = Exchange(vendor, body(vendor.model), path=path, llm_format=name)
    assert exchange.sent.body == exchange.raw


@pytest.mark.parametrize("name", OPERATIONS)
def test_another_one_is_refused(name: str) -> None:
    path, body = OPERATIONS[name]
    vendor = VENDORS[name]
    with pytest.raises(Refused, match=f"cannot use own model - must be: {vendor.model}") as refused:
        Exchange(vendor, body(vendor.model, "other"), path=path, llm_format=name)
    assert refused.value.status == 400


FLASH = "gemini-2.5-flash"
PUBLISHED = f"publishers/google/models/{FLASH}"
JOBS = "/v1/projects/theirs/locations/eu/batchPredictionJobs"


def job(model: str, **model_of_config: str) -> str:
    """The model that a batch job of Vertex AI's has in the end."""
    own: Any = {"name": FLASH, **model_of_config}
    sent = Exchange(VENDORS["vertex"], {"model": model}, path=JOBS, llm_format="gemini", **own).sent
    assert sent.path == "/v1/projects/project-1/locations/us-central1/batchPredictionJobs"
    return str(orjson.loads(sent.body)["model"])


@pytest.mark.parametrize("configured", [FLASH, PUBLISHED])
@pytest.mark.parametrize(
    "named",
    [FLASH, f"models/{FLASH}", PUBLISHED, f"projects/theirs/locations/eu/{PUBLISHED}"],
)
def test_a_job_of_vertex_ais_names_the_model_as_a_resource(configured: str, named: str) -> None:
    assert job(named, name=configured) == PUBLISHED


@pytest.mark.parametrize(
    "named",
    [
        "gemini-2.5-pro",
        "publishers/google/models/gemini-2.5-pro",
        f"publishers/others/models/{FLASH}",
        f"projects/theirs/locations/eu/models/{FLASH}",
        f"{PUBLISHED}/x",
        f"{PUBLISHED}@001",
    ],
)
def test_a_job_of_vertex_ais_has_no_other_model(named: str) -> None:
    with pytest.raises(Refused, match=f"cannot use own model - must be: {FLASH}") as refused:
        job(named)
    assert refused.value.status == 400


def test_without_a_configured_model_a_batch_may_have_several() -> None:
    body = batch("claude-haiku-4-5", "claude-opus-4-6")
    path = "/v1/messages/batches"
    exchange = Exchange(CLAUDE, body, path=path, llm_format="anthropic", name=None)
    assert exchange.sent.body == exchange.raw


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_what_is_asked_of_a_batch_has_no_body_to_look_at(method: str) -> None:
    path = "/v1/messages/batches/msgbatch_1" + ("/cancel" if method == "POST" else "")
    exchange = Exchange(CLAUDE, None, path=path, llm_format="anthropic", method=method)
    assert (exchange.sent.method, exchange.sent.body) == (method, b"")


def test_what_cohere_bills_for_a_ranking_is_counted() -> None:
    vendor = VENDORS["cohere"]
    body = {"model": vendor.model, "query": "q", "documents": ["a"]}
    exchange = Exchange(vendor, body, path="/v2/rerank", llm_format="cohere")
    reply: Reply = exchange.judged(vendor)
    found = exchange.answered(reply)
    assert found.body == reply.body
    assert exchange.attempt.usage is not None
    assert exchange.attempt.usage.prompt_details == {"search_units": 1}


def test_a_job_of_vertex_ais_without_a_model_gets_the_configured_one() -> None:
    """Else the client's own container would run."""
    body = {"unmanagedContainerModel": {"containerSpec": {"imageUri": "theirs"}}}
    own: Any = {"name": FLASH}
    sent = Exchange(VENDORS["vertex"], body, path=JOBS, llm_format="gemini", **own).sent
    assert orjson.loads(sent.body) == {**body, "model": PUBLISHED}


INTERACTIONS = "/v1beta/interactions"


@pytest.mark.parametrize(
    ("vendor", "path", "place"),
    [
        ("gemini", INTERACTIONS, INTERACTIONS),
        ("gemini", f"{INTERACTIONS}/i-1", f"{INTERACTIONS}/i-1"),
        ("gemini", f"{INTERACTIONS}/i-1/cancel", f"{INTERACTIONS}/i-1/cancel"),
        (
            "vertex",
            "/v1beta1/projects/theirs/locations/eu/interactions/i-1",
            "/v1beta1/projects/project-1/locations/us-central1/interactions/i-1",
        ),
    ],
)
def test_interactions_of_google_go_up(vendor: str, path: str, place: str) -> None:
    method = "GET" if path.endswith("i-1") else "POST"
    body = {"model": FLASH, "input": "Hello"} if method == "POST" else None
    exchange = Exchange(VENDORS[vendor], body, path=path, llm_format="gemini", method=method)
    assert (exchange.sent.method, exchange.sent.path) == (method, place)


def test_an_interaction_without_a_model_gets_the_configured_one() -> None:
    body = {"input": "Hello"}
    sent = Exchange(VENDORS["gemini"], body, path=INTERACTIONS, llm_format="gemini").sent
    assert orjson.loads(sent.body) == {**body, "model": VENDORS["gemini"].model}


@pytest.mark.parametrize("body", [{"model": "gemini-9"}, {"agent": "deep-research"}])
def test_an_interaction_has_no_other_model_and_no_agent(body: Json) -> None:
    with pytest.raises(Refused, match="cannot use own model"):
        Exchange(VENDORS["gemini"], body, path=INTERACTIONS, llm_format="gemini")
