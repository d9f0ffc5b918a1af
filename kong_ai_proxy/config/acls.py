"""Who may use which model: `config.acls` of ai-proxy-advanced.

Fields are those of the Kong 3.15 plugin schema. What could never hold is refused: a denial that
never denies would look like protection.
"""

from __future__ import annotations

import ipaddress
from typing import ClassVar, Literal, get_args

from kong_ai_proxy.config.fields import Array, Record, Text, setting
from kong_ai_proxy.config.records import Provider
from kong_ai_proxy.config.rules import EachValue, Needs, OneOf, Rule

_PROVIDERS = get_args(Provider)

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_MAPPED_BITS = 96


def network(text: str) -> Network:
    """The addresses that `text` stands for: one, or those of a CIDR range. IPv4 addresses written
    as IPv6 ones (RFC 4291 section 2.5.5.2) are taken for what they are. Raises ValueError."""
    found = ipaddress.ip_network(text, strict=False)
    mapped = getattr(found.network_address, "ipv4_mapped", None)
    if mapped is None or found.prefixlen < _MAPPED_BITS:
        return found
    return ipaddress.ip_network((mapped, found.prefixlen - _MAPPED_BITS))


def _is_network(value: str) -> bool:
    try:
        network(value)
    except ValueError:
        return False
    return True


class AclMatch(Record):
    """One condition on a request."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Needs(
            "type", "header", ("key",), "must set 'key', the name of the header, for type header"
        ),
        OneOf(
            "type",
            "consumer",
            "key",
            ("id", "username"),
            "expected id, username or none for type consumer",
        ),
        OneOf(
            "type",
            "consumer_group",
            "key",
            ("id", "name"),
            "expected id, name or none for type consumer_group",
        ),
        EachValue(
            ("type", "ip"),
            "values",
            _is_network,
            {"match": "^[%x:.]+/?%d*$"},
            "expected an IP address or a range such as 10.0.0.0/8",
        ),
        EachValue(
            ("type", "path"),
            "values",
            lambda value: value.startswith("/"),
            {"match": "^/"},
            "expected a path that begins with /",
        ),
        EachValue(
            ("type", "provider"),
            "values",
            lambda value: value in _PROVIDERS,
            {"one_of": list(_PROVIDERS)},
            f"expected one of: {', '.join(_PROVIDERS)}",
        ),
    )

    key: Text | None = setting(
        "Which property of it: id, username, group name, or name of the header.", default=None
    )
    type: Literal["consumer", "consumer_group", "header", "ip", "model", "path", "provider"] = (
        setting("What is looked at.")
    )
    values: Array[Text] = setting("Values of which one must be there.", len_min=1)


class AclRule(Record):
    """Conditions that must all hold."""

    match: Array[AclMatch] = setting("Conditions that must all hold.", len_min=1)


class Acls(Record):
    """Who may use which model; a denial wins."""

    allow: Array[AclRule] = setting("When given, one of these must hold.", default=(), len_min=1)
    deny: Array[AclRule] = setting("None of these may hold.", default=(), len_min=1)
