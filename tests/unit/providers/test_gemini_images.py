"""Images of Gemini and Imagen, of the Gemini API and of Vertex AI: which calls are made."""

from __future__ import annotations

from base64 import b64decode, b64encode
from typing import Any

import pytest

from kong_ai_proxy.formats import openai
from kong_ai_proxy.formats.errors import FormatError
from kong_ai_proxy.formats.form import Part
from kong_ai_proxy.providers import images
from kong_ai_proxy.providers.flow import MAX_MEDIA, Flow, ProviderFailed, Reply, Result, Send
from kong_ai_proxy.providers.gemini import GEMINI, VERTEX
from kong_ai_proxy.providers.gemini.images import EDIT, GENERATE, VERTEX_EDIT, VERTEX_GENERATE
from tests.flows import Driven, field_of, reply, run, wanted
from tests.providers.pictures import MASK, PNG, pixels

GEMINI_MODEL = "gemini-2.5-flash-image"
IMAGEN = "imagen-4.0-generate-001"
CAPABLE = "imagen-3.0-capability-001"
OPTIONS = {
    "gemini": {
        "api_endpoint": "us-central1-aiplatform.googleapis.com",
        "project_id": "acme",
        "location_id": "us-central1",
    }
}
PARENT = "/v1/projects/acme/locations/us-central1"
B64 = b64encode(PNG).decode()
USAGE = {"promptTokenCount": 8, "candidatesTokenCount": 1290, "totalTokenCount": 1298}


def content(*more: dict[str, Any]) -> Reply:
    part = {"inlineData": {"mimeType": "image/png", "data": B64}}
    candidate = {"content": {"parts": [part, *more]}, "finishReason": "STOP"}
    return reply({"candidates": [candidate], "usageMetadata": USAGE})


def unsafe() -> Reply:
    return reply({"candidates": [{"finishReason": "IMAGE_SAFETY"}]})


def predictions(count: int) -> Reply:
    image = {"bytesBase64Encoded": B64, "mimeType": "image/png"}
    return reply({"predictions": [image] * count})


def generated(flow: Flow, model: str, *replies: Reply, **body: Any) -> Driven:
    options = OPTIONS if flow is VERTEX_GENERATE else {}
    asked = wanted(model=model, options=options, body={"prompt": "A cat", **body})
    return run(flow, asked, replies)


def edited(flow: Flow, model: str, *replies: Reply, mask: bytes = b"", **fields: str) -> Driven:
    texts = {"prompt": "A cat", **fields}
    parts = [field_of(name, text) for name, text in texts.items()]
    parts.append(Part("image", "cat.png", "image/png", PNG))
    if mask:
        parts.append(Part("mask", "mask.png", "image/png", mask))
    options = OPTIONS if flow is VERTEX_EDIT else {}
    asked = wanted(openai.IMAGE_EDITS, model=model, options=options, body=texts, parts=tuple(parts))
    return run(flow, asked, replies)


def paths(driven: Driven) -> list[str]:
    assert all(send.method == "POST" and send.is_own and not send.query for send in driven.sends)
    return [send.path for send in driven.sends]


def test_the_rows_have_them() -> None:
    assert GEMINI.flows[openai.IMAGE_GENERATIONS] is GENERATE
    assert GEMINI.flows[openai.IMAGE_EDITS] is EDIT
    assert VERTEX.flows[openai.IMAGE_GENERATIONS] is VERTEX_GENERATE
    assert VERTEX.flows[openai.IMAGE_EDITS] is VERTEX_EDIT


@pytest.mark.parametrize(
    ("flow", "model", "path"),
    [
        (GENERATE, GEMINI_MODEL, f"/v1beta/models/{GEMINI_MODEL}:generateContent"),
        (GENERATE, f"models/{GEMINI_MODEL}", f"/v1beta/models/{GEMINI_MODEL}:generateContent"),
        (GENERATE, IMAGEN, f"/v1beta/models/{IMAGEN}:predict"),
        (
            VERTEX_GENERATE,
            GEMINI_MODEL,
            f"{PARENT}/publishers/google/models/{GEMINI_MODEL}:generateContent",
        ),
        (VERTEX_GENERATE, IMAGEN, f"{PARENT}/publishers/google/models/{IMAGEN}:predict"),
        (VERTEX_GENERATE, "endpoints/123", f"{PARENT}/endpoints/123:generateContent"),
    ],
)
def test_where_images_are_made(flow: Flow, model: str, path: str) -> None:
    answer = predictions(1) if path.endswith("predict") else content()
    driven = generated(flow, model, answer)
    assert paths(driven) == [path]
    assert driven.value["data"] == [{"b64_json": B64}]


def test_a_deployed_model_of_the_operators() -> None:
    options = {"gemini": {**OPTIONS["gemini"], "endpoint_id": "456"}}
    asked = wanted(model=IMAGEN, options=options, body={"prompt": "A"})
    assert paths(run(VERTEX_GENERATE, asked, [predictions(1)])) == [
        f"{PARENT}/endpoints/456:predict"
    ]


def test_usage_and_what_was_dropped() -> None:
    driven = generated(GENERATE, GEMINI_MODEL, content(), user="u", quality="high")
    assert isinstance(driven.result, Result)
    assert driven.value["usage"]["output_tokens"] == 1290
    assert driven.value["output_format"] == "png"
    assert driven.result.usage
    assert driven.result.usage.total_tokens == 1298
    assert set(driven.result.dropped) == {"user", "quality"}


def test_several_images_are_several_calls() -> None:
    driven = generated(GENERATE, GEMINI_MODEL, content(), content(), content(), n=3)
    assert len(driven.value["data"]) == 3
    assert isinstance(driven.result, Result)
    assert driven.result.usage
    assert driven.result.usage.total_tokens == 3 * 1298
    assert driven.sent(0) == driven.sent(2)


def test_imagen_makes_four_by_one_call() -> None:
    driven = generated(GENERATE, IMAGEN, predictions(4), predictions(4), predictions(1), n=10)
    counts = [driven.sent(number)["parameters"]["sampleCount"] for number in range(3)]
    assert counts == [4, 4, 2]
    assert len(driven.value["data"]) == 9  # one was filtered out


def test_a_seed_counts_up_from_call_to_call() -> None:
    driven = generated(
        GENERATE, GEMINI_MODEL, content(), content(), n=2, generationConfig={"seed": 7}
    )
    assert [driven.sent(call)["generationConfig"]["seed"] for call in range(2)] == [7, 8]


@pytest.mark.parametrize(
    ("seed", "seeds"),
    [(7, [7, 11]), (2**31 - 1, [2**31 - 1, 3]), ("x", ["x", "x"]), (-1, [-1, -1])],
)
def test_a_seed_of_imagens_goes_on_after_the_images_before(seed: Any, seeds: list[Any]) -> None:
    driven = generated(
        VERTEX_GENERATE, IMAGEN, predictions(4), predictions(1), n=5, parameters={"seed": seed}
    )
    assert [driven.sent(call)["parameters"]["seed"] for call in range(2)] == seeds


@pytest.mark.parametrize("model", [GEMINI_MODEL, IMAGEN])
def test_images_beyond_what_may_be_held_are_not_asked_for(
    monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    monkeypatch.setattr(images, "MAX_HELD", len(B64))
    made = content() if model == GEMINI_MODEL else predictions(4)
    driven = Driven()
    asked = wanted(model=model, body={"prompt": "A cat", "n": 9})
    with pytest.raises(FormatError, match="ask for fewer"):
        run(GENERATE, asked, lambda _: made, driven=driven)
    assert len(driven.sends) == (2 if model == GEMINI_MODEL else 1)


def test_those_that_are_refused_do_not_spoil_the_others() -> None:
    driven = generated(GENERATE, GEMINI_MODEL, unsafe(), content(), n=2)
    assert len(driven.value["data"]) == 1


def test_all_refused() -> None:
    with pytest.raises(ProviderFailed, match="IMAGE_SAFETY") as failed:
        generated(GENERATE, GEMINI_MODEL, unsafe(), unsafe(), n=2)
    assert failed.value.error.status == 400
    with pytest.raises(ProviderFailed, match="all images were filtered out") as failed:
        generated(VERTEX_GENERATE, IMAGEN, reply({}))
    assert failed.value.error.status == 400


def test_only_vertex_is_told_which_file_to_make() -> None:
    for flow in (GENERATE, VERTEX_GENERATE, EDIT, VERTEX_EDIT):
        make = edited if flow in (EDIT, VERTEX_EDIT) else generated
        config = make(flow, GEMINI_MODEL, content(), output_format="jpeg").sent()[
            "generationConfig"
        ]
        told = {"imageConfig": {"imageOutputOptions": {"mimeType": "image/jpeg"}}}
        is_told = flow in (VERTEX_GENERATE, VERTEX_EDIT)
        assert config == {"responseModalities": ["TEXT", "IMAGE"], **(told if is_told else {})}


def test_an_address_that_was_asked_for_is_a_data_url() -> None:
    driven = generated(GENERATE, GEMINI_MODEL, content(), response_format="url")
    assert driven.value["data"] == [{"url": f"data:image/png;base64,{B64}"}]


# ---- edits


@pytest.mark.parametrize("flow", [EDIT, VERTEX_EDIT])
def test_an_edit_by_gemini(flow: Flow) -> None:
    driven = edited(flow, GEMINI_MODEL, content(), content(), n="2", size="1536x1024")
    body = driven.sent()
    parts = body["contents"][0]["parts"]
    assert parts == [
        {"text": "A cat"},
        {"inlineData": {"mimeType": "image/png", "data": B64}},
    ]
    assert body["generationConfig"]["imageConfig"] == {"aspectRatio": "3:2"}
    assert len(driven.value["data"]) == 2


def test_an_edit_by_imagen() -> None:
    driven = edited(VERTEX_EDIT, CAPABLE, predictions(1), mask=MASK)
    assert paths(driven) == [f"{PARENT}/publishers/google/models/{CAPABLE}:predict"]
    raw, mask = driven.sent()["instances"][0]["referenceImages"]
    assert raw["referenceImage"] == {"bytesBase64Encoded": B64}
    made = b64decode(mask["referenceImage"]["bytesBase64Encoded"])
    assert pixels(made) == b"\xff\x00\x00\x00"  # MASK is transparent at the first pixel
    assert driven.sent()["parameters"]["editMode"] == "EDIT_MODE_INPAINT_INSERTION"


def test_imagen_edits_on_vertex_only() -> None:
    with pytest.raises(FormatError, match="model: Imagen edits images on Vertex AI only"):
        edited(EDIT, CAPABLE)


@pytest.mark.parametrize("flow", [EDIT, VERTEX_EDIT])
def test_gemini_takes_no_mask(flow: Flow) -> None:
    with pytest.raises(FormatError, match="mask: Gemini's models take none"):
        edited(flow, GEMINI_MODEL, mask=MASK)


def test_a_mask_without_transparency() -> None:
    with pytest.raises(FormatError, match="mask: expected"):
        edited(VERTEX_EDIT, CAPABLE, mask=PNG)


# ---- bad input, on both sides


@pytest.mark.parametrize("model", ["", "..", "a/../b", "x%2e%2e", "a\nb"])
@pytest.mark.parametrize("flow", [GENERATE, VERTEX_GENERATE])
def test_models_that_are_no_names(flow: Flow, model: str) -> None:
    with pytest.raises(FormatError, match="model: expected a name"):
        generated(flow, model)


def test_a_path_is_escaped() -> None:
    driven = generated(GENERATE, "a/b?c=#d", content())
    assert paths(driven) == ["/v1beta/models/a%2Fb%3Fc%3D%23d:generateContent"]


BAD = [
    (reply({"error": {"code": 429, "message": "Slow", "status": "RESOURCE_EXHAUSTED"}}, 429), 429),
    (reply({"error": {"code": 400, "message": "Bad", "status": "INVALID_ARGUMENT"}}, 400), 400),
    (reply(b"<html>", 503), 503),
    (reply(b"", 500), 500),
    (reply(b""), 502),
    (reply(b"<html>"), 502),
    (reply([]), 502),
    (reply({"predictions": 7, "candidates": 7}), 502),
]


@pytest.mark.parametrize(("answer", "status"), BAD)
@pytest.mark.parametrize("model", [GEMINI_MODEL, IMAGEN])
def test_a_provider_that_fails(model: str, answer: Reply, status: int) -> None:
    with pytest.raises(ProviderFailed) as failed:
        generated(VERTEX_GENERATE, model, answer)
    assert failed.value.error.status == status


def test_a_later_call_that_fails() -> None:
    with pytest.raises(ProviderFailed) as failed:
        generated(GENERATE, GEMINI_MODEL, content(), BAD[0][0], n=3)
    assert failed.value.error.status == 429


def test_nothing_is_sent_elsewhere() -> None:
    driven = generated(GENERATE, GEMINI_MODEL, content())
    send = driven.sends[0]
    assert send == Send("POST", send.path, body=send.body, most=MAX_MEDIA)
