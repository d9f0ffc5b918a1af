"""Where everything is in Redis. A human finds it with `SCAN 0 MATCH kong-ai-proxy:vectors:*`.

    kong-ai-proxy:vectors:{<space>}                        hash: names, digest, metric, dimensions
    kong-ai-proxy:vectors:{<space>}:lock                   who puts the space
    kong-ai-proxy:vectors:<metric>:<dimensions>:{<space>}:<name>   hash: space, vector
    kong-ai-proxy:vectors:<metric>:<dimensions>            a search index over all of the latter

Keys of a space are in one slot of a cluster: the braces see to it. Every key ends by itself when
the space is not used any more. Who logs in needs

    ACL SETUSER kong on >password ~kong-ai-proxy:vectors:* \\
        +hmget +hget +hset +del +expire +set +get +pexpire +eval \\
        +ft.info +ft.create +ft.search

of which the last line is for a search module alone (without that, or the module, vectors are
compared here).
"""

from __future__ import annotations

from kong_ai_proxy.vectors.store import Space

PREFIX = "kong-ai-proxy:vectors"


def space_key(space: Space) -> str:
    """The hash that is there when all of the space is."""
    return f"{PREFIX}:{{{space.name}}}"


def lock_key(space: Space) -> str:
    """The lock for putting the space."""
    return f"{space_key(space)}:lock"


def index_name(space: Space) -> str:
    """The search index of all spaces that are like this one."""
    return f"{PREFIX}:{space.metric}:{space.dimensions}"


def prefix(space: Space, name: str | None = None) -> str:
    """How the keys of all vectors in the index begin, or those of the space with that name."""
    start = f"{index_name(space)}:"
    return start if name is None else f"{start}{{{name}}}:"


def vector_key(space: Space, name: str) -> str:
    """The hash of one vector."""
    return prefix(space, space.name) + name
