"""Cohere's embeddings, API v2: https://docs.cohere.com/reference/embed."""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping, Sequence

from kong_ai_proxy.formats.codec import Context, EmbeddingsCodec
from kong_ai_proxy.formats.cohere.common import (
    error_of,
    parse_error,
    render_error,
    settings_from,
    usage_of,
)
from kong_ai_proxy.formats.conversation import Rendered
from kong_ai_proxy.formats.embeddings import EmbeddingsAnswer, EmbeddingsRequest
from kong_ai_proxy.formats.errors import FormatError, ProviderError
from kong_ai_proxy.formats.fields import (
    a_text,
    an_array,
    an_object,
    object_of,
    objects,
    text_of,
    wrong,
)

_MAX_TEXTS = 96
"""Of one request."""

_KNOWN = frozenset(
    {
        "embedding_types",
        "extra_body",
        "input_type",
        "inputs",
        "model",
        "output_dimension",
        "texts",
    }
)
_TAKEN = frozenset({"max_tokens", "priority", "truncate"})
_INPUT_TYPE = "input_type"


class _Embed:
    name = "cohere/embed"

    def parse_request(self, body: Mapping[str, object], *, model: str = "") -> EmbeddingsRequest:
        dimensions = body.get("output_dimension")
        if dimensions is not None and type(dimensions) is not int:
            wrong("output_dimension", "a whole number")
        return EmbeddingsRequest(
            inputs=tuple(_texts(body)),
            model=text_of(body, "model") or model,
            dimensions=dimensions,
            input_type=text_of(body, _INPUT_TYPE),
            base64=_wants_base64(body.get("embedding_types")),
            settings=settings_from(body, _KNOWN, {}),
            extra=object_of(body, "extra_body"),
        )

    def render_request(self, request: EmbeddingsRequest) -> Rendered:
        if request.tokens:
            wrong("input", "texts: Cohere takes no token numbers")
        if len(request.inputs) > _MAX_TEXTS:
            wrong("input", f"at most {_MAX_TEXTS} texts, which is what Cohere takes at once")
        body: dict[str, object] = {"model": request.model} if request.model else {}
        body["texts"] = list(request.inputs)
        settings = dict(request.settings)
        if input_type := request.input_type or settings.pop(_INPUT_TYPE, ""):
            body[_INPUT_TYPE] = input_type
        body["embedding_types"] = ["float"]
        if request.dimensions is not None:
            body["output_dimension"] = request.dimensions
        body |= {name: value for name, value in settings.items() if name in _TAKEN}
        body |= request.extra
        return Rendered(body, tuple(name for name in settings if name not in _TAKEN))

    def parse_answer(self, value: object) -> EmbeddingsAnswer:
        answer = an_object(value, "answer")
        embeddings = answer.get("embeddings")
        if embeddings is None and (error := error_of(answer)):
            raise FormatError(error.message)
        if isinstance(embeddings, dict):
            embeddings = embeddings.get("float")
        vectors = an_array(embeddings, "answer.embeddings.float")
        return EmbeddingsAnswer(
            vectors=tuple(
                an_array(vector, f"answer.embeddings.float[{index}]")  # type: ignore[misc]
                for index, vector in enumerate(vectors)
            ),
            id=text_of(answer, "id"),
            usage=usage_of(object_of(answer, "meta")),
        )

    def render_answer(
        self, answer: EmbeddingsAnswer, request: EmbeddingsRequest, context: Context
    ) -> object:
        vectors: list[object] = list(answer.vectors)
        if request.base64:
            vectors = [_base64(vector) for vector in answer.vectors]
        meta: dict[str, object] = {"api_version": {"version": "2"}}
        if answer.usage:
            meta["billed_units"] = {"input_tokens": answer.usage.prompt_tokens}
        return {
            "id": answer.id or context.id,
            "embeddings": {"base64" if request.base64 else "float": vectors},
            "texts": list(request.inputs),
            "meta": meta,
            "response_type": "embeddings_by_type",
        }

    def parse_error(self, status: int, body: bytes) -> ProviderError:
        return parse_error(status, body)

    def render_error(self, error: ProviderError) -> object:
        return render_error(error)


def _texts(body: Mapping[str, object]) -> list[str]:
    """`texts`, or `inputs` of which each is one text."""
    if body.get("images") is not None:
        wrong("images", "texts: images are only embedded by Cohere itself")
    if body.get("inputs") is None:
        return [a_text(each, "texts") for each in an_array(body.get("texts"), "texts")]
    found = []
    for place, each in objects(body["inputs"], "inputs"):
        content = [block for _, block in objects(each.get("content"), f"{place}.content")]
        if len(content) != 1 or content[0].get("type") != "text":
            wrong(f"{place}.content", "one text: images are only embedded by Cohere itself")
        found.append(a_text(content[0].get("text"), f"{place}.content[0].text"))
    return found


def _wants_base64(types: object) -> bool:
    if types is None or types == ["float"]:
        return False
    if types != ["base64"]:
        wrong("embedding_types", '["float"] or ["base64"], which is what other providers make')
    return True


def _base64(vector: Sequence[float]) -> str:
    """Little-endian floats of 32 bits."""
    try:
        floats = struct.pack(f"<{len(vector)}f", *vector)
    except (struct.error, OverflowError):
        raise FormatError("the provider's vectors are not made of numbers") from None
    return base64.b64encode(floats).decode()


EMBED: EmbeddingsCodec = _Embed()
