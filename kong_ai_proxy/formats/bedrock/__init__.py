"""Amazon Bedrock's wire formats: Converse, and the bodies that InvokeModel carries.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_Operations_Amazon_Bedrock_Runtime.html
"""

from __future__ import annotations

from collections.abc import Mapping

from kong_ai_proxy.formats.aws_event_stream import MEDIA_TYPE
from kong_ai_proxy.formats.bedrock import answer as bedrock_answer
from kong_ai_proxy.formats.bedrock import errors as bedrock_errors
from kong_ai_proxy.formats.bedrock import parse as bedrock_parse
from kong_ai_proxy.formats.bedrock import reader as bedrock_reader
from kong_ai_proxy.formats.bedrock import request as bedrock_request
from kong_ai_proxy.formats.bedrock import writer as bedrock_writer
from kong_ai_proxy.formats.bedrock.anthropic import ANTHROPIC, ServerSentEvents
from kong_ai_proxy.formats.bedrock.embeddings import COHERE_EMBED, NOVA_EMBED, TITAN_EMBED
from kong_ai_proxy.formats.bedrock.errors import exception_name
from kong_ai_proxy.formats.codec import ChatCodec, Context, StreamReader, StreamWriter
from kong_ai_proxy.formats.conversation import Conversation, Rendered
from kong_ai_proxy.formats.deltas import Answer, Delta
from kong_ai_proxy.formats.errors import ProviderError

__all__ = [
    "ANTHROPIC",
    "COHERE_EMBED",
    "CONVERSE",
    "NOVA_EMBED",
    "TITAN_EMBED",
    "ServerSentEvents",
    "exception_name",
]


class _Converse:
    """Converse and ConverseStream: the path says which, and the model."""

    name = "bedrock/converse"
    stream_type = MEDIA_TYPE
    stream_types = frozenset({MEDIA_TYPE})

    def parse_request(
        self, body: Mapping[str, object], *, model: str = "", stream: bool | None = None
    ) -> Conversation:
        return bedrock_parse.parse(body, model, bool(stream))

    def render_request(self, conversation: Conversation) -> Rendered:
        return bedrock_request.render(conversation)

    def parse_answer(self, value: object) -> list[Delta]:
        return bedrock_answer.parse(value)

    def render_answer(self, answer: Answer, context: Context) -> object:
        return bedrock_answer.render(answer, context)

    def reader(self) -> StreamReader:
        return bedrock_reader.Reader()

    def writer(self, context: Context) -> StreamWriter:
        return bedrock_writer.Writer(context)

    def parse_error(self, status: int, body: bytes) -> ProviderError:
        return bedrock_errors.parse(status, body)

    def render_error(self, error: ProviderError) -> object:
        return bedrock_errors.render(error)


CONVERSE: ChatCodec = _Converse()
