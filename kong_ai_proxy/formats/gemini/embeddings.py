"""Google's embeddings: embedContent and batchEmbedContents of the Gemini API
(https://ai.google.dev/api/embeddings), the same of Vertex AI, which has its settings one level
deeper, and Vertex AI's predict
(https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/text-embeddings-api).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from kong_ai_proxy.formats.codec import Context
from kong_ai_proxy.formats.conversation import Rendered
from kong_ai_proxy.formats.embeddings import EmbeddingsAnswer, EmbeddingsRequest
from kong_ai_proxy.formats.errors import FormatError, ProviderError
from kong_ai_proxy.formats.fields import (
    an_array,
    an_object,
    object_of,
    objects,
    text_of,
    wrong,
)
from kong_ai_proxy.formats.gemini import errors as gemini_errors
from kong_ai_proxy.formats.gemini.models import short_name
from kong_ai_proxy.formats.gemini.names import camel, camelized, message, repeated
from kong_ai_proxy.formats.gemini.usage import usage
from kong_ai_proxy.formats.usage import MAX_COUNT, Usage

_Json = dict[str, object]

_INPUT_TYPES = {
    "RETRIEVAL_QUERY": "search_query",
    "RETRIEVAL_DOCUMENT": "search_document",
    "CLASSIFICATION": "classification",
    "CLUSTERING": "clustering",
}
_TASK_TYPES = {ours: theirs for theirs, ours in _INPUT_TYPES.items()}
_OWN = ("taskType", "title", "autoTruncate", "documentOcr", "audioTrackExtraction")
"""Settings that no other format has; of `taskType` the values that none has."""
_CONFIG = "embedContentConfig"
_DIMENSIONS = "outputDimensionality"
_TASK = "taskType"


def _request(asked: _Json, settings: _Json, model: str, inputs: list[str]) -> EmbeddingsRequest:
    dimensions = settings.pop(_DIMENSIONS, None)
    if dimensions is not None and type(dimensions) is not int:
        wrong(_DIMENSIONS, "a whole number")
    task = str(settings.get(_TASK) or "").upper()
    if task in _INPUT_TYPES or task in ("", "TASK_TYPE_UNSPECIFIED"):
        settings.pop(_TASK, None)
    named = text_of(asked, "model").rpartition("models/")[2]
    return EmbeddingsRequest(
        inputs=tuple(inputs),
        model=model or named,
        dimensions=dimensions,
        input_type=_INPUT_TYPES.get(task, ""),
        settings=settings,
    )


def _asked(value: object, where: str) -> tuple[_Json, str, _Json]:
    """One request for one vector: itself, its text and its settings."""
    asked = message(value, where)
    content = message(asked.pop("content", None), f"{where}.content")
    texts = []
    for index, part in enumerate(repeated(content.get("parts"), f"{where}.content.parts")):
        place = f"{where}.content.parts[{index}]"
        text = an_object(part, place).get("text")
        if not isinstance(text, str):
            raise FormatError(f"{place}: expected text: nothing else can be carried over")
        texts.append(text)
    if not texts:
        wrong(f"{where}.content", "at least one part with a text")
    own = {name: each for name, each in asked.items() if name not in (_CONFIG, "model")}
    return asked, "\n".join(texts), {**message(asked.get(_CONFIG), f"{where}.{_CONFIG}"), **own}


def _said(request: EmbeddingsRequest) -> tuple[_Json, tuple[str, ...]]:
    """The settings in Google's names, and the names of those that it does not have."""
    if not request.inputs:
        raise FormatError("input: expected texts: Gemini's models do not read token numbers")
    own = {camel(name): value for name, value in request.settings.items() if camel(name) in _OWN}
    dropped = [name for name in request.settings if camel(name) not in _OWN]
    if request.input_type in _TASK_TYPES:
        own[_TASK] = _TASK_TYPES[request.input_type]
    elif request.input_type:
        dropped.append("input_type")
    if request.dimensions is not None:
        own[_DIMENSIONS] = request.dimensions
    return own, tuple(dropped)


class _Embed:
    """embedContent and batchEmbedContents."""

    def __init__(self, name: str, many: bool, dialect: Literal["gemini", "vertex"]) -> None:
        self.name = name
        self._many = many
        self._dialect = dialect

    def parse_request(self, body: Mapping[str, object], *, model: str = "") -> EmbeddingsRequest:
        """A client's request. Raises FormatError, also where texts of one request are to be
        embedded in several ways: no other format has that."""
        if not self._many:
            asked, text, settings = _asked(body, "request")
            found = _request(asked, settings, model, [text])
            return replace(found, is_array=False)
        asks = [_asked(each, where) for where, each in objects(body.get("requests"), "requests")]
        if not asks:
            wrong("requests", "at least one request")
        first, _, settings = asks[0]
        for index, (_, _, others) in enumerate(asks):
            if others != settings:
                wrong(f"requests[{index}]", "the same settings as in requests[0]")
        return _request(first, dict(settings), model, [text for _, text, _ in asks])

    def render_request(self, request: EmbeddingsRequest) -> Rendered:
        """A provider's request; members of `extra_body` go into each of its parts."""
        own, dropped = _said(request)
        if self._dialect == "vertex" and own:
            own = {_CONFIG: own}
        if self._dialect == "gemini" and request.model and self._many:
            name = request.model
            own = {"model": name if "/" in name else f"models/{name}", **own}
        extra = camelized(request.extra)
        asks = [{"content": {"parts": [{"text": text}]}, **own, **extra} for text in request.inputs]
        if self._many:
            return Rendered({"requests": asks}, dropped)
        if len(asks) > 1:
            raise FormatError("input: embedContent takes one text a request")
        return Rendered(asks[0], dropped)

    def parse_answer(self, value: object) -> EmbeddingsAnswer:
        """A provider's answer. Raises FormatError where it is none."""
        answer = an_object(value, "the answer")
        rows = answer.get("embeddings")
        if rows is None and "embedding" in answer:
            rows = [answer["embedding"]]
        if rows is None:
            wrong("embeddings", "an array")
        return EmbeddingsAnswer(
            vectors=tuple(
                an_array(row.get("values"), f"{where}.values")  # type: ignore[misc]
                for where, row in objects(rows, "embeddings")
            ),
            usage=_metered(object_of(answer, "usageMetadata")),
        )

    def render_answer(
        self, answer: EmbeddingsAnswer, request: EmbeddingsRequest, context: Context
    ) -> object:
        """An answer for a client."""
        rows = [{"values": vector} for vector in answer.vectors]
        found: _Json = {"embeddings": rows} if self._many else {"embedding": (rows or [{}])[0]}
        if answer.usage:
            found["usageMetadata"] = {"promptTokenCount": answer.usage.prompt_tokens}
        return found

    def parse_error(self, status: int, body: bytes) -> ProviderError:
        """A provider's error of any content."""
        return gemini_errors.parse_error(status, body)

    def render_error(self, error: ProviderError) -> object:
        """An error for a client."""
        return gemini_errors.render_error(error)


def _metered(counts: Mapping[str, object]) -> Usage | None:
    return usage(counts) if counts else None


class _Predict:
    """predict, of a provider."""

    name = "vertex/embeddings"

    def render_request(self, request: EmbeddingsRequest) -> Rendered:
        """A provider's request. Raises FormatError, for several texts for a model that takes one
        a request too."""
        own, dropped = _said(request)
        if len(request.inputs) > 1 and short_name(request.model).startswith("gemini-embedding"):
            raise FormatError(f"input: {request.model} on Vertex AI takes one text a request")
        about: _Json = {}
        if _TASK in own:
            about["task_type"] = own.pop(_TASK)
        if "title" in own:
            about["title"] = own.pop("title")
        body: _Json = {"instances": [{"content": text, **about} for text in request.inputs]}
        extra = camelized(request.extra)
        parameters = {**own, **object_of(extra, "parameters")}
        if parameters:
            extra["parameters"] = parameters
        return Rendered({**body, **extra}, dropped)

    def parse_answer(self, value: object) -> EmbeddingsAnswer:
        """A provider's answer. Raises FormatError where it is none."""
        vectors = []
        tokens = 0
        answer = an_object(value, "the answer")
        if "predictions" not in answer:
            wrong("predictions", "an array")
        for where, row in objects(answer["predictions"], "predictions"):
            embeddings = object_of(row, "embeddings")
            vectors.append(an_array(embeddings.get("values"), f"{where}.embeddings.values"))
            count = object_of(embeddings, "statistics").get("token_count")
            if isinstance(count, int | float) and 0 <= count <= MAX_COUNT:
                tokens += int(count)
        used = Usage(prompt_tokens=tokens, total_tokens=tokens) if tokens else None
        return EmbeddingsAnswer(vectors=tuple(vectors), usage=used)  # type: ignore[arg-type]

    def parse_error(self, status: int, body: bytes) -> ProviderError:
        """A provider's error of any content."""
        return gemini_errors.parse_error(status, body)


EMBED = _Embed("gemini/embed", many=True, dialect="gemini")
EMBED_ONE = _Embed("gemini/embed-one", many=False, dialect="gemini")
VERTEX_EMBED = _Embed("vertex/embed", many=True, dialect="vertex")
PREDICT = _Predict()
