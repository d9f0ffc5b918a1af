"""Credentials that are kept while they are good, and renewed before they are not."""

from __future__ import annotations

import asyncio
import logging
import math
import traceback
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from kong_ai_proxy.auth.identity import Credential, Identity
from kong_ai_proxy.auth.tokens.errors import TokenError

MARGIN = 300.0
"""Seconds before their end from which credentials are renewed, or half their lifetime if that is
less. Clouds hand out new ones no earlier: AWS five minutes before, Google four."""
LEEWAY = 10.0
"""Seconds before their end from which credentials are not used: a request takes a while."""
UNKNOWN = 900.0
"""Seconds after which credentials are renewed that do not say when they end."""
SAME_FAILURE = 1.0
"""Seconds for which a failure answers everybody who asks."""
PAUSE = 10.0
"""Seconds between tries to renew credentials that are still good."""
FETCH = 30.0
"""Most seconds that a fetch may take."""
SIZE = 256
"""Most identities kept; templates in a configuration can make any number."""

CLOSED = "credentials are not fetched any more: shutting down"

_log = logging.getLogger(__name__)


class _Entry:
    """What is known for one identity."""

    __slots__ = ("credential", "failure", "refresh_at", "retry_at", "task", "usable_until")

    def __init__(self) -> None:
        self.credential: Credential | None = None
        self.refresh_at = -math.inf
        self.usable_until = -math.inf
        self.task: asyncio.Task[Credential | TokenError] | None = None
        self.failure = ""
        self.retry_at = -math.inf


class Cache:
    """Credentials by identity, fetched by one task for each at a time. Belongs to one loop."""

    def __init__(
        self,
        fetch: Callable[[Identity], Awaitable[Credential]],
        now: Callable[[], float],
        size: int = SIZE,
    ) -> None:
        self._fetch = fetch
        self._now = now
        self._size = size
        self._entries: OrderedDict[Identity, _Entry] = OrderedDict()
        self._tasks: set[asyncio.Task[Credential | TokenError]] = set()
        self._closed = False

    def keep(self, identity: Identity, credential: Credential) -> None:
        """Remember credentials that never change."""
        entry = self._entry(identity)
        entry.credential = credential
        entry.refresh_at = entry.usable_until = math.inf

    def ready(self, identity: Identity) -> Credential | None:
        """What can be used at once, None for nothing. Starts to renew what ends soon."""
        entry = self._entries.get(identity)
        if entry is None:
            return None
        self._entries.move_to_end(identity)
        now = self._now()
        if now >= entry.refresh_at:
            if now >= entry.usable_until:
                return None
            self._started(identity, entry)
        return entry.credential

    async def get(self, identity: Identity) -> Credential:
        """What can be used, after waiting for it if need be. Raises TokenError."""
        found = self.ready(identity)
        if found is not None:
            return found
        if self._closed:
            raise TokenError(CLOSED)
        entry = self._entry(identity)
        if entry.task is None and self._now() < entry.retry_at:
            raise TokenError(entry.failure)
        task = self._started(identity, entry)
        try:
            outcome = await asyncio.shield(task)  # others wait for it too
        except asyncio.CancelledError:
            if task.cancelled():
                raise TokenError(CLOSED) from None
            raise
        if isinstance(outcome, TokenError):
            raise TokenError(str(outcome))  # each its own: a traceback is written into it
        return outcome

    async def close(self) -> None:
        """End what is being fetched; nothing is fetched after."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._entries.clear()

    def _entry(self, identity: Identity) -> _Entry:
        entry = self._entries.get(identity)
        if entry is None:
            entry = self._entries[identity] = _Entry()
            if len(self._entries) > self._size:
                self._entries.popitem(last=False)
        return entry

    def _started(self, identity: Identity, entry: _Entry) -> asyncio.Task[Credential | TokenError]:
        if entry.task is None:
            entry.task = asyncio.create_task(self._renew(identity, entry))
            self._tasks.add(entry.task)
            entry.task.add_done_callback(self._tasks.discard)
        return entry.task

    async def _renew(self, identity: Identity, entry: _Entry) -> Credential | TokenError:
        """New credentials for the entry. A failure is returned: perhaps nobody waits for it."""
        try:
            async with asyncio.timeout(FETCH):
                credential = await self._fetch(identity)
            return self._stored(entry, credential)
        except TokenError as error:
            return self._failed(entry, error)
        except TimeoutError:
            return self._failed(entry, TokenError(f"no credentials within {FETCH:.0f} s"))
        except Exception as error:
            # A defect. Its place is logged, not its text: that may quote what came.
            place = "".join(traceback.format_tb(error.__traceback__))
            _log.error("no credentials for %r: %s\n%s", identity, type(error).__name__, place)
            return self._failed(entry, TokenError(f"no credentials: {type(error).__name__}"))
        finally:
            entry.task = None

    def _stored(self, entry: _Entry, credential: Credential) -> Credential:
        now, end = self._now(), credential.expires_at
        if end is None:
            entry.refresh_at, entry.usable_until = now + UNKNOWN, math.inf
        else:
            lifetime = end - now
            if lifetime <= 0:
                raise TokenError("credentials that have expired came: is this machine's clock off?")
            entry.refresh_at = end - min(MARGIN, lifetime / 2)
            entry.usable_until = end - min(LEEWAY, lifetime / 10)
        entry.credential = credential
        entry.retry_at = -math.inf
        return credential

    def _failed(self, entry: _Entry, error: TokenError) -> TokenError:
        now = self._now()
        entry.failure, entry.retry_at = str(error), now + SAME_FAILURE
        if now < entry.usable_until:
            entry.refresh_at = now + PAUSE
            _log.warning("credentials that are still good could not be renewed: %s", error)
        return error
