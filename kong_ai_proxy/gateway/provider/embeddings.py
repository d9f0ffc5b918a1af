"""The stand-in provider's embeddings: vectors that depend on the text.

A vector counts the text's words and runs of three letters, each hashed to a place and a sign, and
is normalised. So the same text always has the same vector, similar texts are near each other and
unrelated ones nearly at right angles.
"""

from __future__ import annotations

import base64
import hashlib
import math
import struct
from collections import defaultdict
from typing import Final

from aiohttp import web

from kong_ai_proxy.gateway.provider.http import (
    ApiError,
    Json,
    Route,
    Rule,
    check_params,
    json_response,
    read_json,
)
from kong_ai_proxy.gateway.provider.inputs import inputs

RULES: Final[dict[str, Rule]] = {
    "dimensions": Rule("an integer", 1, 3072),
    "encoding_format": Rule("a string", options=("float", "base64")),
    "input": Rule("anything"),
    "model": Rule("a string"),
    "user": Rule("a string"),
}

_SIZES: Final = {"text-embedding-3-large": 3072}
_SIZE: Final = 1536  # text-embedding-3-small, text-embedding-ada-002 and whatever else is asked for
_WORD_WEIGHT: Final = 3.0


def vector(text: str, size: int) -> list[float]:
    """The text's vector, `size` numbers of length 1 together."""
    out = [0.0] * size
    for feature, weight in _features(text).items():
        digest = hashlib.blake2b(feature.encode(), digest_size=8).digest()
        place = int.from_bytes(digest, "big")
        out[place % size] += weight if place >> 63 else -weight
    length = math.sqrt(math.fsum(number * number for number in out))
    return [number / length for number in out] if length else [1.0] + [0.0] * (size - 1)


def _features(text: str) -> dict[str, float]:
    found: dict[str, float] = defaultdict(float)
    for word in text.lower().split():
        found[f"word {word}"] += _WORD_WEIGHT
        framed = f" {word} "
        for at in range(len(framed) - 2):
            found[framed[at : at + 3]] += 1
    return found


async def embeddings(request: web.Request) -> web.StreamResponse:
    """POST /v1/embeddings"""
    return json_response(answer(await read_json(request)))


def answer(body: Json) -> Json:
    """The answer to a request. Raises ApiError 400."""
    body = check_params(body, RULES, ("model", "input"))
    texts = inputs(body["input"], "input")
    if any(not item.text for item in texts):
        raise ApiError(400, "Invalid 'input': input cannot be an empty string.", param="input")
    size = _dimensions(body)
    packed = body.get("encoding_format") == "base64"
    data = []
    for number, item in enumerate(texts):
        numbers = vector(item.text, size)
        value: object = _packed(numbers) if packed else numbers
        data.append({"object": "embedding", "index": number, "embedding": value})
    count = sum(item.tokens for item in texts)
    usage = {"prompt_tokens": count, "total_tokens": count}
    return {"object": "list", "data": data, "model": body["model"], "usage": usage}


ROUTES: Final[tuple[Route, ...]] = (("POST", "/v1/embeddings", embeddings),)


def _dimensions(body: Json) -> int:
    size = _SIZES.get(body["model"], _SIZE)
    if "dimensions" not in body:
        return size
    if body["model"] == "text-embedding-ada-002":
        raise ApiError(
            400, "This model does not support specifying dimensions.", param="dimensions"
        )
    if body["dimensions"] > size:
        raise ApiError(
            400,
            f"Invalid value for 'dimensions': {body['model']} has at most {size}.",
            param="dimensions",
        )
    return int(body["dimensions"])


def _packed(numbers: list[float]) -> str:
    """Little-endian 32-bit floats in base64, as OpenAI packs them."""
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()
