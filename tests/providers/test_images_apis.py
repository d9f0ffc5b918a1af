"""The stand-ins for images take what the golden fixtures send, and refuse what the providers do."""

from __future__ import annotations

from typing import Any

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from tests.golden import exchanges
from tests.providers import Recorded, Turn, Upstream
from tests.providers.dashscope_images_api import DashscopeImages, check
from tests.providers.gemini_images_api import GeminiImages, VertexImages, _predicted
from tests.providers.upstream import RefusedError

STANDINS: dict[str, type[Upstream]] = {
    "dashscope": DashscopeImages,
    "gemini": GeminiImages,
    "vertex": VertexImages,
}
GOLDEN = [
    name
    for name in exchanges.names()
    if name.startswith(tuple(f"{row}/{what}" for row in STANDINS for what in ("images", "edits")))
]
MESSAGE = {"messages": [{"role": "user", "content": [{"text": "A"}]}]}


@pytest.mark.parametrize("name", GOLDEN)
def test_what_golden_fixtures_send_is_taken(name: str) -> None:
    for upstream, body in exchanges.play(exchanges.load(name)).asked:
        if upstream.method == "POST":
            place = upstream.address
            headers = CIMultiDictProxy(CIMultiDict(upstream.set_headers))
            seen = Recorded(upstream.method, place.path, place.query, headers, body)
            STANDINS[name.partition("/")[0]]()._answer(seen, Turn())


@pytest.mark.parametrize(
    ("parameters", "instance", "why"),
    [
        ({"sampleCount": 5}, {}, "sampleCount"),
        ({"sampleCount": 1, "aspectRatio": "3:2"}, {}, "aspect ratio"),
        ({"sampleCount": 1, "sampleImageSize": "4K"}, {}, "sampleImageSize"),
        ({"sampleCount": 1, "size": "1K"}, {}, "parameters.size"),
        ({"sampleCount": 1}, {"referenceImages": []}, "referenceImages"),
    ],
)
def test_imagen_refuses(parameters: Any, instance: Any, why: str) -> None:
    body = {"instances": [{"prompt": "A", **instance}], "parameters": parameters}
    with pytest.raises(RefusedError, match=why):
        _predicted(body, Turn(), "imagen-4.0-generate-001")


@pytest.mark.parametrize(
    ("model", "asked", "parameters", "why"),
    [
        ("qwen-image", MESSAGE, {"n": 2}, "num_images"),
        ("qwen-image", MESSAGE, {"size": "1024*1024"}, "size"),
        ("qwen-image", MESSAGE, {"quality": "hd"}, "quality"),
        ("qwen-image", {"prompt": "A"}, {}, "prompt"),
        ("qwen-image-edit", MESSAGE, {}, "images"),
        ("wan2.6-t2i", MESSAGE, {"size": "1024*1024"}, "total pixels"),
        ("wan2.6-t2i", MESSAGE, {"size": "4000*450"}, "ratio"),
        ("wan2.7-image", MESSAGE, {"size": "4096*4096"}, "total pixels"),
        (
            "wan2.7-image-pro",
            MESSAGE,
            {"size": "4096*4096", "enable_sequential": True},
            "total pixels",
        ),
        ("wan2.2-t2i-flash", {"prompt": "A"}, {}, "is called at text2image"),
        ("unheard-of", MESSAGE, {}, "not exist"),
    ],
)
def test_dashscope_refuses(model: str, asked: Any, parameters: Any, why: str) -> None:
    with pytest.raises(RefusedError, match=why):
        check(
            {"model": model, "input": asked, "parameters": parameters},
            "multimodal-generation/generation",
        )
