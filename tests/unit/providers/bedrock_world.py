"""Files and batches at Bedrock: a client of the flows, and stand-ins of S3 and Bedrock that check
each request, signed as the exchange signs it, with botocore."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from kong_ai_proxy.auth import sigv4
from kong_ai_proxy.config import Model, ModelOptions
from kong_ai_proxy.exchange.texts import BatchTexts
from kong_ai_proxy.formats import openai
from kong_ai_proxy.providers.bedrock import BEDROCK
from kong_ai_proxy.providers.bedrock.batches import BATCHES
from kong_ai_proxy.providers.bedrock.files import FILES
from kong_ai_proxy.providers.flow import Passed, ProviderFailed, Reply, Send
from tests.flows import Driven, run, wanted
from tests.providers.bedrock_batches_api import BedrockBatches
from tests.providers.direct import answers
from tests.unit.providers.test_files import BATCH, INPUT, TYPE, form

PREFIX = "s3://my-bucket/llm/batches"
ROLE = "arn:aws:iam::123456789012:role/Batch"
MODEL = "amazon.nova-lite-v1:0"
ASSISTANTS = ("purpose", b"assistants")
CREATE = {"endpoint": "/v1/chat/completions", "completion_window": "24h"}

_ids = itertools.count()


def options(**more: Any) -> dict[str, Any]:
    own = {"batch_bucket_prefix": PREFIX, "aws_region": "us-east-1", "batch_role_arn": ROLE}
    return {"upstream_url": "http://aws.test", "bedrock": {**own, **more}}


def signed(upstream: BedrockBatches) -> Callable[[Send], Reply]:
    """What the stand-in answers."""

    def answer(send: Send) -> Reply:
        assert send.base_url == ""
        now = time.time()
        own = {"host": "aws.test", **send.headers}
        headers = sigv4.sign(
            method=send.method,
            host="aws.test",
            path=send.path,
            query=send.query,
            headers={name: text for name, text in own.items() if name.startswith("x-amz-")},
            body=send.body or b"",
            credentials=sigv4.AwsCredentials("AKIASTANDIN", "stand-in-secret"),
            region="us-east-1",
            service=send.service,
            now=now,
        )
        length = {} if send.body is None else {"content-length": str(len(send.body))}
        length = length or ({"content-length": "0"} if send.method in ("PUT", "POST") else {})
        return answers(upstream, {**own, **length, **headers})(send)

    return answer


class World:
    """A bucket, jobs, and a client."""

    def __init__(self, name: str | None = MODEL, **own: Any) -> None:
        self.upstream = BedrockBatches()
        self.options = ModelOptions.model_validate(options(**own))
        self.name = name
        self.now = 1_760_000_000.0

    def _asked(self, route_type: str, method: str, *rest: str, **fields: Any) -> Any:
        self.now += 1
        model = Model(provider="bedrock", name=self.name, options=self.options)
        found = wanted(
            route_type,
            model=self.name or "",
            method=method,
            collection=route_type.rpartition("/")[2],
            rest=rest,
            **{"now": self.now, "id": f"{next(_ids):024d}", **fields},
        )
        texts = BatchTexts(provider=BEDROCK, model=model, now=int(found.now), id=found.id)
        return found._replace(texts=texts, options=self.options)

    def files(self, method: str, *rest: str, body: Iterable[bytes] = (), **fields: Any) -> Driven:
        asked = self._asked(openai.FILES, method, *rest, content_type=TYPE, **fields)
        return run(FILES, asked, signed(self.upstream), body=body)

    def upload(self, *parts: Any) -> Driven:
        """As it arrives over a network."""
        body = form(*parts)
        size = 1 << 20
        return self.files("POST", body=[body[at : at + size] for at in range(0, len(body), size)])

    def batches(self, method: str, *rest: str, **fields: Any) -> Driven:
        asked = self._asked(openai.BATCHES, method, *rest, **fields)
        return run(BATCHES, asked, signed(self.upstream))

    def create(self, **body: Any) -> Any:
        file = self.upload(BATCH, ("file", body.pop("input", INPUT_OF_MODEL), "in.jsonl")).value
        asked = {**CREATE, "input_file_id": file["id"], **body}
        return self.batches("POST", body=asked).value

    def content(self, told: str) -> bytes:
        """What a client downloads."""
        passed = self.files("GET", told, "content").result
        assert isinstance(passed, Passed)
        found = signed(self.upstream)(passed.send)
        if found.status >= 300:
            raise ProviderFailed(passed.errors(found.status, found.body))
        if passed.filter is None:
            return found.body
        middle = len(found.body) // 2
        parts = (found.body[:middle], found.body[middle:])
        return b"".join(map(passed.filter.feed, parts)) + passed.filter.end()


def of_model(data: bytes) -> bytes:
    return data.replace(b"gpt-3.5-turbo-0125", MODEL.encode())


INPUT_OF_MODEL = of_model(INPUT)


def failure(call: Callable[[], object]) -> tuple[int, str]:
    with pytest.raises(ProviderFailed) as failed:
        call()
    return failed.value.error.status, failed.value.error.message
