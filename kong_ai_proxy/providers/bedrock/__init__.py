"""Amazon Bedrock: https://docs.aws.amazon.com/bedrock/latest/APIReference/welcome.html.

Three services share the name. Models are called at bedrock-runtime, knowledge bases and rerankers
at bedrock-agent-runtime, and batch jobs are managed at bedrock itself; all three sign for the
service `bedrock`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from kong_ai_proxy.config import ModelOptions
from kong_ai_proxy.formats import bedrock, openai
from kong_ai_proxy.formats.bedrock.models import is_claude
from kong_ai_proxy.formats.codec import EmbeddingsProvider
from kong_ai_proxy.providers.anthropic import REFUSED_BY_MODEL, bedrock_change
from kong_ai_proxy.providers.base import Call, Endpoint, Native, Provider
from kong_ai_proxy.providers.bedrock import batches as bedrock_batches
from kong_ai_proxy.providers.bedrock import files as bedrock_files
from kong_ai_proxy.providers.bedrock import images as bedrock_images
from kong_ai_proxy.providers.bedrock import videos as bedrock_videos
from kong_ai_proxy.providers.bedrock.paths import (
    AGENTS,
    CONTROL,
    RUNTIME,
    elsewhere,
    host,
    model_path,
)
from kong_ai_proxy.providers.named_models import held

_AGENT_OPERATIONS = frozenset({"rerank", "retrieveAndGenerate", "retrieveAndGenerateStream"})
_MODEL_OPERATIONS = frozenset(
    {"converse", "converse-stream", "count-tokens", "invoke", "invoke-with-response-stream"}
)
_CONVERSE = frozenset({"converse", "converse-stream"})
_ASYNC = re.compile(r"/async-invoke(?:/[^/?]+)?\Z")
_GUARDRAIL = re.compile(r"/guardrail/[^/?]+/version/[^/?]+/apply\Z")
_JOBS = re.compile(r"/model-invocation-jobs|/model-invocation-job(?:/[^/?]+(?:/stop)?)?\Z")


def _endpoint(call: Call) -> Endpoint:
    if call.route_type == openai.EMBEDDINGS:
        return _embeddings(call)
    if call.client == "anthropic" and is_claude(call.model):
        operation = "invoke-with-response-stream" if call.stream else "invoke"
        return Endpoint(model_path(call.model, operation), bedrock.ANTHROPIC, change=bedrock_change)
    operation = "converse-stream" if call.stream else "converse"
    return Endpoint(model_path(call.model, operation), bedrock.CONVERSE, change=_performance)


def _performance(body: Mapping[str, object], call: Call) -> Mapping[str, object]:
    """The configured latency, in every request."""
    latency = call.options.bedrock.performance_config_latency
    return {"performanceConfig": {"latency": latency}} if latency else {}


def _embeddings(call: Call) -> Endpoint:
    path = model_path(call.model, "invoke")
    if "cohere.embed" in call.model:
        return Endpoint(path, bedrock.COHERE_EMBED, change=_input_type)
    codec: EmbeddingsProvider = bedrock.TITAN_EMBED
    if "amazon.nova" in call.model:
        codec = bedrock.NOVA_EMBED
    return Endpoint(path, codec, change=_normalize)


def _input_type(body: Mapping[str, object], call: Call) -> Mapping[str, object]:
    """Cohere refuses a request that does not say what its embeddings are for."""
    return (
        {} if body.get("input_type") else {"input_type": call.options.cohere.embedding_input_type}
    )


def _normalize(body: Mapping[str, object], call: Call) -> Mapping[str, object]:
    """Titan's second model has the choice, and a default that is not the configuration's."""
    if "titan-embed-text-v2" not in call.model or body.get("normalize") is not None:
        return {}
    return {"normalize": call.options.bedrock.embeddings_normalize}


# Also the models that rerank, or make filters of a question, on the way to an answer.
_AGENTS_MODELS = held(
    "rerankingConfiguration.**.modelArn", "retrieveAndGenerateConfiguration.**.modelArn"
)
_JOBS_MODEL = held("modelId")


def _native(asked: Native, call: Call) -> Endpoint | None:
    """Where an operation lives. The configured model replaces the path's; Kong has the operations
    of knowledge bases below a model, AWS has them without one."""
    operation, options = asked.operation, call.options
    if operation in _MODEL_OPERATIONS:
        path = model_path(call.model or asked.model, operation)
        if operation in _CONVERSE:
            return Endpoint(path, bedrock.CONVERSE, change=_performance)
        return Endpoint(path)
    if operation in _AGENT_OPERATIONS:
        base_url = elsewhere(AGENTS, options)
        return Endpoint(f"/{operation}", base_url=base_url, change=_AGENTS_MODELS)
    path = asked.path.rstrip("/")
    if operation == "async-invoke" and not _ASYNC.search(path):
        return Endpoint("/async-invoke", change=_JOBS_MODEL)  # Kong's /model/{model}/async-invoke
    found = _ASYNC.search(path) or _GUARDRAIL.search(path)
    if found:
        return Endpoint(found[0], change=_JOBS_MODEL)
    jobs = _JOBS.search(re.sub(r"/model-invocations?(?=/|\Z)", "/model-invocation-job", path))
    if jobs is None:
        return None
    return Endpoint(jobs[0], base_url=elsewhere(CONTROL, options), change=_JOBS_MODEL)


def _headers(options: ModelOptions) -> Mapping[str, str]:
    """The configured latency for InvokeModel, which has it in no body."""
    latency = options.bedrock.performance_config_latency
    return {"x-amzn-bedrock-performanceconfig-latency": latency} if latency else {}


BEDROCK = Provider(
    name="bedrock",
    base_url=lambda options: host(RUNTIME, options),
    endpoint=_endpoint,
    endpoints=frozenset({openai.CHAT, openai.COMPLETIONS, openai.EMBEDDINGS}),
    flows={
        openai.IMAGE_GENERATIONS: bedrock_images.GENERATE,
        openai.IMAGE_EDITS: bedrock_images.EDIT,
        openai.VIDEOS: bedrock_videos.VIDEOS,
        openai.FILES: bedrock_files.FILES,
        openai.BATCHES: bedrock_batches.BATCHES,
    },
    native=_native,
    natives=frozenset({"bedrock"}),
    headers=_headers,
    refused_by_model=REFUSED_BY_MODEL,
)
