"""Embeddings of models behind Bedrock's InvokeModel: Titan, Nova, Cohere, each in its own format.

https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-titan-embed-text.html,
https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-titan-embed-mm.html,
https://docs.aws.amazon.com/nova/latest/userguide/embeddings-schema.html,
https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-embed.html
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kong_ai_proxy.formats.bedrock import errors as bedrock_errors
from kong_ai_proxy.formats.codec import Context, EmbeddingsCodec, EmbeddingsProvider
from kong_ai_proxy.formats.cohere.embed import EMBED
from kong_ai_proxy.formats.conversation import Rendered, with_extra
from kong_ai_proxy.formats.embeddings import EmbeddingsAnswer, EmbeddingsRequest
from kong_ai_proxy.formats.errors import FormatError, ProviderError
from kong_ai_proxy.formats.fields import a_text, an_array, an_object, object_of, objects, wrong
from kong_ai_proxy.formats.usage import MAX_COUNT, Usage

Json = Mapping[str, object]


class _Errors:
    """What all formats of Bedrock share."""

    def parse_error(self, status: int, body: bytes) -> ProviderError:
        return bedrock_errors.parse(status, body)

    def render_error(self, error: ProviderError) -> object:
        return bedrock_errors.render(error)


class _Titan(_Errors):
    name = "bedrock/titan-embed"

    def parse_request(self, body: Json, *, model: str = "") -> EmbeddingsRequest:
        said = {name: value for name, value in body.items() if value is not None}
        text = a_text(said.pop("inputText", None), "inputText")
        if said.pop("embeddingTypes", ["float"]) != ["float"]:
            wrong("embeddingTypes", '["float"], which is what other providers make')
        if "inputImage" in said:
            wrong("inputImage", "no image: other providers embed texts")
        dimensions = said.pop("dimensions", None)
        size = object_of(said, "embeddingConfig").get("outputEmbeddingLength")
        if size is not None:
            said.pop("embeddingConfig")
            dimensions = size
        if dimensions is not None and type(dimensions) is not int:
            wrong("dimensions", "a whole number")
        return EmbeddingsRequest(
            inputs=(text,), is_array=False, model=model, dimensions=dimensions, settings=said
        )

    def render_request(self, request: EmbeddingsRequest) -> Rendered:
        body: dict[str, object] = {"inputText": _one_text(request, "Titan")}
        settings = dict(request.settings)
        dropped = ["input_type"] if request.input_type else []
        if "titan-embed-image" in request.model:
            if request.dimensions is not None:
                body["embeddingConfig"] = {"outputEmbeddingLength": request.dimensions}
        elif "titan-embed-text-v1" in request.model:
            dropped += ["dimensions"] if request.dimensions is not None else []
        else:
            body |= {"dimensions": request.dimensions} if request.dimensions is not None else {}
            body |= {"normalize": settings.pop("normalize")} if "normalize" in settings else {}
        return Rendered(with_extra(body, request.extra), (*dropped, *settings))

    def parse_answer(self, value: object) -> EmbeddingsAnswer:
        answer = an_object(value, "answer")
        if answer.get("embedding") is None and isinstance(answer.get("message"), str):
            raise FormatError(str(answer["message"]))
        vector = _vector(answer.get("embedding"), "answer.embedding")
        return EmbeddingsAnswer(vectors=(vector,), usage=_usage(answer.get("inputTextTokenCount")))

    def render_answer(
        self, answer: EmbeddingsAnswer, request: EmbeddingsRequest, context: Context
    ) -> object:
        vector = answer.vectors[0] if answer.vectors else []
        return {
            "embedding": vector,
            "inputTextTokenCount": answer.usage.prompt_tokens if answer.usage else 0,
            "embeddingsByType": {"float": vector},
        }


class _Nova(_Errors):
    name = "bedrock/nova-embed"

    def render_request(self, request: EmbeddingsRequest) -> Rendered:
        text = {"truncationMode": "NONE", "value": _one_text(request, "Nova")}
        purpose = _PURPOSES.get(request.input_type, "GENERIC_INDEX")
        asked: dict[str, object] = {"embeddingPurpose": purpose, "text": text}
        if request.dimensions is not None:
            asked["embeddingDimension"] = request.dimensions
        body = {"taskType": "SINGLE_EMBEDDING", "singleEmbeddingParams": asked}
        return Rendered(with_extra(body, request.extra), tuple(request.settings))

    def parse_answer(self, value: object) -> EmbeddingsAnswer:
        answer = an_object(value, "answer")
        found = objects(answer.get("embeddings"), "answer.embeddings")
        vectors = tuple(
            _vector(each.get("embedding"), f"{where}.embedding") for where, each in found
        )
        if not vectors:
            wrong("answer.embeddings", "at least one vector")
        return EmbeddingsAnswer(vectors=vectors)


class _Cohere(_Errors):
    """Cohere's own format but for the model, which the path says, and errors."""

    name = "bedrock/cohere-embed"

    def render_request(self, request: EmbeddingsRequest) -> Rendered:
        body, dropped = EMBED.render_request(request)
        return Rendered({name: value for name, value in body.items() if name != "model"}, dropped)

    def parse_answer(self, value: object) -> EmbeddingsAnswer:
        return EMBED.parse_answer(value)


class _Any(_Errors):
    """Whichever of these: for the files of batches, which do not tell the model."""

    name = "bedrock/embed"

    def render_request(self, request: EmbeddingsRequest) -> Rendered:
        if "cohere.embed" in request.model:
            return COHERE_EMBED.render_request(request)
        codec = NOVA_EMBED if "amazon.nova" in request.model else TITAN_EMBED
        return codec.render_request(request)

    def parse_answer(self, value: object) -> EmbeddingsAnswer:
        found = an_object(value, "answer").get("embeddings")
        if found is None:
            return TITAN_EMBED.parse_answer(value)
        is_nova = isinstance(found, list) and found and isinstance(found[0], dict)
        return (NOVA_EMBED if is_nova else COHERE_EMBED).parse_answer(value)


_PURPOSES = {
    "search_document": "GENERIC_INDEX",
    "search_query": "GENERIC_RETRIEVAL",
    "classification": "CLASSIFICATION",
    "clustering": "CLUSTERING",
}

TITAN_EMBED: EmbeddingsCodec = _Titan()
NOVA_EMBED: EmbeddingsProvider = _Nova()
COHERE_EMBED: EmbeddingsProvider = _Cohere()
ANY_EMBED: EmbeddingsProvider = _Any()


def _one_text(request: EmbeddingsRequest, model: str) -> str:
    if request.tokens:
        wrong("input", f"a text: {model} takes no token numbers")
    if len(request.inputs) != 1:
        wrong("input", f"one text: {model} embeds one in a request, got {len(request.inputs)}")
    return request.inputs[0]


def _vector(value: object, where: str) -> Sequence[float]:
    """A vector as it came; its numbers are not looked at one by one."""
    return an_array(value, where)  # type: ignore[return-value]


def _usage(count: object) -> Usage | None:
    if type(count) is not int or not 0 <= count <= MAX_COUNT:
        return None
    return Usage(prompt_tokens=count, total_tokens=count)
