"""Models that bodies name are held to the call's, wherever an operation has them."""

from __future__ import annotations

import time
from typing import Any

import pytest

from kong_ai_proxy.config import ModelOptions
from kong_ai_proxy.formats import openai
from kong_ai_proxy.formats.errors import FormatError
from kong_ai_proxy.providers.base import Call, Change
from kong_ai_proxy.providers.base import Native as Asked
from kong_ai_proxy.providers.named_models import bare, held
from kong_ai_proxy.providers.registry import PROVIDERS

Json = dict[str, Any]

ARN = "arn:aws:bedrock:us-west-2::foundation-model/cohere.rerank-v3-5:0"
RERANKER = "cohere.rerank-v3-5:0"
_VERTEX = {"api_endpoint": "aiplatform.googleapis.com", "project_id": "p", "location_id": "l"}
OPTIONS = {
    "bedrock": ModelOptions.model_validate({"bedrock": {"aws_region": "us-west-2"}}),
    "vertex": ModelOptions.model_validate({"gemini": _VERTEX}),
}


def _reranking(model: str) -> Json:
    model_configuration = {"modelConfiguration": {"modelArn": model}}
    return {
        "type": "BEDROCK_RERANKING_MODEL",
        "bedrockRerankingConfiguration": model_configuration,
    }


def _of_knowledge_base(model: str, **more: Json) -> Json:
    base = {"knowledgeBaseId": "KB", "modelArn": model, **more}
    return {
        "input": {"text": "q"},
        "retrieveAndGenerateConfiguration": {
            "type": "KNOWLEDGE_BASE",
            "knowledgeBaseConfiguration": base,
        },
    }


OPERATIONS: dict[str, tuple[str, str, str, Any]] = {
    "Anthropic's batches": (
        *("anthropic", "messages/batches", "/v1/messages/batches"),
        lambda model: {"requests": [{"params": {"model": "m"}}, {"params": {"model": model}}]},
    ),
    "Bedrock's rerank": (
        *("bedrock", "rerank", "/rerank"),
        lambda model: {"queries": [], "rerankingConfiguration": _reranking(model)},
    ),
    "retrieveAndGenerate": (
        *("bedrock", "retrieveAndGenerate", "/retrieveAndGenerate"),
        _of_knowledge_base,
    ),
    "retrieveAndGenerate of files": (
        *("bedrock", "retrieveAndGenerateStream", "/retrieveAndGenerateStream"),
        lambda model: {
            "retrieveAndGenerateConfiguration": {
                "externalSourcesConfiguration": {"modelArn": model}
            }
        },
    ),
    "the reranker of a knowledge base": (
        *("bedrock", "retrieveAndGenerate", "/retrieveAndGenerate"),
        lambda model: _of_knowledge_base(
            "m",
            retrievalConfiguration={
                "vectorSearchConfiguration": {"rerankingConfiguration": _reranking(model)}
            },
        ),
    ),
    "async-invoke": (
        *("bedrock", "async-invoke", "/async-invoke"),
        lambda model: {"modelId": model, "modelInput": {"modelId": "a word of the input's"}},
    ),
    "async-invoke below a model": (
        *("bedrock", "async-invoke", "/model/m/async-invoke"),
        lambda model: {"modelId": model},
    ),
    "batch jobs": (
        *("bedrock", "model-invocation-job", "/model-invocation-job"),
        lambda model: {"modelId": model, "jobName": "j"},
    ),
    "Gemini's batches": (
        *("gemini", "batchGenerateContent", "/v1beta/models/m:batchGenerateContent"),
        lambda model: {"batch": {"model": model}},
    ),
    "requests in one of Gemini's batches": (
        *("gemini", "batchGenerateContent", "/v1beta/models/m:batchGenerateContent"),
        lambda model: {
            "batch": {
                "input_config": {"requests": {"requests": [{"request": {"model": model}}]}},
            }
        },
    ),
    "Gemini's token counts": (
        *("gemini", "countTokens", "/v1beta/models/m:countTokens"),
        lambda model: {"generateContentRequest": {"model": model}},
    ),
    "Gemini's token counts in snake case": (
        *("gemini", "countTokens", "/v1beta/models/m:countTokens"),
        lambda model: {"generate_content_request": {"model": model}},
    ),
    "Gemini's embeddings": (
        *("gemini", "batchEmbedContents", "/v1beta/models/m:batchEmbedContents"),
        lambda model: {"requests": [{"model": model, "content": {}}]},
    ),
    "Vertex's token counts": (
        *("vertex", "countTokens", "/v1/publishers/google/models/m:countTokens"),
        lambda model: {"model": model, "contents": []},
    ),
    "Vertex's batches": (
        *("vertex", "", "/v1/projects/p/locations/l/batchPredictionJobs"),
        lambda model: {"model": model, "displayName": "j"},
    ),
}


def change_of(name: str, model: str) -> tuple[Change, Call]:
    """The last touch on an operation's body."""
    provider, operation, path, _ = OPERATIONS[name]
    llm_format = "gemini" if provider == "vertex" else provider
    options = OPTIONS.get(provider, ModelOptions())
    call = Call(openai.CHAT, model, options, client=llm_format)
    row = PROVIDERS[llm_format].find(options)
    assert row.native is not None
    found = row.native(Asked(llm_format, operation, "", path), call)
    assert found is not None
    assert found.change is not None
    return found.change, call


@pytest.mark.parametrize("name", OPERATIONS)
def test_another_model_than_the_configured_one_is_refused(name: str) -> None:
    change, call = change_of(name, "m")
    with pytest.raises(FormatError, match="cannot use own model - must be: m"):
        change(OPERATIONS[name][3]("other"), call)


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_configured_model_may_be_named(name: str) -> None:
    change, call = change_of(name, "m")
    assert not change(OPERATIONS[name][3]("m"), call).keys() - {"model"}


@pytest.mark.parametrize("name", OPERATIONS)
def test_without_a_configured_model_there_is_nothing_to_hold_to(name: str) -> None:
    if "Gemini's" in name or name == "Vertex's token counts":
        return  # whose paths name one
    change, call = change_of(name, "")
    change(OPERATIONS[name][3]("m"), call)


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_body_of_another_shape_is_the_providers_to_refuse(name: str) -> None:
    change, call = change_of(name, "m")
    odd: tuple[Json, ...]
    odd = ({}, {"requests": 3}, {"batch": []}, {"rerankingConfiguration": None})
    for body in odd:
        assert not change(body, call)


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_model_that_is_no_text_is_refused(name: str) -> None:
    change, call = change_of(name, "m")
    with pytest.raises(FormatError, match="expected a string"):
        change(OPERATIONS[name][3]({"m": 1}), call)


@pytest.mark.parametrize(
    ("named", "name"),
    [
        (ARN, RERANKER),
        ("arn:aws-us-gov:bedrock:us-gov-west-1::foundation-model/a.b", "a.b"),
        ("arn:aws:bedrock:eu-west-1:123456789012:inference-profile/eu.a.b", "eu.a.b"),
        ("models/gemini-2.5-flash", "gemini-2.5-flash"),
        ("publishers/google/models/gemini-2.5-flash", "gemini-2.5-flash"),
        ("projects/p/locations/l/publishers/google/models/gemini-2.5-flash", "gemini-2.5-flash"),
    ],
)
def test_resources_of_a_model_are_the_model(named: str, name: str) -> None:
    assert bare(named) == name


@pytest.mark.parametrize(
    "named",
    [
        "arn:aws:bedrock:us-west-2:1:imported-model/cohere.rerank-v3-5:0",
        "arn:aws:sagemaker:us-west-2:1:endpoint/cohere.rerank-v3-5:0",
        "arn:aws:bedrock:us-west-2::foundation-model/x/cohere.rerank-v3-5:0",
        "x-arn:aws:bedrock:us-west-2::foundation-model/cohere.rerank-v3-5:0",
        "projects/p/locations/l/models/cohere.rerank-v3-5:0",
        "publishers/other/models/cohere.rerank-v3-5:0",
        "tunedModels/cohere.rerank-v3-5:0",
        "COHERE.rerank-v3-5:0",
        f"{ARN}\n",
        "",
    ],
)
def test_what_only_ends_like_it_is_another_model(named: str) -> None:
    change, call = change_of("Bedrock's rerank", RERANKER)
    with pytest.raises(FormatError, match="cannot use own model"):
        change(OPERATIONS["Bedrock's rerank"][3](named), call)


def test_the_arn_of_the_configured_model_goes_through_as_it_is() -> None:
    change, call = change_of("Bedrock's rerank", RERANKER)
    assert not change(OPERATIONS["Bedrock's rerank"][3](ARN), call)


def test_documents_may_speak_of_models() -> None:
    change, call = change_of("Bedrock's rerank", RERANKER)
    document = {"inlineDocumentSource": {"jsonDocument": {"modelArn": "other"}}}
    assert not change({"sources": [document]}, call)


def test_both_spellings_are_looked_at() -> None:
    twice = {"generateContentRequest": {"model": "m"}, "generate_content_request": {"model": "n"}}
    with pytest.raises(FormatError, match=r"generate_content_request\.model: cannot use"):
        held("generateContentRequest.model")(twice, Call(openai.CHAT, "m", ModelOptions()))


@pytest.mark.parametrize(
    "body",
    [
        {"requests": [{"params": {}, "Params": {"model": "evil"}}]},
        {"Requests": [{"params": {"model": "evil"}}]},
        {"requests": {"0": {"params": {"model": "evil"}}}},
        {"reque\u017fts": [{"params": {"MODEL": "evil"}}]},
    ],
)
def test_names_count_as_a_lenient_server_would_read_them(body: Json) -> None:
    change = held("requests.*.params.model")
    with pytest.raises(FormatError, match="cannot use own model - must be: m"):
        change(body, Call(openai.CHAT, "m", ModelOptions()))


def test_a_job_of_vertex_gets_the_resource_of_its_model() -> None:
    change, call = change_of("Vertex's batches", "gemini-2.5-flash")
    full = "publishers/google/models/gemini-2.5-flash"
    assert change({"model": "gemini-2.5-flash"}, call) == {"model": full}
    assert change({"model": full}, call) == {"model": full}


def test_a_big_body_takes_no_time() -> None:
    nested: Json = {"modelArn": "m"}
    for _ in range(500):
        nested = {"a": [nested, {"b": 1}]}
    wide = {"requests": [{"params": {"model": "m"}}] * 20_000}
    call = Call(openai.CHAT, "m", ModelOptions())
    begun = time.perf_counter()
    held("x.**.modelArn", "requests.*.params.model")({"x": nested, **wide}, call)
    assert time.perf_counter() - begun < 5
