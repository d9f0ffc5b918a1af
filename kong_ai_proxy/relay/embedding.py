"""Texts as vectors: what semantic balancing asks of an embedding model.

The model is called as the targets of clients are: the same core makes the request, signs it, and
turns the answer into OpenAI's format.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import orjson

from kong_ai_proxy.auth.tokens import TokenError, Tokens
from kong_ai_proxy.config import Model, ModelOptions, Target
from kong_ai_proxy.config.records import Gemini
from kong_ai_proxy.config.vectors import Embeddings
from kong_ai_proxy.exchange import asking, cloud
from kong_ai_proxy.exchange.attempt import Attempt
from kong_ai_proxy.exchange.case import Rules
from kong_ai_proxy.exchange.errors import FIRST_ERROR, Refused
from kong_ai_proxy.exchange.messages import (
    Abort,
    Action,
    ClientRequest,
    Commit,
    Data,
    Emit,
    End,
    Env,
    Event,
    Fail,
    Finish,
    Head,
)
from kong_ai_proxy.exchange.privacy import masked
from kong_ai_proxy.formats import openai
from kong_ai_proxy.formats.errors import FormatError
from kong_ai_proxy.formats.json_object import JsonObject
from kong_ai_proxy.formats.openai.embeddings import EMBEDDINGS
from kong_ai_proxy.relay.ids import new_id
from kong_ai_proxy.relay.incoming import outgoing_headers
from kong_ai_proxy.relay.upstream import Call, Timeouts, Upstream, UpstreamLost

SECONDS = 30.0
"""The longest that a client's request waits for its prompt's vector."""
MAX_ANSWER = 4 << 20
"""Bytes of an answer: a vector of 16,000 numbers, which is the most that a database takes, is
tenth of that."""
_TIMEOUTS = Timeouts(connect=10.0, write=SECONDS, read=SECONDS)
_MAX_QUOTED = 300  # characters of a provider's error

_REQUEST = ClientRequest("POST", headers={"content-type": ("application/json",)})

# Models whose vectors have the length that one asks for:
# https://platform.openai.com/docs/api-reference/embeddings/create (dimensions),
# https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-titan-embed-text.html,
# .../model-parameters-titan-embed-mm.html, .../model-parameters-embed-v4.html,
# https://docs.aws.amazon.com/nova/latest/userguide/embeddings-schema.html,
# https://ai.google.dev/gemini-api/docs/embeddings and Vertex AI's text-embeddings-api
# (outputDimensionality), https://docs.mistral.ai/api (output_dimension). Others refuse to be asked.
_CHOOSES = re.compile(
    r"text-embedding-3|text-embedding-00[45]|text-multilingual-embedding-002|gemini-embedding"
    r"|titan-embed-text-v2|titan-embed-image|amazon\.nova|cohere\.embed-v4|codestral-embed"
)
_OWN_LENGTH = {"text-embedding-3-small": 1536, "text-embedding-3-large": 3072}
"""Where it is what is wanted, nothing is asked: Azure's older API versions, its default in Kong's
schema among them, do not know `dimensions`."""


class EmbeddingError(Exception):
    """There is no vector. The text is fit for clients; `detail` is more, for the log. There is no
    secret in either."""

    def __init__(self, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.detail = f"{message}: {detail}" if detail else message


class _Answered(NamedTuple):
    """A whole answer, in OpenAI's format."""

    status: int
    body: bytes


class Embedder:
    """The embedding model of one configuration."""

    def __init__(
        self,
        embeddings: Embeddings,
        dimensions: int,
        upstream: Upstream,
        tokens: Tokens,
        environ: Mapping[str, str],
    ) -> None:
        """`dimensions`: the length that the vectors must have, `config.vectordb.dimensions`."""
        self._embeddings = embeddings
        self._dimensions = dimensions
        self._upstream = upstream
        self._tokens = tokens
        self._environ = environ
        self._provider = embeddings.model.provider

    async def embed(self, text: str) -> list[float]:
        """The vector of a text, of the configured length. Raises EmbeddingError."""
        try:
            async with asyncio.timeout(SECONDS):
                return await self._embed(text)
        except TimeoutError:
            raise EmbeddingError(f"{self._provider} did not answer in time") from None
        except Refused as refused:
            raise EmbeddingError(refused.message) from None

    async def _embed(self, text: str) -> list[float]:
        body = orjson.dumps({"model": self._embeddings.model.name, "input": text})
        attempt = self._attempt(body)
        answered = await self._answered(attempt, body)
        if answered.status >= FIRST_ERROR:
            told = EMBEDDINGS.parse_error(answered.status, answered.body).message
            raise EmbeddingError(
                f"{self._provider} answered with status {answered.status}",
                masked(told, attempt.secrets)[:_MAX_QUOTED],
            )
        return self._vector(answered.body)

    # ---- the request

    def _attempt(self, body: bytes) -> Attempt:
        model = cloud.with_region(self._target.model, self._environ)
        return Attempt(
            self._target,
            model,
            Rules(response_streaming="deny", model_name_header=False),
            _REQUEST,
            JsonObject(body),
            asking.in_openai_format(openai.EMBEDDINGS),
            identity=cloud.identity_of(model, self._target.auth, self._environ),
            relayed=True,
        )

    @cached_property
    def _target(self) -> Target:
        """The record as a target, so that it goes the way of all targets."""
        own = self._embeddings.model
        azure, gemini = own.options.azure, own.options.gemini
        options = ModelOptions(
            azure_api_version=azure.api_version,
            azure_deployment_id=azure.deployment_id,
            azure_instance=azure.instance,
            bedrock=own.options.bedrock,
            embeddings_dimensions=self._asked_length(own.name),
            gemini=Gemini(
                api_endpoint=gemini.api_endpoint,
                location_id=gemini.location_id,
                project_id=gemini.project_id,
            ),
            huggingface=own.options.huggingface,
            upstream_url=own.options.upstream_url,
        )
        return Target(
            auth=self._embeddings.auth,
            model=Model(name=own.name, options=options, provider=own.provider),
            route_type="llm/v1/embeddings",
        )

    def _asked_length(self, name: str) -> int | None:
        if not _CHOOSES.search(name) or _OWN_LENGTH.get(name) == self._dimensions:
            return None
        return self._dimensions

    async def _env(self, attempt: Attempt) -> Env:
        credential = None
        if attempt.identity is not None:
            try:
                credential = await self._tokens.get(attempt.identity)
            except TokenError as error:
                raise EmbeddingError(
                    f"no credentials for {self._provider}", detail=str(error)
                ) from None
        return Env(time.time(), new_id(), credential)

    # ---- the answer

    async def _answered(self, attempt: Attempt, own: bytes) -> _Answered:
        outgoing = attempt.start(await self._env(attempt))
        body = outgoing.body if isinstance(outgoing.body, bytes) else own
        headers = outgoing_headers(_REQUEST, outgoing)
        try:
            call = await self._upstream.send(
                outgoing.method, outgoing.address, headers, body, _TIMEOUTS
            )
        except UpstreamLost as lost:
            raise self._lost(lost.lost.reason) from None
        try:
            return await self._collected(attempt, call)
        finally:
            call.release()

    async def _collected(self, attempt: Attempt, call: Call) -> _Answered:
        status = 0
        body = bytearray()
        async for action in _actions(attempt, call):
            match action:
                case Commit(head, _):
                    status = head.status
                case Emit(chunk):
                    body += chunk
                    if len(body) > MAX_ANSWER:
                        raise EmbeddingError(f"{self._provider} answered with too many bytes")
                case Finish():
                    return _Answered(status, bytes(body))
                case Fail(_, reason, _):
                    raise self._lost(reason)
                case Abort():
                    break
        raise self._lost("its answer broke off")

    def _lost(self, reason: str) -> EmbeddingError:
        return EmbeddingError(f"{self._provider} gave no answer", reason)

    def _vector(self, body: bytes) -> list[float]:
        try:
            vectors = EMBEDDINGS.parse_answer(orjson.loads(body)).vectors
            vector = [float(each) for each in vectors[0]]
        except (FormatError, ValueError, TypeError, IndexError, OverflowError) as error:
            told = str(error) if isinstance(error, FormatError) else type(error).__name__
            raise EmbeddingError(
                f"{self._provider} answered without a vector of numbers", told[:_MAX_QUOTED]
            ) from None
        self._check_length(vector)
        return vector

    def _check_length(self, vector: Sequence[float]) -> None:
        if len(vector) != self._dimensions:
            raise EmbeddingError(
                f"config.vectordb.dimensions is {self._dimensions}, but {self._provider}'s model "
                f"{self._embeddings.model.name} makes vectors of {len(vector)} numbers: set it to "
                "what the model gives"
            )


async def _actions(attempt: Attempt, call: Call) -> AsyncIterator[Action]:
    async for event in _events(call):
        for action in attempt.feed(event):
            yield action


async def _events(call: Call) -> AsyncIterator[Event]:
    """What happens to a request that was answered."""
    yield Head(call.head)
    try:
        while chunk := await call.read():
            yield Data(chunk)
    except UpstreamLost as lost:
        yield lost.lost
    else:
        yield End()
