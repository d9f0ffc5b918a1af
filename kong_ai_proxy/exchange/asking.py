"""What a client asks for: in OpenAI's format the route type says it, in a native format the path.

Paths of the native formats: https://docs.anthropic.com/en/api, https://ai.google.dev/api,
https://docs.aws.amazon.com/bedrock/latest/APIReference, https://docs.cohere.com/reference,
https://huggingface.github.io/text-generation-inference.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple
from urllib.parse import unquote

from kong_ai_proxy.exchange.address import no_dot_segments
from kong_ai_proxy.exchange.errors import BAD_REQUEST, NOT_FOUND, Refused
from kong_ai_proxy.exchange.messages import ClientRequest
from kong_ai_proxy.exchange.privacy import query_values
from kong_ai_proxy.formats import anthropic, bedrock, cohere, gemini, huggingface, openai
from kong_ai_proxy.formats.codec import ChatCodec, ClientCodec, EmbeddingsCodec
from kong_ai_proxy.formats.gemini import live
from kong_ai_proxy.formats.openai import chat as openai_chat
from kong_ai_proxy.formats.openai import completions as openai_completions
from kong_ai_proxy.formats.openai import embeddings as openai_embeddings
from kong_ai_proxy.formats.openai import responses as openai_responses
from kong_ai_proxy.providers.base import Native
from kong_ai_proxy.providers.named_models import bare

OPENAI_CODECS: Mapping[str, ChatCodec | EmbeddingsCodec] = {
    openai.CHAT: openai_chat.CHAT,
    openai.COMPLETIONS: openai_completions.COMPLETIONS,
    openai.EMBEDDINGS: openai_embeddings.EMBEDDINGS,
    openai.RESPONSES: openai_responses.RESPONSES,
}
"""Of the route types that can be converted."""

NATIVE_ONLY = "native"
"""In place of a route type: an operation that no other format has, such as rerank."""


class Asked(NamedTuple):
    """One request's operation."""

    route_type: str
    """Of the operation; NATIVE_ONLY for one that has none."""
    client: str = "openai"
    """The client's format, as `llm_format` names it."""
    codec: ClientCodec | None = None
    """None where there is nothing to convert to or from."""
    native: Native | None = None
    """None in OpenAI's format."""
    model: str = ""
    """As the path names it; "" where it does not."""
    stream: bool | None = None
    """Whether the path asks for a stream; None where it does not say."""

    @property
    def operation(self) -> str:
        """Its key in `openai.OPERATIONS`: what is only passed on is like `preserve`."""
        return openai.PRESERVE if self.route_type == NATIVE_ONLY else self.route_type

    def method(self, sent: str) -> str:
        """What the provider is asked with, of the method that the client `sent`: CRUD types keep
        it; elsewhere what has a body goes up as POST."""
        operation = openai.OPERATIONS[self.operation]
        kept = operation.collections or operation.any_body or operation.websocket
        return sent if kept else "POST"


class _Operation(NamedTuple):
    """What an operation of a native format is here."""

    route_type: str = NATIVE_ONLY
    codec: ClientCodec | None = None
    stream: bool | None = None


_Body = Mapping[str, object]


def in_openai_format(route_type: str) -> Asked:
    """What a client of OpenAI's format asks for."""
    return Asked(route_type, codec=OPENAI_CODECS.get(route_type))


def in_native_format(llm_format: str, request: ClientRequest, body: _Body) -> Asked:
    """What a client of another format does. Raises Refused for a path that tells no operation."""
    return _NATIVE[llm_format](request, body)


def native_session(llm_format: str, request: ClientRequest) -> Asked:
    """What a client of another format does who opens a WebSocket. Raises Refused where the format
    has none."""
    if llm_format != "gemini":
        raise Refused(NOT_FOUND, f"llm_format '{llm_format}' has no realtime sessions")
    path = no_dot_segments(request.path)
    native = Native(llm_format, live.OPERATION, path=path)
    return Asked(openai.REALTIME, llm_format, native=native)


# ---- Anthropic, Cohere and Hugging Face: the end of the path


_CHAT = openai.CHAT
_ANTHROPIC = {
    "messages": _Operation(_CHAT, anthropic.MESSAGES),
    "complete": _Operation(openai.COMPLETIONS, anthropic.COMPLETE),
}
_ANTHROPIC_PATH = re.compile(
    r"(?P<path>(?:/v1)?/(?P<operation>complete|messages(?:/count_tokens|/batches)?)"
    r"(?P<rest>(?<=/batches)(?:/[^/]+)*)?)/?\Z"
)


def _anthropic(request: ClientRequest, body: _Body) -> Asked:
    found = _ANTHROPIC_PATH.search(request.path)
    if found is None:
        return _asked("anthropic", "messages", _ANTHROPIC["messages"], path="/v1/messages")
    operation = found["operation"]
    known = _ANTHROPIC.get(operation, _Operation())
    return _asked("anthropic", operation, known, path=_v1(found["path"]))


_COHERE = {
    "v2/chat": _Operation(_CHAT, cohere.CHAT),
    "v2/embed": _Operation(openai.EMBEDDINGS, cohere.EMBED),
    "v1/generate": _Operation(openai.COMPLETIONS, cohere.GENERATE),
}
_COHERE_PATH = re.compile(
    r"(?P<path>(?:/(?P<version>v[12]))?/(?P<operation>chat|embed|generate|rerank))/?\Z"
)
_COHERE_VERSIONS = {"chat": "v2", "embed": "v2", "generate": "v1", "rerank": "v2"}


def _cohere(request: ClientRequest, body: _Body) -> Asked:
    found = _COHERE_PATH.search(request.path)
    name = found["operation"] if found else _cohere_operation(body)
    version = (found["version"] if found else None) or _COHERE_VERSIONS[name]
    operation = f"{version}/{name}"
    return _asked("cohere", operation, _COHERE.get(operation, _Operation()), path=f"/{operation}")


def _cohere_operation(body: _Body) -> str:
    """Of a request to a path that says nothing."""
    if "query" in body and "documents" in body:
        return "rerank"
    return "embed" if "texts" in body or "inputs" in body else "chat"


_HUGGINGFACE = {
    "generate": _Operation(openai.COMPLETIONS, huggingface.GENERATE, stream=False),
    "generate_stream": _Operation(openai.COMPLETIONS, huggingface.GENERATE, stream=True),
    "": _Operation(openai.COMPLETIONS, huggingface.GENERATE_ARRAY),
    "v1/chat/completions": _Operation(_CHAT, openai_chat.CHAT),
}
_HUGGINGFACE_PATH = re.compile(
    r"(?:/v1)?/(?P<operation>generate|generate_stream|chat/completions)/?\Z"
)


def _huggingface(request: ClientRequest, body: _Body) -> Asked:
    found = _HUGGINGFACE_PATH.search(request.path)
    operation = found["operation"] if found else ""
    if operation == "chat/completions" or (not operation and "messages" in body):
        operation = "v1/chat/completions"
    return _asked("huggingface", operation, _HUGGINGFACE[operation], path=f"/{operation}")


# ---- Gemini and Bedrock: model and operation in the path, or in named captures

_GEMINI_PATH = re.compile(r"(?:/models|/tunedModels)/(?P<model>.+):(?P<operation>\w+)/?\Z")
_GEMINI_REST = re.compile(
    r"/(?:upload/)?v1(?:beta|alpha|beta1)?/.+\Z|/(?:files|batches|cachedContents|models)(?:/.*)?\Z"
)


# https://cloud.google.com/vertex-ai/docs/reference/rest/v1/projects.locations.batchPredictionJobs:
# the model is a resource in the body.
_GEMINI_JOBS = re.compile(r"/batchPredictionJobs/?\Z")


def _gemini_operations(request: ClientRequest) -> Mapping[str, _Operation]:
    as_events = query_values(request.query).get("alt") == "sse"
    streamed = gemini.GENERATE if as_events else gemini.GENERATE_ARRAY
    return {
        "generateContent": _Operation(_CHAT, gemini.GENERATE, stream=False),
        "streamGenerateContent": _Operation(_CHAT, streamed, stream=True),
        "embedContent": _Operation(openai.EMBEDDINGS, gemini.EMBED_ONE),
        "batchEmbedContents": _Operation(openai.EMBEDDINGS, gemini.EMBED),
    }


def _gemini(request: ClientRequest, body: _Body) -> Asked:
    model, operation = _of_path(request, _GEMINI_PATH)
    if operation:
        known = _gemini_operations(request).get(operation, _Operation())
        return _asked("gemini", operation, known, model=model, path=_gemini_rest(request.path))
    if _GEMINI_JOBS.search(request.path):
        named = body.get("model")
        model = bare(named) if isinstance(named, str) else ""
    return _asked("gemini", "", _Operation(), model=model, path=_gemini_rest(request.path))


def _gemini_rest(path: str) -> str:
    found = _GEMINI_REST.search(path)
    return found[0] if found else path


_BEDROCK_PATH = re.compile(r"/model/(?P<model>.+)/(?P<operation>[\w-]+)/?\Z")
_BEDROCK_REST = re.compile(
    r"/(?:retrieveAndGenerate(?:Stream)?|rerank|async-invoke|guardrail|model-invocation-jobs?"
    r"|model-invocations?)(?:/.*)?\Z"
)
_BEDROCK = {
    "converse": _Operation(_CHAT, bedrock.CONVERSE, stream=False),
    "converse-stream": _Operation(_CHAT, bedrock.CONVERSE, stream=True),
}


def _bedrock(request: ClientRequest, body: _Body) -> Asked:
    model, operation = _of_path(request, _BEDROCK_PATH)
    if not operation:
        rest = _BEDROCK_REST.search(request.path)
        if rest is None:
            raise Refused(
                BAD_REQUEST,
                "the path names no operation: expected /model/{model}/converse, "
                "/model/{model}/converse-stream or another one of Bedrock's",
            )
        operation = rest[0].strip("/").partition("/")[0]
        return _asked("bedrock", operation, _Operation(), path=rest[0])
    known = _BEDROCK.get(operation) or _invoke(operation, body)
    return _asked("bedrock", operation, known, model=model, path=request.path)


def _invoke(operation: str, body: _Body) -> _Operation:
    """InvokeModel takes whatever the model takes; some of that is known here."""
    if operation not in ("invoke", "invoke-with-response-stream"):
        return _Operation()
    streamed = operation != "invoke"
    if "anthropic_version" in body and "messages" in body:
        return _Operation(_CHAT, bedrock.ANTHROPIC, stream=streamed)
    if "inputText" in body and "textGenerationConfig" not in body and not streamed:
        return _Operation(openai.EMBEDDINGS, bedrock.TITAN_EMBED)
    return _Operation()


def _of_path(request: ClientRequest, pattern: re.Pattern[str]) -> tuple[str, str]:
    """Model and operation, both decoded; what the route's named captures say where the path says
    nothing."""
    found = pattern.search(request.path)
    captures = request.captures
    model = found["model"] if found else captures.get("model", "")
    operation = found["operation"] if found else captures.get("operation", "")
    return _decoded(model), _decoded(operation)


def _decoded(text: str) -> str:
    return unquote(text, errors="surrogateescape")


def _asked(client: str, operation: str, known: _Operation, *, path: str, model: str = "") -> Asked:
    native = Native(client, operation, model, no_dot_segments(path))
    stream = known.stream
    if stream is None and "stream" in operation.lower():  # retrieveAndGenerateStream, ...
        stream = True
    return Asked(known.route_type, client, known.codec, native, model, stream)


def _v1(path: str) -> str:
    return path if path.startswith("/v1/") else f"/v1{path}"


_NATIVE: Mapping[str, Callable[[ClientRequest, _Body], Asked]] = {
    "anthropic": _anthropic,
    "bedrock": _bedrock,
    "cohere": _cohere,
    "gemini": _gemini,
    "huggingface": _huggingface,
}
