"""Images of xAI: https://docs.x.ai/docs/guides/image-generations."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from kong_ai_proxy import config
from kong_ai_proxy.config import ModelOptions
from kong_ai_proxy.exchange.messages import UpstreamRequest
from kong_ai_proxy.exchange.plan import Plan
from kong_ai_proxy.formats import openai
from kong_ai_proxy.providers.base import Call
from kong_ai_proxy.providers.xai import XAI
from tests.unit.exchange.exchanges import Json, request, sent_body


def image(body: Json, **model: Any) -> UpstreamRequest:
    """What goes to xAI for a request for images."""
    configuration = {
        "route_type": openai.IMAGE_GENERATIONS,
        "auth": {"header_name": "Authorization", "header_value": "Bearer xai-key"},
        "model": {"provider": "xai", **model},
    }
    raw = orjson.dumps(body)
    plan = Plan(config.parse("ai-proxy", configuration))
    return plan.attempt(request(raw, path="/v1/images/generations"), raw).start()


def test_an_image_is_asked_for_in_openais_format() -> None:
    body = {"model": "grok-imagine-image", "prompt": "a river", "n": 2, "response_format": "url"}
    sent = image(body)
    assert sent.address.host == "api.x.ai"
    assert sent.address.path == "/v1/images/generations"
    assert sent.body is None
    assert sent.set_headers["authorization"] == "Bearer xai-key"


def test_its_own_parameters_pass() -> None:
    extra = {"aspect_ratio": "16:9", "resolution": "2k"}
    sent = image({"model": "grok-imagine-image", "prompt": "a river", "extra_body": extra})
    assert sent_body(sent) == {"model": "grok-imagine-image", "prompt": "a river", **extra}


def test_the_configured_model_is_named() -> None:
    assert sent_body(image({"prompt": "a river"}, name="grok-2-image"))["model"] == "grok-2-image"


@pytest.mark.parametrize("model", ["grok-2-image", "grok-imagine-image", "grok-imagine-3"])
@pytest.mark.parametrize(
    "name",
    [
        "background",
        "moderation",
        "output_compression",
        "output_format",
        "partial_images",
        "size",
        "style",
    ],
)
def test_what_it_has_not_is_dropped_and_told(model: str, name: str) -> None:
    body = {"model": model, "prompt": "a river"}
    sent = image({**body, name: "x"})
    assert sent_body(sent) == body
    assert sent.response_headers["x-kong-ai-dropped-params"] == name


def test_the_older_model_has_no_quality() -> None:
    sent = image({"model": "grok-2-image", "prompt": "a river", "quality": "high"})
    assert sent_body(sent) == {"model": "grok-2-image", "prompt": "a river"}
    assert sent.response_headers["x-kong-ai-dropped-params"] == "quality"


@pytest.mark.parametrize(
    ("asked", "sent"), [("hd", "high"), ("standard", None), ("auto", None), ("low", "low")]
)
def test_a_quality_has_xais_name(asked: str, sent: str | None) -> None:
    body = {"model": "grok-imagine-image", "prompt": "a river", "quality": asked}
    upstream = image(body)
    found = body if upstream.body is None else sent_body(upstream)
    assert found.get("quality") == sent


def test_chat_keeps_words_that_images_have_not() -> None:
    assert "background" not in XAI.refused_for(Call(openai.RESPONSES, "grok-4", ModelOptions()))
