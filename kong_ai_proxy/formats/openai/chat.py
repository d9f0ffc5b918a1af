"""OpenAI's chat completions, which nearly every provider and client speaks.

https://platform.openai.com/docs/api-reference/chat.
"""

from __future__ import annotations

from collections.abc import Mapping

from kong_ai_proxy.formats.codec import ChatCodec, Context, StreamReader, StreamWriter
from kong_ai_proxy.formats.conversation import Conversation, Rendered
from kong_ai_proxy.formats.deltas import Answer, Delta
from kong_ai_proxy.formats.errors import ProviderError
from kong_ai_proxy.formats.openai import chat_answer as openai_chat_answer
from kong_ai_proxy.formats.openai import chat_messages as openai_chat_messages
from kong_ai_proxy.formats.openai import chat_request as openai_chat_request
from kong_ai_proxy.formats.openai import errors as openai_errors
from kong_ai_proxy.formats.openai.chat_pieces import MessageReader
from kong_ai_proxy.formats.openai.chat_reader import ChunkReader
from kong_ai_proxy.formats.openai.chat_stream import ChatWriter


class _Chat:
    """See ChatCodec."""

    name = "openai/chat"
    stream_type = "text/event-stream"
    stream_types = frozenset({"text/event-stream"})

    def parse_request(
        self, body: Mapping[str, object], *, model: str = "", stream: bool | None = None
    ) -> Conversation:
        return openai_chat_request.parse_request(body, model=model, stream=stream)

    def render_request(self, conversation: Conversation) -> Rendered:
        return openai_chat_messages.render_request(conversation)

    def parse_answer(self, value: object) -> list[Delta]:
        return openai_chat_answer.parse_answer(value)

    def render_answer(self, answer: Answer, context: Context) -> object:
        return openai_chat_answer.render_answer(answer, context)

    def reader(self) -> StreamReader:
        return ChunkReader(MessageReader)

    def writer(self, context: Context) -> StreamWriter:
        return ChatWriter(context)

    def parse_error(self, status: int, body: bytes) -> ProviderError:
        return openai_errors.parse_error(status, body)

    def render_error(self, error: ProviderError) -> object:
        return openai_errors.render_error(error)


CHAT: ChatCodec = _Chat()
