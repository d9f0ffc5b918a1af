"""OpenAI's wire format, as far as a request that stays in it needs: which operations a route type
has, which one a body asks for, and the few fields that a gateway may have to change.

Operations and field names: https://platform.openai.com/docs/api-reference.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from kong_ai_proxy.formats.errors import FormatError

CHAT = "llm/v1/chat"
COMPLETIONS = "llm/v1/completions"
EMBEDDINGS = "llm/v1/embeddings"
FILES = "llm/v1/files"
BATCHES = "llm/v1/batches"
ASSISTANTS = "llm/v1/assistants"
RESPONSES = "llm/v1/responses"
SPEECH = "audio/v1/audio/speech"
TRANSCRIPTIONS = "audio/v1/audio/transcriptions"
TRANSLATIONS = "audio/v1/audio/translations"
IMAGE_GENERATIONS = "image/v1/images/generations"
IMAGE_EDITS = "image/v1/images/edits"
VIDEOS = "video/v1/videos/generations"
REALTIME = "realtime/v1/realtime"
PRESERVE = "preserve"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """What requests of one route type look like."""

    json: bool = False
    """A JSON object is a possible body."""
    form: bool = False
    """multipart/form-data is a possible body."""
    any_body: bool = False
    """Any body is possible, of which nothing is known."""
    collections: tuple[str, ...] = ()
    """For create, read, update and delete: the path segments after which ids come, the one at which
    the route type's own objects are made first. Method and rest of the path go on to the
    provider."""
    model: bool = True
    """A request that creates something names a model."""
    websocket: bool = False

    @property
    def always_read(self) -> bool:
        """Whether the body is looked at even where no rule asks for it."""
        return self.json and not self.form and not self.collections


OPERATIONS: Mapping[str, Operation] = {
    CHAT: Operation(json=True),
    COMPLETIONS: Operation(json=True),
    EMBEDDINGS: Operation(json=True),
    SPEECH: Operation(json=True),
    IMAGE_GENERATIONS: Operation(json=True),
    IMAGE_EDITS: Operation(json=True, form=True),
    TRANSCRIPTIONS: Operation(form=True),
    TRANSLATIONS: Operation(form=True),
    RESPONSES: Operation(json=True, collections=("responses",)),
    FILES: Operation(form=True, collections=("files",), model=False),
    BATCHES: Operation(json=True, collections=("batches",), model=False),
    ASSISTANTS: Operation(json=True, collections=("assistants", "threads", "vector_stores")),
    VIDEOS: Operation(json=True, form=True, collections=("videos",)),
    REALTIME: Operation(websocket=True),
    PRESERVE: Operation(any_body=True),
}

TEXT_ROUTE_TYPES = frozenset({CHAT, COMPLETIONS, RESPONSES})
"""Route types that generate text: they stream and take sampling parameters."""

NEED_MODEL = frozenset({CHAT, COMPLETIONS, EMBEDDINGS})
"""Route types whose every request needs a model, the client's or the configured one."""

ASSISTANTS_BETA = "assistants=v2"
"""The value of the header `OpenAI-Beta` without which OpenAI refuses the Assistants API."""


def check_shape(body: Mapping[str, object], route_type: str) -> None:
    """Raise FormatError unless `body` is a request of `route_type`, with Kong's texts.

    Route types without a text of Kong's are left to the provider.
    """
    if route_type not in _EXPECTED:
        return
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
        "max_output_tokens",
        "max_tokens",
        "messages",
        "model",
        "prompt",
        "stream",
        "stream_options",
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
        folded = name.casefold().strip(" \t\r\n\0")
        meant = folded if folded in _READ else meant_by.get(folded)
        if meant is not None and name != meant:
            raise FormatError(f"unknown member {name!r}, did you mean {meant!r}?")


def wants_stream(body: Mapping[str, object]) -> bool:
    """Whether the client asked for a streamed answer."""
    return bool(body.get("stream"))


def wants_usage(body: Mapping[str, object]) -> bool:
    """Whether the client asked for the usage at the end of its stream."""
    options = body.get("stream_options")
    return isinstance(options, dict) and options.get("include_usage") is True


def session_without_model(query: Mapping[str, object]) -> bool:
    """Whether the URL of a realtime session has no model, as its `query` says: one that only
    transcribes, or a call that is joined, names it elsewhere
    (https://platform.openai.com/docs/guides/realtime-transcription, .../realtime-sip)."""
    intent = query.get("intent")
    return "call_id" in query or (isinstance(intent, str) and intent.lower() == "transcription")


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
