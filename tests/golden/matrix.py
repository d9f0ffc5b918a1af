"""The matrix: which provider can do what, as the registry has it.

`python -m tests.golden.matrix` writes the table for README, where it stands between
`<!-- matrix -->` and `<!-- /matrix -->`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, cast

import yaml

from kong_ai_proxy.config import ModelOptions
from kong_ai_proxy.exchange.asking import in_native_format, in_openai_format, native_session
from kong_ai_proxy.exchange.endpoints import asked_as, endpoint
from kong_ai_proxy.exchange.errors import Refused
from kong_ai_proxy.exchange.messages import ClientRequest
from kong_ai_proxy.formats import openai
from kong_ai_proxy.formats.codec import ChatProvider, ProviderCodec
from kong_ai_proxy.formats.conversation import Conversation, Message, Text, Tool
from kong_ai_proxy.formats.errors import FormatError
from kong_ai_proxy.providers.base import Call, Endpoint
from kong_ai_proxy.providers.registry import PROVIDERS

ROOT = Path(__file__).parents[2]
BEGIN, END = "<!-- matrix -->\n", "<!-- /matrix -->"

ROUTE_TYPES = {
    "chat": openai.CHAT,
    "completions": openai.COMPLETIONS,
    "embeddings": openai.EMBEDDINGS,
}
COLUMNS = (*ROUTE_TYPES, "tools", "streaming")
MORE_ROUTE_TYPES = {
    "responses": openai.RESPONSES,
    "images": openai.IMAGE_GENERATIONS,
    "edits": openai.IMAGE_EDITS,
    "video": openai.VIDEOS,
    "speech": openai.SPEECH,
    "transcriptions": openai.TRANSCRIPTIONS,
    "translations": openai.TRANSLATIONS,
    "realtime": openai.REALTIME,
    "files": openai.FILES,
    "batches": openai.BATCHES,
    "assistants": openai.ASSISTANTS,
}
MORE_COLUMNS = (*MORE_ROUTE_TYPES, "rerank")
NATIVE = {
    "cohere-rerank": ("cohere", "/v2/rerank"),
    "bedrock-rerank": ("bedrock", "/rerank"),
    "vertex-rerank": (
        "gemini",
        "/v1/projects/p/locations/l/rankingConfigs/default_ranking_config:rank",
    ),
    "gemini-realtime": (
        "gemini",
        "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent",
    ),
    "vertex-realtime": (
        "gemini",
        "/ws/google.cloud.aiplatform.v1beta1.LlmBidiService/BidiGenerateContent",
    ),
}
"""Cells that the provider's own format alone has: `llm_format`, and a path that asks for it."""
_TOOL = "matrix_tool"


class Row(NamedTuple):
    """One row: a provider, or one of the formats that it may speak."""

    name: str
    """As the folder in fixtures/ and the cells' names have it."""
    title: str
    provider: str
    """As a configuration names it."""
    reference: str
    """Its name in Kong's provider reference."""
    options: Mapping[str, Any] = MappingProxyType({})
    """The options that choose the row, or without which there is no endpoint."""
    model: str = "model"
    lacks: frozenset[str] = frozenset()
    """What the reference says in a note that this format of the provider has not."""


def _row(provider: str, title: str, **options: Any) -> Row:
    return Row(provider, title, provider, title, options)


_VERTEX = {"api_endpoint": "x.googleapis.com", "project_id": "p", "location_id": "l"}
ROWS = (
    _row("bedrock", "Amazon Bedrock", bedrock={"aws_region": "us-east-1"}),
    _row("anthropic", "Anthropic"),
    _row("azure", "Azure", azure_instance="i", azure_deployment_id="d"),
    _row("cerebras", "Cerebras"),
    _row("cohere", "Cohere"),
    _row("dashscope", "Dashscope"),
    _row("databricks", "Databricks", databricks={"workspace_instance_id": "w"}),
    _row("deepseek", "DeepSeek"),
    _row("gemini", "Gemini"),
    Row("vertex", "Gemini Vertex", "gemini", "Gemini Vertex", {"gemini": _VERTEX}, "gemini-2.5"),
    _row("huggingface", "Hugging Face"),
    Row(
        "llama2-raw",
        "Llama2, raw",
        "llama2",
        "Llama2",
        {"llama2_format": "raw"},
        lacks=frozenset({"embeddings"}),
    ),
    Row("llama2-openai", "Llama2, OpenAI", "llama2", "Llama2", {"llama2_format": "openai"}),
    Row("llama2-ollama", "Llama2, Ollama", "llama2", "Llama2", {"llama2_format": "ollama"}),
    Row("mistral-openai", "Mistral, OpenAI", "mistral", "Mistral", {"mistral_format": "openai"}),
    Row("mistral-ollama", "Mistral, Ollama", "mistral", "Mistral", {"mistral_format": "ollama"}),
    _row("ollama", "Ollama"),
    _row("openai", "OpenAI"),
    _row("vllm", "vLLM"),
    _row("xai", "xAI"),
)


def table() -> str:
    """The matrix in Markdown, with its last line break: what is text, then all else."""
    return f"{_table(COLUMNS)}\n{_table(MORE_COLUMNS)}"


def _table(columns: tuple[str, ...]) -> str:
    lines = [_line(["provider", *columns]), _line(["---"] * (len(columns) + 1))]
    for row in ROWS:
        lines.append(_line([row.title, *(_cell(row, name) for name in columns)]))
    return "".join(lines)


def _cell(row: Row, name: str) -> str:
    if name not in capabilities(row):
        return ""
    if f"{row.name}-{name}" in NATIVE:
        return "native"
    return "converted" if name == "responses" and not _has_responses(row) else "yes"


def _has_responses(row: Row) -> bool:
    options = ModelOptions.model_validate(row.options)
    return openai.RESPONSES in PROVIDERS[row.provider].find(options).route_types


def _line(cells: list[str]) -> str:
    return "|" + "|".join(f" {cell} " if cell else " " for cell in cells) + "|\n"


@cache
def _capabilities(name: str) -> frozenset[str]:
    row = next(row for row in ROWS if row.name == name)
    codecs = {column: _codec(row, route_type) for column, route_type in ROUTE_TYPES.items()}
    found = {column for column, codec in codecs.items() if codec is not None}
    found |= {
        column for column, route_type in MORE_ROUTE_TYPES.items() if _endpoint(row, route_type)
    }
    found |= {name for name in MORE_COLUMNS if _is_native(row, f"{row.name}-{name}")}
    chat, completions = codecs["chat"], codecs["completions"]
    if chat is not None and _has_tools(chat):
        found |= {"tools"}
    if chat is not None and _streams(chat):
        found |= {"streaming", *(f"{name}-streaming" for name in found & {"tools"})}
    if completions is not None and _streams(completions):
        found |= {"completions-streaming"}
    return frozenset(found)


def capabilities(row: Row) -> frozenset[str]:
    """The columns that the row has, and tools-streaming and completions-streaming, as the registry
    and the formats' codecs say."""
    return _capabilities(row.name)


def _codec(row: Row, route_type: str) -> ProviderCodec | None:
    """What is spoken for a route type; None where the provider has none."""
    found = _endpoint(row, route_type)
    return found.codec if found else None


def _endpoint(row: Row, route_type: str) -> Endpoint | None:
    options = ModelOptions.model_validate(row.options)
    provider = PROVIDERS[row.provider].find(options)
    call = Call(asked_as(provider, route_type), row.model, options)
    try:
        return endpoint(provider, call, in_openai_format(route_type))
    except Refused:
        return None


def _is_native(row: Row, cell: str) -> bool:
    if cell not in NATIVE:
        return False
    llm_format, path = NATIVE[cell]
    options = ModelOptions.model_validate(row.options)
    provider = PROVIDERS[row.provider].find(options)
    request = ClientRequest("POST", path)
    if cell.endswith("-realtime"):
        asked = native_session(llm_format, request)
    else:
        asked = in_native_format(llm_format, request, {})
    try:
        return bool(endpoint(provider, Call(asked.route_type, row.model, options), asked))
    except Refused:
        return False


def _has_tools(codec: ProviderCodec) -> bool:
    """Whether a tool stands in a request of this format."""
    asked = Conversation(
        messages=(Message("user", (Text("Hi"),)),), model="model", tools=(Tool(name=_TOOL),)
    )
    try:
        return _TOOL in repr(cast(ChatProvider, codec).render_request(asked).body)
    except FormatError:
        return False


def _streams(codec: ProviderCodec) -> bool:
    return bool(cast(ChatProvider, codec).stream_types)


@cache
def _reference() -> dict[str, dict[str, Any]]:
    text = (Path(__file__).parent / "reference.yaml").read_text(encoding="utf-8")
    read: dict[str, dict[str, Any]] = yaml.safe_load(text)
    return read


def reference(name: str) -> frozenset[str]:
    """The columns that Kong's provider reference gives to a provider."""
    return frozenset(_reference()[name]["has"])


def reference_names() -> set[str]:
    """The providers of the reference."""
    return set(_reference())


def in_readme() -> str | None:
    """What stands between the marks in README; None where there are no marks."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    if BEGIN not in text or END not in text:
        return None
    return text.partition(BEGIN)[2].partition(END)[0]


if __name__ == "__main__":
    sys.stdout.write(table())
