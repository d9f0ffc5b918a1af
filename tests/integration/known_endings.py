"""Requests with keys in them, and everything they may come to."""

from __future__ import annotations

import json

from tests.decks import KEY
from tests.integration.known_parts import (
    JSON_TYPE,
    Exchange,
    Json,
    Provider,
    chat_route,
    head,
    service,
    services_deck,
    whole,
)

CLIENTS = "sk-the-clients-own"
CLIENTS_IN_URL = "sk-in-the-clients-url"
CREDENTIALS = {
    "authorization": f"Bearer {CLIENTS}",
    "x-api-key": CLIENTS,
    "apikey": CLIENTS,
    "cookie": f"session={CLIENTS}",
}
"""What the client sends of its own."""

AUTHS: dict[str, Json] = {
    "bearer": {"header_name": "Authorization", "header_value": f"Bearer {KEY}"},
    "header": {"header_name": "x-goog-api-key", "header_value": KEY},
    "query": {"param_name": "key", "param_value": KEY, "param_location": "query"},
    "body": {"param_name": "api_key", "param_value": KEY, "param_location": "body"},
}
"""Where a provider's key goes."""

ENDINGS = {
    "answered": 200,
    "unauthorized": 401,
    "refused": 502,
    "without-tls": 502,
    "garbage": 502,
    "broken-off": 200,
    "silent": 504,
    "not-found": 0,
}
"""How requests end, by the path at the provider, and the status for the client; 0: any error."""


async def ending(exchange: Exchange) -> None:
    """What the provider does about each of ENDINGS. It tells the key as OpenAI's 401 once did."""
    how = exchange.request.target.partition("?")[0].split("/")[2]
    echo = json.dumps({"error": {"message": f"Incorrect API key provided: {KEY}"}}).encode()
    if how == "silent":
        await exchange.gone()
    elif how == "unauthorized":
        await exchange.send(whole(echo, "401 Unauthorized"))
        return
    elif how == "garbage":
        await exchange.send(b"this is no HTTP: %b\r\n\r\n" % KEY.encode())
    elif how == "broken-off":
        await exchange.send(head(headers=JSON_TYPE, length=1000) + echo)
    else:
        await exchange.send(whole())
        return
    exchange.writer.close()


def secret_deck(provider: Provider, closed: int, way: str, *plugins: Json) -> str:
    """A route for each place of the key and each ending."""
    usual: list[Json] = []
    impatient: list[Json] = []
    for place, auth in AUTHS.items():
        for how in ENDINGS:
            path = f"/{place}/{how}"
            url = {
                "refused": f"http://127.0.0.1:{closed}{path}",
                "without-tls": provider.url(path, "https"),
                "not-found": f"http://provider.invalid{path}",
            }.get(how, provider.url(path))
            made = chat_route(path, url, way, auth=auth)
            if how == "silent" and (way == "relay" or place == "query"):
                target = made["plugins"][0]["config"]
                limits = {"read_timeout": 300, "connect_timeout": 300, "write_timeout": 300}
                advanced = {"targets": [target], "balancer": {**limits, "retries": 0}}
                made["plugins"][0].update(name="ai-proxy-advanced", config=advanced)
            (impatient if how == "silent" and way == "kong" else usual).append(made)
    services = [service("usual", *usual)]
    if impatient:
        services.append(service("impatient", *impatient, read_timeout=1500))
    return services_deck(*services, plugins=[*plugins])
