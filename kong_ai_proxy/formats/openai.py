"""OpenAI's wire format, as far as a request that stays in it needs: which operation a body asks
for, and the few fields that a gateway may have to change.

Field names: https://platform.openai.com/docs/api-reference (chat, completions, embeddings).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

CHAT = "llm/v1/chat"
COMPLETIONS = "llm/v1/completions"
EMBEDDINGS = "llm/v1/embeddings"
PRESERVE = "preserve"

JSON_ROUTE_TYPES = frozenset({CHAT, COMPLETIONS, EMBEDDINGS})
"""Route types whose request is one JSON object that is read."""

TEXT_ROUTE_TYPES = frozenset({CHAT, COMPLETIONS})
"""Route types that generate text: they stream and take sampling parameters."""


class FormatError(ValueError):
    """The body does not ask for what the route type offers. The text is for the client."""


def check_shape(body: Mapping[str, object], route_type: str) -> None:
    """Raise FormatError unless `body` is a request of `route_type`, with Kong's texts."""
    found = _shapes(body)
    if CHAT in found and COMPLETIONS in found:
        raise FormatError("request matches multiple LLM request formats")
    if not found:
        raise FormatError(
            f"request body doesn't contain valid prompts: {_EXPECTED[route_type]}, "
            f"for route type {route_type}"
        )
    if route_type not in found:
        raise FormatError(
            f"[{found[0]}] message format is not compatible with [{route_type}] route type"
        )


_EXPECTED = {
    CHAT: "expected a non-empty array 'messages'",
    COMPLETIONS: "expected 'prompt', a string or a non-empty array",
    EMBEDDINGS: "expected 'input', a non-empty string or array",
}


def _shapes(body: Mapping[str, object]) -> list[str]:
    found = []
    if isinstance(body.get("messages"), list) and body["messages"]:
        found.append(CHAT)
    if _is_text_or_array(body.get("prompt")):
        found.append(COMPLETIONS)
    if _is_text_or_array(body.get("input")):
        found.append(EMBEDDINGS)
    return found


def _is_text_or_array(value: object) -> bool:
    return isinstance(value, (str, list)) and bool(value)


_READ = frozenset(
    {
        "dimensions",
        "input",
        "max_completion_tokens",
        "max_tokens",
        "messages",
        "model",
        "prompt",
        "stream",
        "temperature",
        "top_k",
        "top_p",
    }
)


def check_names(body: Mapping[str, object], also: Collection[str] = ()) -> None:
    """Raise FormatError for a member that only differs in case from one that is looked at here.

    Some servers read `Model` as `model` (Go's encoding/json does), which would get past a rule.
    """
    meant_by = {name.casefold(): name for name in also}
    for name in body:
        folded = name.casefold()
        meant = folded if folded in _READ else meant_by.get(folded)
        if meant is not None and name != meant:
            raise FormatError(f"unknown member {name!r}, did you mean {meant!r}?")


def wants_stream(body: Mapping[str, object]) -> bool:
    """Whether the client asked for a streamed answer."""
    return bool(body.get("stream"))


def requested_model(body: Mapping[str, object]) -> str | None:
    """The model that the client named; None for none, null or "".

    Raises FormatError for a model that is not a string.
    """
    model = body.get("model")
    if model is None or model == "":
        return None
    if not isinstance(model, str):
        raise FormatError("expected 'model' to be a string")
    return model
