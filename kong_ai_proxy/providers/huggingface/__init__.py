"""Hugging Face: its router (https://huggingface.co/docs/inference-providers), or a server of
text-generation-inference that the operator runs, behind `upstream_url`.

The older Inference API at api-inference.huggingface.co is no longer in the documentation; its
successor, HF Inference, lives below the router (.../inference-providers/providers/hf-inference).
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote, urlsplit

from kong_ai_proxy.config import ModelOptions
from kong_ai_proxy.formats import huggingface, openai
from kong_ai_proxy.formats.errors import FormatError
from kong_ai_proxy.formats.openai import chat as openai_chat
from kong_ai_proxy.providers.base import Call, Endpoint, Native, Provider
from kong_ai_proxy.providers.huggingface.videos import VIDEOS
from kong_ai_proxy.providers.openai_messages import renamed

_CHAT_PATH = "/v1/chat/completions"
_MOST_SEGMENTS = 2  # owner/name, or the name alone of the first models

# Of OpenAI's servers, and nothing to do at others: some of those behind the router refuse what they
# do not know.
_OPENAIS = frozenset(
    {
        "metadata",
        "moderation",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "store",
        "verbosity",
    }
)

_GENERATE = {
    "": Endpoint("/", huggingface.GENERATE_ARRAY),
    "generate": Endpoint("/generate", huggingface.GENERATE),
    "generate_stream": Endpoint("/generate_stream", huggingface.GENERATE),
}


def _chat(body: Mapping[str, object], call: Call) -> Mapping[str, object]:
    """The limit under the only name that the reference has
    (https://huggingface.co/docs/inference-providers/tasks/chat-completion)."""
    return renamed(body, "max_completion_tokens", "max_tokens")


def _embed(body: Mapping[str, object], call: Call) -> Mapping[str, object]:
    """The length of the vectors, where the request does not say it."""
    length = call.options.embeddings_dimensions
    return {} if length is None or body.get("dimensions") is not None else {"dimensions": length}


def _endpoint(call: Call) -> Endpoint:
    if call.route_type == openai.VIDEOS:
        own = call.options.upstream_url or call.options.upstream_path
        # The router has no API of OpenAI's for videos; servers that one runs oneself may have it,
        # at the path that Kong's reference has.
        return Endpoint("/v1/videos") if own else Endpoint("", flow=VIDEOS)
    path = f"/hf-inference/models/{_model(call.model)}/pipeline/feature-extraction"
    return Endpoint(path, huggingface.EMBED, change=_embed)


def _model(name: str) -> str:
    """A model's name as a part of a path, its one slash kept. Raises FormatError."""
    segments = name.split("/")
    if len(segments) > _MOST_SEGMENTS or any(part in ("", ".", "..") for part in segments):
        raise FormatError(f"model: expected owner/name, not {name[:100]!r}")
    return "/".join(quote(part, safe="", errors="surrogateescape") for part in segments)


def _native(native: Native, call: Call) -> Endpoint | None:
    """Only a server of one's own has the operations of text-generation-inference; the router is
    asked to chat instead."""
    operation = native.operation.strip("/")
    if operation in _GENERATE and not _chats(call.options):
        return _GENERATE[operation]
    if operation in _GENERATE or operation in (_CHAT_PATH[1:], "chat/completions"):
        return Endpoint(_CHAT_PATH, openai_chat.CHAT)
    return None


def _chats(options: ModelOptions) -> bool:
    """Whether what is called speaks OpenAI's format only."""
    if not options.upstream_url:
        return True
    try:
        path = urlsplit(options.upstream_url).path
    except ValueError:  # it is refused where it is used
        return False
    return path.rstrip("/").endswith("/chat/completions")


def _headers(options: ModelOptions) -> Mapping[str, str]:
    """Kong's two options are headers of HF Inference. They left its documentation in April 2025
    (https://github.com/huggingface/hub-docs/pull/1673); what does not know them ignores them."""
    own = options.huggingface
    asked = {"x-use-cache": own.use_cache, "x-wait-for-model": own.wait_for_model}
    return {
        name: "true" if value else "false" for name, value in asked.items() if value is not None
    }


HUGGINGFACE = Provider(
    name="huggingface",
    answers_loosely=True,
    base_url="https://router.huggingface.co:443",
    paths={openai.CHAT: _CHAT_PATH},
    changes={openai.CHAT: _chat},
    endpoint=_endpoint,
    endpoints=frozenset({openai.EMBEDDINGS, openai.VIDEOS}),
    native=_native,
    natives=frozenset({"huggingface"}),
    headers=_headers,
    refused=_OPENAIS,
)
