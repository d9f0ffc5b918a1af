"""OpenAI's embeddings: https://platform.openai.com/docs/api-reference/embeddings."""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Mapping, Sequence

from kong_ai_proxy.formats import openai
from kong_ai_proxy.formats.codec import Context, EmbeddingsCodec
from kong_ai_proxy.formats.conversation import Rendered, with_extra
from kong_ai_proxy.formats.embeddings import EmbeddingsAnswer, EmbeddingsRequest
from kong_ai_proxy.formats.errors import FormatError, ProviderError
from kong_ai_proxy.formats.fields import a_text, an_object, objects, text_of, wrong
from kong_ai_proxy.formats.openai import errors as openai_errors
from kong_ai_proxy.formats.openai.answers import number_of
from kong_ai_proxy.formats.openai.usage import usage

_FLOAT = 4
_INPUT = "a non-empty string, or a non-empty array of strings or of token numbers"


class _Embeddings:
    """See EmbeddingsCodec."""

    name = "openai/embeddings"

    def parse_request(self, body: Mapping[str, object], *, model: str = "") -> EmbeddingsRequest:
        said = {name: value for name, value in body.items() if value is not None}
        inputs, tokens, is_array = _input(said.pop("input", None))
        encoding = said.pop("encoding_format", "float")
        if encoding not in ("float", "base64"):
            wrong("encoding_format", "float or base64")
        dimensions = said.pop("dimensions", None)
        if dimensions is not None and type(dimensions) is not int:
            wrong("dimensions", "a whole number")
        named = openai.requested_model({"model": said.pop("model", None)}) or ""
        return EmbeddingsRequest(
            inputs=inputs,
            tokens=tokens,
            is_array=is_array,
            model=model or named,
            dimensions=dimensions,
            # Not OpenAI's own; servers of this format for models that need it know it.
            input_type=a_text(said.pop("input_type", ""), "input_type"),
            base64=encoding == "base64",
            extra=an_object(said.pop("extra_body", {}), "extra_body"),
            settings=said,
        )

    def render_request(self, request: EmbeddingsRequest) -> Rendered:
        body: dict[str, object] = {"model": request.model} if request.model else {}
        texts: list[object] = [*request.inputs] or [list(each) for each in request.tokens]
        if not texts:
            wrong("input", _INPUT)
        body["input"] = texts if request.is_array or len(texts) != 1 else texts[0]
        if request.dimensions is not None:
            body["dimensions"] = request.dimensions
        dropped = [name for name in request.settings if name != "user"]
        if "user" in request.settings:
            body["user"] = request.settings["user"]
        if request.input_type:
            dropped.append("input_type")
        return Rendered(with_extra(body, request.extra), tuple(dropped))

    def parse_answer(self, value: object) -> EmbeddingsAnswer:
        if not isinstance(value, dict) or not isinstance(value.get("data"), list):
            raise FormatError("'data' not in llm/v1/embeddings response")
        rows = list(objects(value["data"], "data"))
        rows.sort(key=lambda row: number_of(row[1].get("index")))
        return EmbeddingsAnswer(
            vectors=tuple(
                _vector(row.get("embedding"), f"{where}.embedding") for where, row in rows
            ),
            model=text_of(value, "model"),
            id=text_of(value, "id"),
            usage=usage(value.get("usage")),
        )

    def render_answer(
        self, answer: EmbeddingsAnswer, request: EmbeddingsRequest, context: Context
    ) -> object:
        used = answer.usage
        data = [
            {
                "object": "embedding",
                "index": index,
                "embedding": _packed(vector) if request.base64 else vector,
            }
            for index, vector in enumerate(answer.vectors)
        ]
        return {
            "object": "list",
            "data": data,
            "model": answer.model or context.model,
            "usage": {
                "prompt_tokens": used.prompt_tokens if used else 0,
                "total_tokens": used.total_tokens if used else 0,
            },
        }

    def parse_error(self, status: int, body: bytes) -> ProviderError:
        return openai_errors.parse_error(status, body)

    def render_error(self, error: ProviderError) -> object:
        return openai_errors.render_error(error)


EMBEDDINGS: EmbeddingsCodec = _Embeddings()

_Tokens = tuple[tuple[int, ...], ...]


def _input(value: object) -> tuple[tuple[str, ...], _Tokens, bool]:
    """The texts, or the texts as token numbers, and whether they came as an array of texts."""
    if isinstance(value, str) and value:
        return (value,), (), False
    if not isinstance(value, list) or not value:
        wrong("input", _INPUT)
    if any(isinstance(each, str) for each in value):
        return tuple(a_text(each, "input") for each in value), (), True
    if _are_numbers(value):
        return (), (tuple(value),), False
    if not all(isinstance(each, list) and each and _are_numbers(each) for each in value):
        wrong("input", _INPUT)
    return (), tuple(tuple(each) for each in value), True


def _are_numbers(values: list[object]) -> bool:
    return all(type(each) is int for each in values)


def _vector(value: object, where: str) -> Sequence[float]:
    if isinstance(value, list):
        return value
    packed = a_text(value, where)
    try:
        data = base64.b64decode(packed, validate=True)
    except binascii.Error:
        wrong(where, "an array of numbers, or base64")
    if len(data) % _FLOAT:
        wrong(where, "base64 of floats of four bytes each")
    return struct.unpack(f"<{len(data) // _FLOAT}f", data)


def _packed(vector: Sequence[float]) -> str:
    """Little-endian floats of 32 bits in base64."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
