"""Semantic balancing: a request goes to the targets whose description is nearest to its prompt.

The descriptions are embedded once for a configuration, by whichever worker of whichever node comes
first, and kept in the vector database for all. Each prompt is embedded, and its nearest description
looked up there.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import orjson

from kong_ai_proxy.auth.tokens import Tokens
from kong_ai_proxy.config import AiProxyAdvanced
from kong_ai_proxy.config.plugins import CATCHALL
from kong_ai_proxy.config.vectors import Embeddings, Vectordb
from kong_ai_proxy.exchange.errors import BAD_REQUEST, SERVER_ERROR, Refused
from kong_ai_proxy.relay.embedding import Embedder, EmbeddingError
from kong_ai_proxy.relay.upstream import Upstream
from kong_ai_proxy.vectors.store import (
    Match,
    MissingSpaceError,
    Space,
    Store,
    StoreError,
    load,
    open_store,
)

_log = logging.getLogger(__name__)

MAX_PROMPT = 6000
"""Characters of a prompt that are embedded, its last ones, where a question stands that has a
document before it. Models refuse longer texts than 8,192 tokens or so, and a character is hardly
more than a token in any language; many look at far less."""

CACHED = 1024
"""Prompts whose nearest descriptions are remembered, by digest: an agent sends the user's last
words again with the outcome of every tool it calls."""

RETRY_SECONDS = 1.0
"""After which it is tried again to prepare what could not be prepared."""
WAIT_SECONDS = 30.0
"""The longest that a request waits for vectors; less where a target has less time."""
SILENCE_SECONDS = 1.0
"""Without a vector for anybody after which the model is taken to be silent."""
SILENT_SECONDS = 5.0
"""How long nobody waits for it then."""
PREPARE_SECONDS = 240.0
"""The longest that it may take to make them."""
AT_A_TIME = 4
"""Descriptions that are embedded at the same time."""
WARN_SECONDS = 10.0
"""Between two warnings of one configuration."""


class Embeds(Protocol):
    """Who makes vectors."""

    async def embed(self, text: str) -> list[float]:
        """The vector of a text. Raises EmbeddingError."""


def semantic(
    config: AiProxyAdvanced,
    upstream: Upstream,
    tokens: Tokens,
    environ: Mapping[str, str],
    ca_file: str | None = None,
) -> Semantic:
    """Of a configuration whose algorithm is `semantic`. Connects to nothing yet."""
    vectordb, embeddings = config.vectordb, config.embeddings
    assert vectordb is not None
    assert embeddings is not None
    return Semantic(
        config,
        Embedder(embeddings, vectordb.dimensions, upstream, tokens, environ),
        lambda: open_store(vectordb, tokens=tokens, ca_file=ca_file),
    )


class Semantic:
    """One configuration in one worker."""

    def __init__(
        self, config: AiProxyAdvanced, embedder: Embeds, open_: Callable[[], Store]
    ) -> None:
        """`open_` gives the database; it may raise StoreError, and is called again then."""
        assert config.vectordb is not None
        assert config.embeddings is not None
        self._embedder = embedder
        self._open = open_
        self._store: Store | None = None
        own = config.balancer
        limits = own.connect_timeout + own.write_timeout + own.read_timeout
        self._wait = min(WAIT_SECONDS, limits / 1000)  # Kong waits for as long as for a target
        self._vectordb = config.vectordb
        self._threshold = config.vectordb.threshold
        self._catchall: list[int] = []
        self._groups: dict[str, list[int]] = {}  # by description
        for index, target in enumerate(config.targets):
            if target.description == CATCHALL:
                self._catchall.append(index)
            else:
                self._groups.setdefault(target.description or "", []).append(index)
        self._names = {_digest(text): text for text in self._groups}
        self._space = _space(config.embeddings, config.vectordb, self._groups)
        self._is_prepared = False
        self._preparing: asyncio.Task[Exception | None] | None = None
        self._failure: Exception | None = None
        self._retry_at = 0.0
        self._warn_at = 0.0
        self._silent_until = 0.0
        self._answered_at = 0.0
        self._known: OrderedDict[tuple[str, int], list[Match]] = OrderedDict()

    async def tiers(
        self, prompt: str, candidates: Sequence[int], seconds: float = math.inf
    ) -> list[list[int]]:
        """The candidates that the prompt is for, and those for all others: groups, the better one
        first. Of the descriptions that a candidate has the nearest counts, if it is near enough.

        Raises Refused: 500 where there is no such target, or nobody can tell and there is no target
        for all others; 400 where the request has no text to go by.
        """
        rest = [index for index in candidates if index in self._catchall]
        allowed = set(candidates)
        groups = {
            text: found
            for text, indices in self._groups.items()
            if (found := [index for index in indices if index in allowed])
        }
        began = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(self._patience(seconds)):
                nearest = groups.get(await self._nearest(prompt, groups), [])
        except (EmbeddingError, StoreError, TimeoutError) as error:
            self._warn(error)
            if isinstance(error, TimeoutError):
                self._note_silence(began)
            if not rest:
                raise Refused(SERVER_ERROR, _told(error)) from None
            nearest = []
        if not nearest and not rest:
            raise self._nothing(prompt)
        return [group for group in (nearest, rest) if group]

    def _patience(self, seconds: float) -> float:
        """Seconds that a request waits for vectors: none while the model is silent."""
        if asyncio.get_running_loop().time() < self._silent_until:
            return 0.0
        return min(self._wait, seconds)

    def _note_silence(self, began: float) -> None:
        """Somebody has waited in vain since `began`: whether others did too, and for a while."""
        now = asyncio.get_running_loop().time()
        if self._answered_at <= began <= now - SILENCE_SECONDS:
            self._silent_until = now + SILENT_SECONDS

    def _nothing(self, prompt: str) -> Refused:
        if not prompt.strip():
            return Refused(
                BAD_REQUEST, "request body doesn't contain valid prompts: found no text to go by"
            )
        text = f"no target can be found under threshold {self._threshold}"
        _log.info(text)
        return Refused(SERVER_ERROR, text)

    async def _nearest(self, prompt: str, groups: Mapping[str, list[int]]) -> str:
        """The description among these that is nearest, "" where none is near enough."""
        if len(groups) == 1 and self._threshold is None:  # whatever the prompt is
            return next(iter(groups))
        if not groups or not prompt.strip():
            return ""
        # The nearest of all may be one of those that are not wanted, but not more than all of them.
        for match in await self._matches(prompt, 1 + len(self._groups) - len(groups)):
            text = self._names.get(match.name, "")
            if self._threshold is not None and match.distance > self._threshold:
                _log.info("%.3f is too far from the prompt: %r", match.distance, text)
                return ""
            if text in groups:
                _log.debug("%.3f is near enough to the prompt: %r", match.distance, text)
                return text
        return ""

    async def _matches(self, prompt: str, most: int) -> list[Match]:
        """At most `most` descriptions, the nearest first."""
        key = _digest(prompt), most
        known = self._known.get(key)
        if known is not None:
            self._known.move_to_end(key)
            return known
        await self._prepared()
        vector = await self._embedder.embed(_embeddable(prompt))
        self._answered_at = asyncio.get_running_loop().time()
        found = await self._searched(vector, most)
        self._known[key] = found
        if len(self._known) > CACHED:
            self._known.popitem(last=False)
        return found

    async def _searched(self, vector: list[float], most: int) -> list[Match]:
        store = self._opened()
        try:
            return await store.nearest(self._space, vector, most)
        except MissingSpaceError:  # emptied, or put back to an older state
            self._is_prepared = False
            await self._prepared()
            return await store.nearest(self._space, vector, most)

    def _opened(self) -> Store:
        if self._store is None:
            self._store = self._open()
        return self._store

    async def close(self) -> None:
        """End what is under way, and the connections to the database. Raises nothing."""
        if self._preparing is not None:
            self._preparing.cancel()
            await asyncio.wait([self._preparing])
        if self._store is not None:
            await self._store.close()

    def _warn(self, error: Exception) -> None:
        """Tell the operator, but not with every request."""
        now = asyncio.get_running_loop().time()
        if now >= self._warn_at:
            self._warn_at = now + WARN_SECONDS
            detail = error.detail if isinstance(error, EmbeddingError) else str(error)
            _log.warning("semantic balancing: %s", detail or "no vectors in time")

    # ---- the descriptions

    async def _prepared(self) -> None:
        """Have their vectors in the database. All requests wait for the same preparation, which
        goes on without them. Raises what it fails with."""
        if self._is_prepared:
            return
        now = asyncio.get_running_loop().time()
        if self._preparing is None:
            if self._failure is not None and now < self._retry_at:
                raise self._failure.with_traceback(None)
            self._preparing = asyncio.create_task(self._prepare())
            self._preparing.add_done_callback(self._on_prepared)
        preparing = self._preparing
        try:
            failure = await asyncio.shield(preparing)
        except asyncio.CancelledError:
            if preparing.cancelled():  # by `close`
                raise StoreError("the configuration is not used any more") from None
            raise
        if failure is not None:
            raise failure.with_traceback(None)  # which many may be raising

    def _on_prepared(self, task: asyncio.Task[Exception | None]) -> None:
        self._preparing = None
        if task.cancelled() or task.exception() is not None:
            return
        self._failure = task.result()
        self._is_prepared = self._failure is None
        self._retry_at = asyncio.get_running_loop().time() + RETRY_SECONDS

    async def _prepare(self) -> Exception | None:
        """Make what is missing; the reason where that fails."""
        try:
            async with asyncio.timeout(PREPARE_SECONDS):
                await load(self._vectordb)
                store = self._opened()
                if await store.has(self._space):
                    return None
                async with store.locked(self._space):
                    if not await store.has(self._space):
                        await store.put(self._space, await self._vectors())
        except TimeoutError:
            return EmbeddingError("the descriptions of the targets were not embedded in time")
        except (EmbeddingError, StoreError) as error:
            return error
        return None

    async def _vectors(self) -> dict[str, list[float]]:
        """Of each description, by its name. One at a time in a request: some providers take no
        more. Raises EmbeddingError."""
        limit = asyncio.Semaphore(AT_A_TIME)

        async def embed(text: str) -> list[float]:
            async with limit:
                return await self._embedder.embed(_embeddable(text))

        try:
            async with asyncio.TaskGroup() as group:
                tasks = {name: group.create_task(embed(text)) for name, text in self._names.items()}
        except* EmbeddingError as errors:
            failed = errors.exceptions[0]
        else:
            return {name: task.result() for name, task in tasks.items()}
        assert isinstance(failed, EmbeddingError)
        raise failed


def _space(embeddings: Embeddings, vectordb: Vectordb, texts: Mapping[str, object]) -> Space:
    """Named by what decides about the vectors: no keys, so that a new one changes nothing, and
    neither order nor number of the targets."""
    model = embeddings.model
    azure, url = model.options.azure, model.options.upstream_url or ""
    identity = [
        model.provider,
        model.name,
        azure.instance,
        azure.deployment_id,
        url.partition("?")[0],
        vectordb.dimensions,
        vectordb.distance_metric,
        sorted(texts),
    ]
    name = hashlib.sha256(orjson.dumps(identity)).hexdigest()
    return Space(name, vectordb.dimensions, vectordb.distance_metric)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _embeddable(text: str) -> str:
    """As much of a text as models take, in UTF-8."""
    return text[-MAX_PROMPT:].encode("utf-8", "replace").decode()


def _told(error: Exception) -> str:
    """What a client learns: nothing of the operator's database."""
    if isinstance(error, EmbeddingError):
        return f"semantic balancing: {error}"
    if isinstance(error, StoreError):
        return "semantic balancing: the vector database cannot be used, the log says why"
    return "semantic balancing: there were no vectors in time"
