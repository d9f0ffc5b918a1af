"""Hugging Face's feature extraction.

https://huggingface.co/docs/inference-providers/tasks/feature-extraction. `dimensions` stands in the
reference of the server behind it (https://huggingface.github.io/text-embeddings-inference/) only.
"""

from __future__ import annotations

from collections.abc import Mapping

from kong_ai_proxy.formats.codec import Context, EmbeddingsCodec
from kong_ai_proxy.formats.conversation import Rendered
from kong_ai_proxy.formats.embeddings import EmbeddingsAnswer, EmbeddingsRequest
from kong_ai_proxy.formats.errors import FormatError, ProviderError
from kong_ai_proxy.formats.fields import a_text, an_array, object_of, text_of, wrong
from kong_ai_proxy.formats.huggingface.common import error_of, parse_error, render_error

_KNOWN = frozenset({"dimensions", "extra_body", "inputs", "model"})
_TAKEN = frozenset({"normalize", "prompt_name", "truncate", "truncation_direction"})


class _Embed:
    name = "huggingface/embed"

    def parse_request(self, body: Mapping[str, object], *, model: str = "") -> EmbeddingsRequest:
        inputs = body.get("inputs")
        dimensions = body.get("dimensions")
        if dimensions is not None and type(dimensions) is not int:
            wrong("dimensions", "a whole number")
        texts = [inputs] if isinstance(inputs, str) else an_array(inputs, "inputs")
        known = body.keys() - _KNOWN
        return EmbeddingsRequest(
            inputs=tuple(a_text(each, f"inputs[{index}]") for index, each in enumerate(texts)),
            is_array=not isinstance(inputs, str),
            model=text_of(body, "model") or model,
            dimensions=dimensions,
            settings={name: body[name] for name in known if body[name] is not None},
            extra=object_of(body, "extra_body"),
        )

    def render_request(self, request: EmbeddingsRequest) -> Rendered:
        if request.tokens:
            wrong("input", "texts: Hugging Face takes no token numbers")
        dropped = [name for name in request.settings if name not in _TAKEN]
        if request.input_type:
            dropped.append("input_type")
        body: dict[str, object] = {"inputs": list(request.inputs)}
        if request.dimensions is not None:
            body["dimensions"] = request.dimensions
        body |= {name: value for name, value in request.settings.items() if name in _TAKEN}
        body |= request.extra
        return Rendered(body, tuple(dropped))

    def parse_answer(self, value: object) -> EmbeddingsAnswer:
        if error := error_of(value):
            raise FormatError(error.message)
        found = an_array(value, "answer")
        if found and not isinstance(found[0], list):
            found = [found]
        for index, vector in enumerate(found):
            numbers = an_array(vector, f"answer[{index}]")
            if numbers and isinstance(numbers[0], list):
                raise FormatError(
                    f"answer[{index}]: this model gives a vector for each token, not for a text: "
                    "choose a model for sentence embeddings"
                )
            if not numbers or isinstance(numbers[0], bool | str | dict) or numbers[0] is None:
                wrong(f"answer[{index}]", "an array of numbers")
        return EmbeddingsAnswer(vectors=tuple(found))  # type: ignore[arg-type]

    def render_answer(
        self, answer: EmbeddingsAnswer, request: EmbeddingsRequest, context: Context
    ) -> object:
        return list(answer.vectors)

    def parse_error(self, status: int, body: bytes) -> ProviderError:
        return parse_error(status, body)

    def render_error(self, error: ProviderError) -> object:
        return render_error(error)


EMBED: EmbeddingsCodec = _Embed()
