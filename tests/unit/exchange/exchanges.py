"""Requests and configurations in short form."""

from __future__ import annotations

from typing import Any

import orjson

from kong_ai_proxy import config
from kong_ai_proxy.exchange.messages import ClientRequest, UpstreamRequest
from kong_ai_proxy.exchange.plan import Body, Plan

Json = dict[str, Any]

CHAT: Json = {"messages": [{"role": "user", "content": "hello"}]}


def ai_proxy(**changes: Any) -> Json:
    """A configuration of ai-proxy: OpenAI chat with a key, and `changes` at its top level."""
    return {
        "route_type": "llm/v1/chat",
        "auth": {"header_name": "Authorization", "header_value": "Bearer sk-config"},
        "model": {"provider": "openai", "name": "gpt-4o"},
        **changes,
    }


def model(name: str | None = "gpt-4o", alias: str | None = None, **options: Any) -> Json:
    """The `model` of a target."""
    named = {} if name is None else {"name": name}
    aliased = {} if alias is None else {"model_alias": alias}
    return {"provider": "openai", **named, **aliased, "options": options}


def request(body: bytes = b"x", **fields: Any) -> ClientRequest:
    """A POST of JSON of the length of `body`; `headers` are added to it."""
    headers = {"content-type": ("application/json",), "content-length": (str(len(body)),)}
    headers |= {name: (value,) for name, value in fields.pop("headers", {}).items()}
    return ClientRequest(**{"method": "POST", "path": "/chat", "headers": headers, **fields})


def send(
    configuration: Json, body: Json | bytes | None = None, plugin: str = "ai-proxy", **fields: Any
) -> UpstreamRequest:
    """What goes to the provider for this configuration and request."""
    raw = body if isinstance(body, bytes) else orjson.dumps(CHAT if body is None else body)
    plan = Plan(config.parse(plugin, configuration))
    plan.check_available()
    client = request(raw, **fields)
    plan.check_head(client)
    return plan.attempt(client, raw if plan.body(client) is Body.READ else None).start()


def sent_body(upstream: UpstreamRequest) -> Json:
    """The changed body, parsed."""
    assert isinstance(upstream.body, bytes)
    parsed: Json = orjson.loads(upstream.body)
    return parsed
