"""What tests of files and batches share: uploads, lines, and a stand-in at the end of each flow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from kong_ai_proxy.config import Model
from kong_ai_proxy.exchange.texts import BatchTexts
from kong_ai_proxy.providers.flow import Flow, Passed, Texts
from kong_ai_proxy.providers.registry import PROVIDERS
from tests.flows import ID, Driven, run, wanted
from tests.providers.direct import answers
from tests.providers.upstream import Upstream

Json = dict[str, Any]

BOUNDARY = "kZ3fYv9"
TYPE = f"multipart/form-data; boundary={BOUNDARY}"
CHAT = "/v1/chat/completions"


def asks(text: str, **body: Any) -> Json:
    """A request of OpenAI's."""
    return {"messages": [{"role": "user", "content": text}], **body}


def line(custom_id: str, body: Json, url: str = CHAT) -> Json:
    """A line of a batch's input: https://platform.openai.com/docs/api-reference/batch/request-input"""
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": body}


def jsonl(*lines: Json) -> bytes:
    """A file of them."""
    return b"".join(orjson.dumps(each) + b"\n" for each in lines)


def form(content: bytes, purpose: str = "batch", filename: str = "in.jsonl", **more: str) -> bytes:
    """An upload as the openai client sends it."""
    fields = {"purpose": purpose, **more}
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    head = f'Content-Disposition: form-data; name="file"; filename="{filename}"'
    kind = "Content-Type: application/octet-stream"
    file = f"--{BOUNDARY}\r\n{head}\r\n{kind}\r\n\r\n".encode() + content + b"\r\n"
    return b"".join(parts) + file + f"--{BOUNDARY}--\r\n".encode()


class World:
    """A provider's flows before its stand-ins."""

    def __init__(
        self, provider: str, flows: Mapping[str, Flow], credentials: Mapping[str, str], model: str
    ) -> None:
        self.options: Json = {}
        self.model = model
        self.ids = 0
        self._provider = provider
        self._flows = flows
        self._credentials = credentials
        self._upstreams: dict[str, Upstream] = {}

    def serve(self, collection: str, upstream: Upstream) -> None:
        """Have a stand-in answer the flows of a collection."""
        self._upstreams[collection] = upstream

    @property
    def texts(self) -> Texts:
        """As the exchange has them."""
        config = {"provider": self._provider, "name": self.model or None, "options": self.options}
        model = Model.model_validate(config)
        row = PROVIDERS[self._provider].find(model.options)
        return BatchTexts(provider=row, model=model, now=1, id=ID)

    def ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        pieces: Iterable[bytes] = (),
        driven: Driven | None = None,
        **body: Any,
    ) -> Driven:
        """One request: `path` as /files/{id}."""
        collection, *rest = path.strip("/").split("/")
        upstream = self._upstreams[collection]
        self.ids += 1
        asked = wanted(
            f"llm/v1/{collection}",
            method=method,
            collection=collection,
            rest=tuple(rest),
            query=query or {},
            body=body,
            model=self.model or body.get("model", ""),
            options=self.options,
            content_type=TYPE,
            id=f"{self.ids:020d}wxyz",
            texts=self.texts,
        )
        flow = self._flows[collection]
        return run(flow, asked, answers(upstream, self._credentials), body=pieces, driven=driven)

    def upload(self, content: bytes, purpose: str = "batch", **more: str) -> Driven:
        """A file, in pieces of 1 MiB."""
        whole = form(content, purpose, **more)
        pieces = (whole[at : at + (1 << 20)] for at in range(0, len(whole), 1 << 20))
        return self.ask("POST", "/files", pieces=pieces)

    def read(self, path: str, size: int = 1 << 20) -> bytes:
        """What is downloaded, when it comes in pieces of `size`."""
        collection = path.strip("/").split("/")[0]
        passed = self.ask("GET", path).result
        assert isinstance(passed, Passed)
        reply = answers(self._upstreams[collection], self._credentials)(passed.send)
        if reply.status != 200:
            from kong_ai_proxy.providers.flow import ProviderFailed

            raise ProviderFailed(passed.errors(reply.status, reply.body))
        if passed.filter is None:
            return reply.body
        pieces = (reply.body[at : at + size] for at in range(0, len(reply.body), size))
        return b"".join(map(passed.filter.feed, pieces)) + passed.filter.end()

    def lines(self, path: str) -> dict[str, Json]:
        """A batch's output by custom id, each line checked for its members."""
        found = [orjson.loads(each) for each in self.read(path).splitlines()]
        assert all({"id", "custom_id", "response", "error"} == each.keys() for each in found)
        return {each["custom_id"]: each for each in found}
