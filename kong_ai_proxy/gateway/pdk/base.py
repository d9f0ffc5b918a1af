"""What all PDK functions share: Lua's types, its errors, the phases, and the table of methods."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from kong_ai_proxy.gateway.context import PluginEntity, RequestContext

# Kong's phases in the order in which its error texts list them.
PHASES = (
    "rewrite",
    "access",
    "balancer",
    "response",
    "header_filter",
    "body_filter",
    "log",
    "error",
    "admin_api",
)
ANY = PHASES
AUTH_AND_LATER = ("access", "response", "header_filter", "body_filter", "log")
REWRITE_ACCESS = ("rewrite", "access")
REWRITE_ACCESS_BALANCER = ("rewrite", "access", "balancer")
BEFORE_CONTENT = ("rewrite", "access", "response", "error", "admin_api")
RESPONSE_KNOWN = ("response", "header_filter", "body_filter", "log", "error", "admin_api")
RESPONSE_OPEN = (
    "rewrite",
    "access",
    "balancer",
    "response",
    "header_filter",
    "error",
    "admin_api",
)


class LuaError(Exception):
    """A Lua error inside Kong: ends the event, and the request with a 500. Its text is logged."""


class ExitedError(Exception):
    """`kong.response.exit` was called: `RequestContext.exit` has the answer, the event is over."""


@dataclass(slots=True)
class Call:
    """What a PDK function may touch: one event of one plugin on one request."""

    ctx: RequestContext
    entity: PluginEntity
    phase: str
    node_id: str


@dataclass(frozen=True, slots=True)
class Method:
    """A PDK function, how many arguments it takes (None: any) and where it may be called."""

    function: Callable[..., object]
    arity: int | None
    phases: tuple[str, ...]
    in_timer: bool  # works in the timer in which Kong runs the log phase


F = TypeVar("F", bound=Callable[..., object])

METHODS: dict[str, Method] = {}


def method(name: str, phases: tuple[str, ...] = ANY, *, in_timer: bool = False) -> Callable[[F], F]:
    """Register a function as `kong.<name>`. Its first parameter is the `Call`; Lua passes nil for
    what the caller left out and drops what it gave too much, so all others default to None.
    """

    def register(function: F) -> F:
        parameters = list(inspect.signature(function).parameters.values())[1:]
        many = any(p.kind is p.VAR_POSITIONAL for p in parameters)
        arity = None if many else len(parameters)
        METHODS[f"kong.{name}"] = Method(function, arity, phases, in_timer)
        return function

    return register


def invoke(call: Call, name: str, args: Sequence[object]) -> object:
    """Call a method of `METHODS` as Kong does for a plugin server.

    Returns a Lua value (None, bool, int, float, str or bytes, list, dict); of Lua's `nil, err`
    only the nil. Raises LuaError, or ExitedError where the method ends the request.
    """
    entry = METHODS[name]
    if call.phase not in entry.phases:
        allowed = ", ".join(entry.phases)
        raise LuaError(f"function cannot be called in {call.phase} phase (only in: {allowed})")
    if call.phase == "log" and not entry.in_timer:
        raise LuaError("API disabled in the context of ngx.timer")
    arity = entry.arity
    if arity is not None and len(args) > arity:
        args = args[:arity]
    return entry.function(call, *args)


def lua_type(value: object) -> str:
    """Lua's name of a value's type."""
    if value is None:
        return "nil"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str | bytes):
        return "string"
    return "table"


def text(value: object, message: str) -> str:
    """A Lua string as text; LuaError with `message` for anything else."""
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    raise LuaError(message)


def integer(value: object, message: str) -> int:
    """A Lua number without a fraction; LuaError with `message` for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1:
        raise LuaError(message)
    return int(value)


def number_text(value: float) -> str:
    """A number as Lua's tostring prints it: 14 significant digits, no fraction if there is none."""
    if value == value // 1 and abs(value) < 1e14:
        return str(int(value))
    return f"{value:.14g}"


def to_string(value: object) -> str:
    """Lua's tostring."""
    if value is None:
        return "nil"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return number_text(value)
    if isinstance(value, str | bytes):
        return text(value, "")
    return f"table: 0x{id(value):012x}"


def log(call: Call, level: str, message: str) -> None:
    """One line for Kong's error log."""
    call.ctx.log.append(f"[{level}] [{call.entity.name}] {message}")
