"""Anthropic's wire formats: Messages, and the completions that came before them.

https://platform.claude.com/docs/en/api/messages
"""

from __future__ import annotations

from collections.abc import Mapping

from kong_ai_proxy.formats.anthropic import answer as anthropic_answer
from kong_ai_proxy.formats.anthropic import complete as anthropic_complete
from kong_ai_proxy.formats.anthropic import errors as anthropic_errors
from kong_ai_proxy.formats.anthropic import reader as anthropic_reader
from kong_ai_proxy.formats.anthropic import render as anthropic_render
from kong_ai_proxy.formats.anthropic import request as anthropic_request
from kong_ai_proxy.formats.anthropic import writer as anthropic_writer
from kong_ai_proxy.formats.codec import ChatCodec, Context, StreamReader, StreamWriter
from kong_ai_proxy.formats.conversation import Conversation, Rendered
from kong_ai_proxy.formats.deltas import Answer, Delta
from kong_ai_proxy.formats.errors import ProviderError

_EVENT_STREAM = "text/event-stream"


class _Anthropic:
    """What both formats share."""

    stream_type = _EVENT_STREAM
    stream_types = frozenset({_EVENT_STREAM})

    def parse_error(self, status: int, body: bytes) -> ProviderError:
        return anthropic_errors.parse(status, body)

    def render_error(self, error: ProviderError) -> object:
        return anthropic_errors.render(error)


class _Messages(_Anthropic):
    name = "anthropic/messages"

    def parse_request(
        self, body: Mapping[str, object], *, model: str = "", stream: bool | None = None
    ) -> Conversation:
        return anthropic_request.parse(body, model=model, stream=stream)

    def render_request(self, conversation: Conversation) -> Rendered:
        return anthropic_render.render(conversation)

    def parse_answer(self, value: object) -> list[Delta]:
        return anthropic_answer.parse(value)

    def render_answer(self, answer: Answer, context: Context) -> object:
        return anthropic_answer.render(answer, context)

    def reader(self) -> StreamReader:
        return anthropic_reader.Reader(anthropic_reader.Events(), anthropic_answer.parse)

    def writer(self, context: Context) -> StreamWriter:
        return anthropic_writer.Writer(context)


class _Complete(_Anthropic):
    name = "anthropic/complete"

    def parse_request(
        self, body: Mapping[str, object], *, model: str = "", stream: bool | None = None
    ) -> Conversation:
        return anthropic_complete.parse_request(body, model=model, stream=stream)

    def render_request(self, conversation: Conversation) -> Rendered:
        return anthropic_complete.render_request(conversation)

    def parse_answer(self, value: object) -> list[Delta]:
        return anthropic_complete.parse_answer(value)

    def render_answer(self, answer: Answer, context: Context) -> object:
        return anthropic_complete.render_answer(answer, context)

    def reader(self) -> StreamReader:
        return anthropic_reader.Reader(anthropic_complete.Events(), anthropic_complete.parse_answer)

    def writer(self, context: Context) -> StreamWriter:
        return anthropic_complete.Writer(context)


MESSAGES: ChatCodec = _Messages()
COMPLETE: ChatCodec = _Complete()
