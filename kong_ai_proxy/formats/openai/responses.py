"""OpenAI's Responses: one request, one response, nothing stored.

https://platform.openai.com/docs/api-reference/responses. OpenAI, Azure and xAI speak it; for the
clients of it every other provider's answers are written so.
"""

from __future__ import annotations

from collections.abc import Mapping

from kong_ai_proxy.formats.codec import ChatCodec, Context, StreamReader, StreamWriter
from kong_ai_proxy.formats.conversation import Conversation, Rendered
from kong_ai_proxy.formats.deltas import Answer, Delta
from kong_ai_proxy.formats.errors import ProviderError
from kong_ai_proxy.formats.openai import errors as openai_errors
from kong_ai_proxy.formats.openai import responses_answer as openai_responses_answer
from kong_ai_proxy.formats.openai import responses_render as openai_responses_render
from kong_ai_proxy.formats.openai import responses_request as openai_responses_request
from kong_ai_proxy.formats.openai.responses_reader import ResponsesReader
from kong_ai_proxy.formats.openai.responses_writer import ResponsesWriter


class _Responses:
    """See ChatCodec."""

    name = "openai/responses"
    stream_type = "text/event-stream"
    stream_types = frozenset({"text/event-stream"})

    def parse_request(
        self, body: Mapping[str, object], *, model: str = "", stream: bool | None = None
    ) -> Conversation:
        return openai_responses_request.parse_request(body, model=model, stream=stream)

    def render_request(self, conversation: Conversation) -> Rendered:
        return openai_responses_render.render_request(conversation)

    def parse_answer(self, value: object) -> list[Delta]:
        return openai_responses_answer.parse_answer(value)

    def render_answer(self, answer: Answer, context: Context) -> object:
        return openai_responses_answer.render_answer(answer, context)

    def reader(self) -> StreamReader:
        return ResponsesReader()

    def writer(self, context: Context) -> StreamWriter:
        return ResponsesWriter(context)

    def parse_error(self, status: int, body: bytes) -> ProviderError:
        return openai_errors.parse_error(status, body)

    def render_error(self, error: ProviderError) -> object:
        return openai_errors.render_error(error)


RESPONSES: ChatCodec = _Responses()
