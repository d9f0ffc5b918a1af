"""Instances: one configuration of one plugin, by an id that means that configuration for ever.

Kong starts an instance with a configuration and from then on sends only its id. Workers of a node
share ids, Kong keeps them over a restart of the plugin server, and starts them anew at every
declarative reload although nothing changed. Hence the id is derived from the configuration, any
worker loads an instance it has not seen from the Store, and live objects are kept by use.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import logging
import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final, Protocol

from kong_ai_proxy.relay.ticket import Issuer
from kong_ai_proxy.telemetry.failures import frames_of

log = logging.getLogger(__name__)

MAX_LIVE: Final = 1024
"""Plugin objects kept in one process; those unused longest are dropped and loaded again."""

MAX_STORED: Final = 4096
"""Configurations that a MemoryStore keeps."""

# Kong's bookkeeping that says nothing about what the plugin does: the reload's number, the cache
# key, the workspace. `__plugin_id` stays: two plugins with equal fields are two instances.
_NOT_CONFIGURATION: Final = frozenset(("__seq__", "__key__", "__ws_id"))

# And what Kong adds that is no field of the plugin's schema.
_KONG_ADDS: Final = _NOT_CONFIGURATION | {
    "__plugin_id",
    "$refs",
    "route_id",
    "service_id",
    "consumer_id",
    "consumer_group_id",
}

_IDS: Final = 2**31 - 1


def own_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The plugin's own fields: a configuration as Kong sends it, without what Kong adds."""
    return {key: value for key, value in config.items() if key not in _KONG_ADDS}


class Plugin(Protocol):
    """What an instance runs. Handlers are methods named after Kong's phases (`access`, `log`).

    A class whose constructor has a parameter `relay` is given the issuer of the relay's tickets by
    it. Where there is a method `started`, it is told the instance's id and the digest of its
    configuration.
    """

    def __init__(self, config: dict[str, Any]) -> None: ...


class Store(Protocol):
    """Where started configurations are kept for every worker of the plugin server."""

    async def put(self, number: int, plugin: str, config: bytes, /) -> None:
        """Keep a configuration (JSON as Kong sent it) under its id."""

    async def get(self, number: int, /) -> tuple[str, bytes] | None:
        """Plugin and configuration of an id; None when it is not known."""


class MemoryStore:
    """A Store for one process; the configurations used longest ago go first."""

    def __init__(self) -> None:
        self._configurations: OrderedDict[int, tuple[str, bytes]] = OrderedDict()

    async def put(self, number: int, plugin: str, config: bytes) -> None:
        self._configurations[number] = plugin, config
        self._configurations.move_to_end(number)
        if len(self._configurations) > MAX_STORED:
            self._configurations.popitem(last=False)

    async def get(self, number: int) -> tuple[str, bytes] | None:
        found = self._configurations.get(number)
        if found is not None:
            self._configurations.move_to_end(number)
        return found


def _digest(plugin: str, config: Mapping[str, Any] | bytes) -> bytes:
    if isinstance(config, bytes):
        canonical = config
    else:
        kept = {key: value for key, value in config.items() if key not in _NOT_CONFIGURATION}
        canonical = json.dumps(kept, sort_keys=True, separators=(",", ":")).encode()
    return hashlib.blake2b(plugin.encode() + b"\0" + canonical, digest_size=32).digest()


def _id_of(digest: bytes, attempt: int = 0) -> int:
    seed = digest if attempt == 0 else hashlib.blake2b(digest + b"%d" % attempt).digest()
    return int.from_bytes(seed[:8], "big") % _IDS + 1


def instance_id(plugin: str, config: Mapping[str, Any]) -> int:
    """The id of a configuration: 1 to 2^31 - 1, the same in every process and after a restart.

    The order of keys does not matter (it differs between Kong's starts), nor do `__seq__`,
    `__key__` and `__ws_id`; `__plugin_id` does.
    """
    return _id_of(_digest(plugin, config))


class UnknownPluginError(LookupError):
    """Kong asked for a plugin that this server does not have."""


class Instance:
    """A plugin object with its configuration, or the reason why there is none.

    `error` is the text that answers every request when the configuration could not be taken. Such
    an instance exists nevertheless: Kong would repeat a failing start for every request.
    """

    __slots__ = ("config_digest", "error", "id", "name", "plugin", "prepared", "started_at")

    def __init__(self, number: int, name: str, config_digest: bytes) -> None:
        self.id = number
        self.name = name
        self.config_digest = config_digest
        self.plugin: Any = None
        self.error: str | None = None
        self.started_at = int(time.time())
        self.prepared: Any = None  # what a protocol worked out from the plugin's `prefetch`

    def load(
        self, plugin: type[Plugin], config: Mapping[str, Any] | bytes, relay: Issuer | None = None
    ) -> None:
        """Make the plugin object; what goes wrong becomes `error`."""
        if isinstance(config, bytes):
            self.error = f"{self.name}: the configuration that Kong sent is no JSON object"
            log.error("plugin %s, instance %d: configuration is no JSON object", self.name, self.id)
            return
        try:
            self.plugin = self._make(plugin, dict(config), relay)
        except Exception as error:
            self.error = f"{self.name}: the configuration could not be loaded"
            text = "plugin %s, instance %d: configuration could not be loaded\n%s"
            log.error(text, self.name, self.id, frames_of(error))

    def _make(self, plugin: type[Any], config: dict[str, Any], relay: Issuer | None) -> Any:
        made = plugin(config, relay=relay) if _takes_relay(plugin) else plugin(config)
        if hasattr(made, "started"):
            made.started(self.id, self.config_digest)
        return made


def _takes_relay(plugin: type[Any]) -> bool:
    try:
        return "relay" in inspect.signature(plugin).parameters
    except (TypeError, ValueError):  # Python cannot tell the parameters
        return False


def _parse(config: bytes) -> dict[str, Any] | bytes:
    """The configuration as an object, or the bytes again when they are none."""
    try:
        parsed = json.loads(config.decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError):
        return config
    return parsed if isinstance(parsed, dict) else config


class Instances:
    """The live instances of one process."""

    def __init__(
        self, plugins: Mapping[str, type[Plugin]], store: Store, relay: Issuer | None = None
    ) -> None:
        self.plugins = plugins
        self._relay = relay
        self._store = store
        self._live: OrderedDict[int, Instance] = OrderedDict()

    def __len__(self) -> int:
        return len(self._live)

    def live(self, number: int) -> Instance | None:
        """An instance that is in memory; None when it has to be found first."""
        instance = self._live.get(number)
        if instance is not None:
            self._live.move_to_end(number)
        return instance

    async def find(self, number: int) -> Instance | None:
        """An instance from memory or from the Store; None when it was never started here."""
        instance = self.live(number)
        if instance is not None:
            return instance
        stored = await self._store.get(number)
        if stored is None or stored[0] not in self.plugins:
            return None
        name, config = stored
        parsed = _parse(config)
        return self._keep(number, name, _digest(name, parsed), parsed)

    async def start(self, name: str, config: bytes) -> Instance:
        """The instance of a configuration as Kong sent it. Raises UnknownPluginError.

        The same configuration gives the same instance, with its state.
        """
        if name not in self.plugins:
            have = ", ".join(sorted(self.plugins))
            raise UnknownPluginError(f"no plugin named {name!r} here; this server has {have}")
        parsed = _parse(config)
        digest = _digest(name, parsed)
        number = await self._free_id(digest)
        try:
            await self._store.put(number, name, config)
        except Exception as error:
            # The others then answer "no plugin instance", and Kong starts it again.
            text = "plugin %s, instance %d: not kept for other workers\n%s"
            log.error(text, name, number, frames_of(error))
        return self._keep(number, name, digest, parsed)

    async def _free_id(self, digest: bytes) -> int:
        """The configuration's id; the next one in the rare case that another one has it."""
        for attempt in range(16):
            number = _id_of(digest, attempt)
            if await self._digest_at(number) in (None, digest):
                return number
        raise RuntimeError("no free instance id after 16 attempts")

    async def _digest_at(self, number: int) -> bytes | None:
        if number in self._live:
            return self._live[number].config_digest
        try:
            stored = await self._store.get(number)
        except Exception as error:
            log.error("instance %d: the store failed\n%s", number, frames_of(error))
            return None
        return None if stored is None else _digest(stored[0], _parse(stored[1]))

    def _keep(
        self, number: int, name: str, digest: bytes, config: Mapping[str, Any] | bytes
    ) -> Instance:
        instance = self.live(number)
        if instance is None or instance.config_digest != digest:
            instance = Instance(number, name, digest)
            instance.load(self.plugins[name], config, self._relay)
            self._live[number] = instance
            if len(self._live) > MAX_LIVE:
                self._live.popitem(last=False)
        return instance
