"""What the tests of the stand-in provider share: it runs, and an official client talks to it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
from openai import AsyncOpenAI, DefaultAsyncHttpxClient

from kong_ai_proxy.gateway.provider import Provider


@contextlib.asynccontextmanager
async def client(
    api_key: str | None = None, given: str = "any", *, strict: bool = True
) -> AsyncIterator[AsyncOpenAI]:
    """OpenAI's client for a provider of its own; `given` is the key it sends.

    A strict one raises where an answer does not fit its models. They have no room for two things
    that OpenAI itself sends: numbers in base64, and chunks of a completion before its end.
    """
    provider = await Provider.start(api_key=api_key)
    try:
        async with AsyncOpenAI(
            base_url=provider.url,
            api_key=given,
            max_retries=0,
            http_client=DefaultAsyncHttpxClient(verify=False),  # certificates take long to load
            _strict_response_validation=strict,
        ) as official:
            yield official
    finally:
        await provider.stop()


@contextlib.asynccontextmanager
async def plain(api_key: str | None = None) -> AsyncIterator[httpx.AsyncClient]:
    """An HTTP client for a provider of its own, for requests an official client would not send."""
    provider = await Provider.start(api_key=api_key)
    url = provider.url.removesuffix("/v1")
    try:
        async with httpx.AsyncClient(base_url=url, verify=False) as http:
            yield http
    finally:
        await provider.stop()


def said(text: str) -> list[Any]:
    """One message of the user's."""
    return [{"role": "user", "content": text}]


def tool(name: str, parameters: dict[str, Any], description: str = "") -> Any:
    described = {"name": name, "description": description, "parameters": parameters}
    return {"type": "function", "function": described}
