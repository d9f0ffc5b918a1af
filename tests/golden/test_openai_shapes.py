"""OpenAI's own types take what fixtures say of OpenAI's format, which passes through as it is."""

from __future__ import annotations

from typing import Any

import pytest
from openai.types import Batch, ImagesResponse, Video
from openai.types.audio import Transcription, Translation
from openai.types.beta import Assistant
from openai.types.beta.threads import Run
from openai.types.responses import Response

from tests.golden import exchanges
from tests.golden.exchanges import Exchanges
from tests.providers.azure_api import REQUESTS
from tests.providers.strict import Validator

ANSWERS: dict[str, Any] = {
    "assistant": Assistant,
    "batch": Batch,
    "response": Response,
    "thread.run": Run,
    "video": Video,
    "edits": ImagesResponse,
    "images": ImagesResponse,
    "transcriptions": Transcription,
    "translations": Translation,
}
"""By the answer's `object`, or by the column of a fixture whose answers have none."""

PATHS = {"images": "/images/generations", "speech": "/audio/speech"}


GOLDEN = [
    exchanges.load(name) for name in exchanges.names() if name.startswith(("azure/", "openai/"))
]


def _column(golden: Exchanges) -> str:
    return golden.cells[0].partition("-")[2]


def _operation(golden: Exchanges) -> str:
    last = golden.request.get("path", "").rpartition("/")[2]
    return PATHS.get(_column(golden), f"/{last}")


def _is_passed_on(golden: Exchanges) -> bool:
    """Whether the answer is JSON that is not converted. Not files: the type demands a member that
    the reference calls deprecated and leaves out."""
    told = golden.exchanges[-1]["answer"]
    return "json" in told and "unchanged" in golden.client and _column(golden) != "files"


@pytest.mark.parametrize(
    "golden", [each for each in GOLDEN if _is_passed_on(each)], ids=lambda each: each.name
)
def test_an_answer(golden: Exchanges) -> None:
    answer = golden.exchanges[-1]["answer"]["json"]
    ANSWERS[answer.get("object", _column(golden))].model_validate(answer, strict=True)


@pytest.mark.parametrize(
    "golden",
    [each for each in GOLDEN if "json" in each.request and _operation(each) in REQUESTS],
    ids=lambda each: each.name,
)
def test_a_request(golden: Exchanges) -> None:
    sent = golden.exchanges[0]["upstream"].get("json") or golden.request["json"]
    Validator(REQUESTS[_operation(golden)][0]).check(sent)
