"""External plugins as Kong 3.10 runs them: instances, repeated events, and what a failure means.

| what happens | MsgPack:1 | ProtoBuf:1 |
|---|---|---|
| server not there, instance unknown | 500 | 500 |
| server not there, instance known | goes on unmodified | 500 |
| the server refuses to start the instance | 500 | 500 |
| error reply (ProtoBuf:1: unknown method) | goes on unmodified | 500 |
| no byte in 60 s | goes on unmodified | 500 |
| connection closed within an event | goes on unmodified | event repeated |
| `no plugin instance` in the error | event repeated | event repeated |
| Lua error in a PDK call, malformed message | 500 | 500 |

"Goes on unmodified": what the plugin changed before the failure stays changed.

After `no plugin instance` a real Kong also resets the instances a second time, some moments later
and through its event bus; whether a request in between is served by a further instance is chance
there. Here the reset happens once.
"""

from __future__ import annotations

import asyncio
import json
import random
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kong_ai_proxy.gateway.context import PluginEntity, RequestContext
from kong_ai_proxy.gateway.pdk import Call, ExitedError, LuaError, error_exit
from kong_ai_proxy.gateway.pdk.base import log, to_string
from kong_ai_proxy.gateway.rpc.clients import (
    MSGPACK,
    PROTOBUF,
    Client,
    MsgpackClient,
    ProtobufClient,
)
from kong_ai_proxy.gateway.rpc.connection import Pool, RpcError


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """Where a plugin's server listens and what it speaks (`ProtoBuf:1` or `MsgPack:1`)."""

    name: str
    socket: Path
    protocol: str


@dataclass(frozen=True, slots=True)
class Limits:
    """Kong's times, in seconds, and the one bound that Kong does not have."""

    read: float = 60.0  # without a byte from the server
    idle: float = 60.0  # of a pooled connection
    poll: float = 0.1  # between looks at an instance that another request is starting
    claim: float = 10.0  # for which such an instance is waited for
    rounds: int = 20  # of one event; a real Kong would repeat it for ever


@dataclass(slots=True, eq=False)
class _Instance:
    """One plugin's instance at its server. `id` None: a request is starting it."""

    entity: PluginEntity
    id: object = None
    plugin: str | None = None  # set once it has been started


class _Plugin:
    """What Kong keeps for one plugin: its client and the process it last heard from."""

    def __init__(self, info: ServerInfo, pool: Pool, limits: Limits, owner: ExternalPlugins):
        self.name = info.name
        self.fails_open = info.protocol == MSGPACK
        self._owner = owner
        self._pid: float | None = None
        self.client: Client
        if info.protocol == PROTOBUF:
            self.client = ProtobufClient(pool, info.socket, limits.read)
        elif info.protocol == MSGPACK:
            self.client = MsgpackClient(pool, info.socket, limits.read, self._notified)
        else:
            raise ValueError(f"plugin server {info.name}: unknown protocol {info.protocol!r}")

    def _notified(self, label: object, argument: object) -> None:
        """`serverPid`: another process than before has forgotten all instances."""
        if label != "serverPid":
            return
        pid = _number(argument)
        if self._pid is not None and pid != self._pid:
            self._owner.reset(self.name)
        self._pid = pid


def _number(value: object) -> float | None:
    try:
        return float(to_string(value))
    except ValueError:
        return None


class ExternalPlugins:
    """The external plugins of one worker of the stand-in; belongs to one event loop.

    `servers`: by plugin name.
    """

    def __init__(
        self,
        servers: Mapping[str, ServerInfo],
        *,
        limits: Limits | None = None,
        node_id: str | None = None,
    ) -> None:
        self._limits = limits or Limits()
        self._pool = Pool(self._limits.idle)
        self._plugins = {
            name: _Plugin(info, self._pool, self._limits, self) for name, info in servers.items()
        }
        self._instances: dict[str, _Instance] = {}
        self._node_id = node_id or str(uuid.uuid4())
        self._shuffle = random.Random(0)  # noqa: S311 - the order of keys, no secret

    async def run(self, entity: PluginEntity, phase: str, ctx: RequestContext) -> None:
        """Run one phase ("rewrite", "access" or "log") of one plugin on one request.

        Changes `ctx`; sets `ctx.exit` when the plugin answered, or when Kong would answer 500.
        Raises KeyError for a plugin that has no server.
        """
        plugin = self._plugins[entity.name]
        call = Call(ctx, entity, phase, self._node_id)
        try:
            await self._repeat(plugin, call)
        except ExitedError:
            return
        except LuaError as error:
            log(call, "error", str(error))
            self._fail(call)
        except RecursionError:  # a value nested too deep: Lua's stack overflows as well
            log(call, "error", "stack overflow")
            self._fail(call)

    async def close(self) -> None:
        """Close all connections."""
        self._pool.close()
        await asyncio.sleep(0)  # lets the transports close their sockets

    def _fail(self, call: Call) -> None:
        if call.phase != "log":  # there the client has its answer already
            error_exit(call.ctx)

    async def _repeat(self, plugin: _Plugin, call: Call) -> None:
        for _ in range(self._limits.rounds):
            try:
                instance = await self._instance(plugin, call)
                await plugin.client.handle_event(instance, call)
            except RpcError as error:
                if not self._is_over(plugin, call, error):
                    self.reset(plugin.name)
                    continue
            return
        log(
            call,
            "error",
            f"stand-in: the event was repeated {self._limits.rounds} times and is given up; "
            "a real Kong would go on for ever",
        )
        self._fail(call)

    def _is_over(self, plugin: _Plugin, call: Call, error: RpcError) -> bool:
        """Log a failure and do what Kong does about it; False: start again and repeat the event."""
        if plugin.fails_open:
            if error.text in (None, False):
                return True
            if not isinstance(error.text, str):
                raise LuaError(f"attempt to index a value that is no text: {error.text!r}")
        text = to_string(error.text)
        lowered = text.lower()
        if "no plugin instance" in lowered or (not plugin.fails_open and "closed" in lowered):
            log(call, "warn", text)
            return False
        if plugin.fails_open:
            log(call, "error", text)
        else:
            log(call, "error", f"pluginserver error: {text}")
            self._fail(call)
        return True

    def reset(self, plugin: str) -> None:
        """Forget all instances of a plugin; those being started for the first time stay."""
        found = self._instances.items()
        self._instances = {key: item for key, item in found if item.plugin != plugin}

    async def _instance(self, plugin: _Plugin, call: Call) -> object:
        """The id of the instance for this configuration, started when need be."""
        entity = call.entity
        known = await self._settled(entity)
        if known is not None and known.entity.seq == entity.seq:
            return known.id
        old = None if known is None else known.id
        claim = known
        if claim is None:
            claim = self._instances[entity.id] = _Instance(entity)
        claim.id = None
        claim.id = await self._start(plugin, call)
        claim.plugin = entity.name
        claim.entity = entity
        if old is not None:
            await self._close(plugin, old)
        return claim.id

    async def _settled(self, entity: PluginEntity) -> _Instance | None:
        """The instance once nobody is starting it any more; RpcError after `Limits.claim`."""
        waited = 0.0
        while (known := self._instances.get(entity.id)) is not None and known.id is None:
            await asyncio.sleep(self._limits.poll)
            waited += self._limits.poll
            if waited > self._limits.claim:
                self._instances.pop(entity.id, None)
                key = f"{entity.name} (key: {entity.id})"
                raise RpcError(f"Could not claim instance_id for {key}")
        return known

    async def _start(self, plugin: _Plugin, call: Call) -> object:
        entity = call.entity
        try:
            return await plugin.client.start_instance(entity.name, self._config(entity))
        except RpcError as error:
            self._instances.pop(entity.id, None)
            text = to_string(error.text)
            log(call, "error", f"starting instance: {text}")
            raise LuaError(text) from None
        except asyncio.CancelledError:
            self._instances.pop(entity.id, None)
            raise

    async def _close(self, plugin: _Plugin, instance: object) -> None:
        try:
            await plugin.client.close_instance(instance)
        except RpcError:
            return  # perhaps another worker was first

    def _config(self, entity: PluginEntity) -> bytes:
        """The configuration as Kong sends it: JSON, no nulls, keys in any order, and with Kong's
        own keys.
        """
        config = _lua_table(entity.config)
        for path, reference in entity.refs.items():
            _add_reference(config, path, reference)
        own = {
            "__seq__": entity.seq,
            "__key__": entity.key,
            "__ws_id": entity.ws_id,
            "__plugin_id": entity.id,
            "route_id": entity.route_id,
            "service_id": entity.service_id,
            "consumer_id": entity.consumer_id,
        }
        config.update((key, value) for key, value in own.items() if value is not None)
        text = json.dumps(self._shuffled(config), separators=(",", ":"), ensure_ascii=False)
        return text.replace("/", "\\/").encode("utf-8", "surrogateescape")

    def _shuffled(self, value: object) -> object:
        if isinstance(value, dict):
            keys = list(value)
            self._shuffle.shuffle(keys)
            return {key: self._shuffled(value[key]) for key in keys}
        if isinstance(value, list):
            return [self._shuffled(item) for item in value]
        return value


def _lua_table(table: Mapping[str, object]) -> dict[str, object]:
    return {key: _lua_value(value) for key, value in table.items() if value is not None}


def _lua_value(value: object) -> object:
    """What Kong's JSON encoder makes of a value: no null in a table, 1.0 as 1."""
    if isinstance(value, Mapping):
        return _lua_table(value)
    if isinstance(value, list | tuple):
        return [_lua_value(item) for item in value]
    if isinstance(value, float):
        return int(value) if value.is_integer() else float(f"{value:.14g}")
    return value


def _add_reference(config: dict[str, object], path: str, reference: str) -> None:
    """Kong keeps references in a `$refs` of the record that has the field. (It keeps those in
    lists and maps elsewhere; the project's schemas allow none there.)
    """
    *parents, field = path.replace("[", ".").replace("]", "").split(".")
    node: object = config
    for part in parents:
        if isinstance(node, dict):
            node = node.get(part)
        elif isinstance(node, list) and part.isdigit() and int(part) < len(node):
            node = node[int(part)]
        else:
            return
    if isinstance(node, dict):
        refs = node.setdefault("$refs", {})
        refs[field] = reference
