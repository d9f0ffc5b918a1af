"""Uploads taken apart, the lines of batches, and ids: what files have in common everywhere."""

from __future__ import annotations

import contextlib
import tracemalloc
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kong_ai_proxy.formats import openai
from kong_ai_proxy.formats.batches import BatchAnswer, BatchRequest
from kong_ai_proxy.formats.errors import FormatError, ProviderError
from kong_ai_proxy.formats.openai import batches as openai_batches
from kong_ai_proxy.providers import files
from kong_ai_proxy.providers.files import (
    MAX_INPUT_LINE,
    BatchInput,
    BatchOutput,
    LineFilter,
    Upload,
    file_id,
    file_name,
)
from kong_ai_proxy.providers.flow import ProviderFailed, Receive, Wait
from tests.flows import wanted

# https://platform.openai.com/docs/guides/batch#1-prepare-your-batch-file
LINES = (
    b'{"custom_id": "request-1", "method": "POST", "url": "/v1/chat/completions", "body": '
    b'{"model": "gpt-3.5-turbo-0125", "messages": [{"role": "system", "content": '
    b'"You are a helpful assistant."},{"role": "user", "content": "Hello world!"}],'
    b'"max_tokens": 1000}}',
    b'{"custom_id": "request-2", "method": "POST", "url": "/v1/chat/completions", "body": '
    b'{"model": "gpt-3.5-turbo-0125", "messages": [{"role": "system", "content": '
    b'"You are an unhelpful assistant."},{"role": "user", "content": "Hello world!"}],'
    b'"max_tokens": 1000}}',
)
INPUT = b"\n".join(LINES) + b"\n"
BOUNDARY = "kZ3fYv9"
TYPE = f"multipart/form-data; boundary={BOUNDARY}"


class Texts:
    """Requests and answers that show that they were converted."""

    def real_model(self, named: str) -> str:
        return named

    def request(
        self, route_type: str, body: Mapping[str, object], codec: object = None
    ) -> dict[str, object]:
        if body.get("n") == 2:
            raise FormatError("n: expected 1")
        return {"for": route_type, "asked": body["messages"]}

    def answer(
        self, route_type: str, value: object, codec: object = None, *, name: str = ""
    ) -> dict[str, object]:
        if not isinstance(value, dict):
            raise FormatError("answer: expected an object")
        return {"from": route_type, "said": value}


def lines(texts: Any = None) -> BatchInput:
    urls = {openai_batches.CHAT_URL: openai.CHAT}
    return BatchInput(texts or Texts(), urls, rendered)


def rendered(request: BatchRequest, body: dict[str, object]) -> bytes:
    return orjson.dumps({"key": request.custom_id, "request": body}) + b"\n"


def form(*parts: Any, end: bool = True) -> bytes:
    """A form of fields (name, value) and files (name, content, file name)."""
    made = b""
    for name, value, *more in parts:
        named = f'; filename="{more[0]}"' if more else ""
        head = f'Content-Disposition: form-data; name="{name}"{named}\r\n\r\n'
        made += f"--{BOUNDARY}\r\n{head}".encode() + value + b"\r\n"
    return made + (f"--{BOUNDARY}--\r\n".encode() if end else b"")


def taken(
    pieces: Iterable[bytes], size: int = 100, make: Callable[[], BatchInput] | None = lines
) -> tuple[Upload, list[bytes]]:
    """The upload and its pieces."""
    upload = Upload(wanted(openai.FILES, content_type=TYPE), size, make)
    arriving = iter(pieces)
    found: list[bytes] = []
    while not upload.is_over:
        steps = upload.piece()
        value: object = None
        while True:
            try:
                step = steps.send(value)
            except StopIteration as stop:
                found.append(stop.value)
                break
            assert isinstance(step, Receive | Wait)
            value = next(arriving, b"") if isinstance(step, Receive) else 0.0
    return upload, found


def refused(*parts: Any, end: bool = True, make: Any = lines) -> str:
    with pytest.raises(FormatError) as error:
        taken([form(*parts, end=end)], make=make)
    return str(error.value)


MANY = [str(number) for number in range(1025)]
PURPOSE = ("purpose", b"user_data")
BATCH = ("purpose", b"batch")


# ---- ids


@pytest.mark.parametrize("name", ["a/b.jsonl", "é", "x" * 700, "files/abc-123"])
def test_an_id_leads_back_to_the_name_it_was_made_of(name: str) -> None:
    assert file_id(name).startswith("file-")
    assert file_name(file_id(name)) == name


@pytest.mark.parametrize(
    "told",
    [
        "",
        "file-",
        "file-a",
        "file-YQ==",
        "file-YR",  # bits that decoding loses
        "YQ",
        "file-_w",  # not UTF-8
        "file-\u00e9",
        "../file-YQ",
        "file-YQ\n",
        "file-Y Q",
        "batch_YQ",
    ],
)
def test_an_id_that_was_not_made_here_is_not_found(told: str) -> None:
    with pytest.raises(ProviderFailed) as failed:
        file_name(told)
    assert failed.value.error.status == 404
    assert failed.value.error.message.startswith("No such File object: ")


# ---- uploads


@pytest.mark.parametrize("size", [1, 7, 64, 128, 129, 1000])
@pytest.mark.parametrize("length", [1, 63, 64, 65, 128])
def test_pieces_have_one_size_and_the_last_is_known(size: int, length: int) -> None:
    content = bytes(range(256))[:length]
    upload, pieces = taken([form(PURPOSE, ("file", content, "a.bin"))], size)
    assert b"".join(pieces) == content
    assert all(len(piece) == size for piece in pieces[:-1])
    assert 0 < len(pieces[-1]) <= size
    assert upload.taken == upload.received == length


@pytest.mark.parametrize(
    "parts",
    [
        [BATCH, ("file", INPUT, "a.jsonl")],
        [("file", INPUT, "a.jsonl"), BATCH],
        [("file", INPUT.rstrip(), "a.jsonl"), BATCH],
        [PURPOSE, ("file", INPUT, "a.jsonl")],
        [("file", INPUT, "a.jsonl"), ("purpose", b"batch"), ("more", b"x")],
        [
            ("expires_after[anchor]", b"created_at"),
            ("file", b"\r\n--kZ3fYv\r\n" * 9, "b.bin"),
            PURPOSE,
            ("expires_after[seconds]", b"3600"),
        ],
    ],
    ids=["purpose-first", "file-first", "no-last-line-end", "other-purpose", "more", "expires"],
)
def test_an_upload_is_the_same_however_it_is_cut(parts: list[Any]) -> None:
    body = form(*parts)
    upload, pieces = taken([body])
    told = (upload.purpose, upload.filename, upload.taken, upload.received, upload.expires_after)
    for at in range(1, len(body)):
        other, found = taken([body[:at], body[at:]])
        assert found == pieces, at
        assert told == (
            other.purpose,
            other.filename,
            other.taken,
            other.received,
            other.expires_after,
        )


def test_a_batch_is_converted_whether_its_purpose_comes_first_or_last() -> None:
    first, pieces = taken([form(BATCH, ("file", INPUT, "a.jsonl"))])
    last, same = taken([form(("file", INPUT, "a.jsonl"), BATCH)])
    assert pieces == same
    assert first.purpose == last.purpose == "batch"
    found = [orjson.loads(line) for line in b"".join(pieces).splitlines()]
    assert [each["key"] for each in found] == ["request-1", "request-2"]
    assert found[0]["request"]["for"] == openai.CHAT
    assert first.batch is not None
    assert (first.batch.url, first.batch.model) == (
        "/v1/chat/completions",
        "gpt-3.5-turbo-0125",
    )
    assert first.received == len(INPUT)
    assert first.taken == len(b"".join(pieces))


def test_others_have_a_turn_while_lines_are_converted() -> None:
    body = b"".join(line(custom_id=f"r{number}") + b"\n" for number in range(200))  # 50 kB
    upload = Upload(wanted(openai.FILES, content_type=TYPE), 1 << 20, lines)
    steps = upload.piece()
    assert isinstance(steps.send(None), Receive)
    waits = 0
    step = steps.send(form(BATCH, ("file", body, "a.jsonl")))
    while isinstance(step, Wait):
        assert step.seconds == 0
        waits += 1
        step = steps.send(0.0)
    assert waits == len(body) // (16 << 10)
    assert isinstance(step, Receive)


def test_other_purposes_are_not_looked_into() -> None:
    upload, pieces = taken([form(PURPOSE, ("file", INPUT, "a.jsonl"))])
    assert b"".join(pieces) == INPUT
    assert upload.batch is None


def test_a_provider_without_batches_gets_them_as_they_are() -> None:
    for parts in ([BATCH, ("file", INPUT, "a.jsonl")], [("file", INPUT, "a.jsonl"), BATCH]):
        upload, pieces = taken([form(*parts)], make=None)
        assert (b"".join(pieces), upload.purpose) == (INPUT, "batch")


def test_a_byte_order_mark_and_blank_lines_do_no_harm() -> None:
    content = b"\xef\xbb\xbf" + LINES[0] + b"\r\n\r\n   \n" + LINES[1] + b"\r\n"
    for parts in ([BATCH, ("file", content, "a.jsonl")], [("file", content, "a.jsonl"), BATCH]):
        _, pieces = taken([form(*parts)])
        assert b"".join(pieces).count(b"\n") == 2


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ([PURPOSE], "file: expected a file"),
        ([PURPOSE, ("file", b"", "a")], "file: expected content; it is empty"),
        ([BATCH, ("file", b"", "a")], "file: expected content; it is empty"),
        ([BATCH, ("file", b"\n \n", "a")], "file: expected at least one request"),
        ([("file", b"x", "a")], "purpose: expected one of assistants, batch"),
        ([("purpose", b"batch_output"), ("file", b"x", "a")], "purpose: expected one of"),
        ([("purpose", b"\xff"), ("file", b"x", "a")], "purpose: expected UTF-8"),
        ([PURPOSE, PURPOSE, ("file", b"x", "a")], "purpose: occurs twice"),
        ([PURPOSE, ("file", b"x", "a"), ("file", b"y", "b")], "file: occurs twice"),
        ([PURPOSE, ("file", b"x")], "file: expected a file, with a file name"),
        ([PURPOSE, ("file", b"x", "a" * 256)], "file: expected a file name of at most 255"),
        ([("purpose", b"x" * 5000), ("file", b"x", "a")], "purpose: expected at most 4096 bytes"),
        ([(f"f{n}", b"x") for n in range(101)], "f100: occurs twice, or is one field too many"),
        (
            [PURPOSE, ("file", b"x", "a"), ("expires_after[seconds]", b"3600")],
            "expires_after[anchor]: expected created_at",
        ),
        (
            [
                PURPOSE,
                ("file", b"x", "a"),
                ("expires_after[anchor]", b"created_at"),
                ("expires_after[seconds]", b"3599"),
            ],
            "expires_after[seconds]: expected a whole number from 3600 to 2592000",
        ),
        ([BATCH, ("file", b"x\n", "a")], "line 1: expected a JSON object"),
        ([("file", b"x\n", "a"), BATCH], 'line 1: expected a JSON object {"custom_id"'),
        ([("file", INPUT, "a"), PURPOSE], "purpose: expected it before the file"),
    ],
)
def test_an_upload_that_is_none_is_refused(parts: list[Any], text: str) -> None:
    assert text in refused(*parts)


@pytest.mark.parametrize("parts", [[PURPOSE, ("file", b"x", "a")], []])
def test_a_form_that_is_cut_short_is_refused(parts: list[Any]) -> None:
    assert "the form is cut short" in refused(*parts, end=False)


def test_a_wrong_purpose_is_refused_before_the_file_has_come() -> None:
    text = refused(("purpose", b"fun"), ("file", b"x", "a"), end=False)
    assert text.startswith("purpose: expected one of")


@pytest.mark.parametrize("content_type", ["", "application/json", "multipart/form-data"])
def test_what_is_no_form_is_refused(content_type: str) -> None:
    with pytest.raises(FormatError, match="content-type: expected"):
        Upload(wanted(openai.FILES, content_type=content_type), 5)


def test_another_boundary_is_refused() -> None:
    upload = Upload(wanted(content_type="multipart/form-data; boundary=other"), 5)
    steps = upload.piece()
    steps.send(None)
    steps.send(form(PURPOSE, ("file", b"x", "a")))
    with pytest.raises(FormatError, match="cut short"):
        steps.send(b"")


# ---- lines of input


def fed(data: bytes, cuts: Iterable[int] = (), texts: Any = None) -> bytes:
    line_filter = LineFilter(lines(texts), MAX_INPUT_LINE)
    out, start = b"", 0
    for cut in [*sorted(cuts), len(data)]:
        out += line_filter.feed(data[start:cut])
        start = max(start, cut)
    return out + line_filter.end()


def test_lines_are_the_same_cut_at_every_byte() -> None:
    whole = fed(INPUT)
    assert all(fed(INPUT, [at]) == whole for at in range(len(INPUT)))


@settings(max_examples=30)
@given(st.lists(st.integers(0, len(INPUT)), max_size=20))
def test_lines_are_the_same_cut_anyhow(cuts: list[int]) -> None:
    assert fed(INPUT, cuts) == fed(INPUT)


def line(**changes: Any) -> bytes:
    value = {**orjson.loads(LINES[0]), **changes}
    return orjson.dumps({name: each for name, each in value.items() if each is not ...})


@pytest.mark.parametrize(
    ("second", "text"),
    [
        (b"{", "line 2: expected a JSON object"),
        (b"[]", 'line 2: expected a JSON object {"custom_id": ..., "method": "POST"'),
        (b"\xff", "line 2: expected a JSON object"),
        (LINES[0], "line 2: custom_id: 'request-1' occurs twice"),
        (line(custom_id=...), "line 2: custom_id: expected a string"),
        (line(custom_id=5), "line 2: custom_id: expected a string"),
        (line(custom_id=""), "line 2: custom_id: expected 1 to 512 characters"),
        (line(custom_id="x" * 513), "line 2: custom_id: expected 1 to 512 characters"),
        (line(custom_id="b", method="GET"), 'line 2: method: expected "POST"'),
        (line(custom_id="b", url=...), "line 2: url: expected a string"),
        (
            line(custom_id="b", url="/v1/embeddings"),
            "line 2: url: expected /v1/chat/completions, got '/v1/embeddings'",
        ),
        (line(custom_id="b", body=[]), "line 2: body: expected an object"),
        (
            line(custom_id="b", body={"model": "other", "messages": []}),
            "line 2: expected the url '/v1/chat/completions' and the model 'gpt-3.5-turbo-0125'",
        ),
        (
            line(custom_id="b", body={"model": "gpt-3.5-turbo-0125", "stream": True}),
            "line 2: body.stream: expected no stream in a batch",
        ),
        (
            line(custom_id="b", body={"model": "gpt-3.5-turbo-0125", "n": 2}),
            "line 2: n: expected 1",
        ),
        (line(custom_id="b", body={"model": 5}), "line 2: body.model: expected a string"),
        (
            line(custom_id="b", body={"model": "gpt-3.5-turbo-0125", "tools": [{}] * 1025}),
            "line 2: body: expected at most 1024 members and 1024 tools",
        ),
        (
            line(custom_id="b", body={"model": "gpt-3.5-turbo-0125", **dict.fromkeys(MANY, 1)}),
            "line 2: body: expected at most 1024 members and 1024 tools",
        ),
    ],
)
def test_a_bad_line_is_named(second: bytes, text: str) -> None:
    with pytest.raises(FormatError) as error:
        fed(LINES[0] + b"\n" + second + b"\n" + LINES[1])
    assert str(error.value).startswith(text)


def test_a_line_without_end_is_not_held() -> None:
    line_filter = LineFilter(lines(), 100)
    for _ in range(1000):
        line_filter.feed(b"x" * 1000)
    with pytest.raises(FormatError, match="line 1: expected at most"):
        line_filter.feed(b"\n")


def test_more_requests_than_a_batch_may_have_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_REQUESTS", 1)
    with pytest.raises(FormatError, match="line 2: expected at most 1 requests"):
        fed(INPUT)


def test_100_megabytes_pass_with_flat_memory() -> None:
    line_filter = LineFilter(lines(), MAX_INPUT_LINE)
    asked = {"model": "m", "messages": [{"role": "user", "content": "x" * 20_000}]}
    template = line(custom_id="NUMBER", body=asked) + b"\n"
    sent = came = 0
    tracemalloc.start()
    for number in range(5_000):
        piece = template.replace(b"NUMBER", b"%d" % number)
        sent += len(piece)
        came += len(line_filter.feed(piece[:9_000])) + len(line_filter.feed(piece[9_000:]))
    line_filter.end()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert came > 100_000_000
    assert sent > 100_000_000
    assert peak < 2 << 20


def test_a_piece_is_held_once() -> None:
    size, piece = 4 << 20, bytes(1 << 16)
    body = iter([form(PURPOSE, ("file", b"", "a.bin"), end=False)[:-2], *[piece] * 160])
    upload = Upload(wanted(openai.FILES, content_type=TYPE), size)
    tracemalloc.start()
    for _ in range(2):
        steps = upload.piece()
        with contextlib.suppress(StopIteration):
            step = next(steps)
            while isinstance(step, Receive):
                step = steps.send(next(body))
        del steps  # and with it the piece
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert upload.taken == 2 * size
    assert peak < size + (1 << 20)


# ---- lines of output


def parse(value: object) -> BatchAnswer:
    if not isinstance(value, dict):
        raise FormatError("expected an object")
    if "failed" in value:
        return BatchAnswer(value["id"], error=ProviderError("it failed", status=value["failed"]))
    return BatchAnswer(value["id"], value.get("answer"), id=value.get("own", ""))


OUTPUT = b"""{"id": "a", "answer": {"text": "Hi"}, "own": "x1"}
{"id": "b", "failed": 429}
{"id": "c", "failed": 0}
{"id": "d", "answer": "no object"}
not JSON

{"id": "e", "answer": {}}"""


def put_back(data: bytes, cut: int = 0, longest: int = 1000) -> bytes:
    back = LineFilter(BatchOutput(Texts(), openai.CHAT, parse), longest)
    return back.feed(data[:cut]) + back.feed(data[cut:]) + back.end()


def test_output_becomes_openais_lines() -> None:
    found = [orjson.loads(each) for each in put_back(OUTPUT).splitlines()]
    assert found[0] == {
        "id": "batch_req_x1",
        "custom_id": "a",
        "response": {
            "status_code": 200,
            "request_id": "batch_req_x1",
            "body": {"from": openai.CHAT, "said": {"text": "Hi"}},
        },
        "error": None,
    }
    assert found[1]["response"]["status_code"] == 429
    assert found[1]["response"]["body"]["error"] == {
        "message": "it failed",
        "type": "rate_limit_error",
        "param": None,
        "code": None,
    }
    assert found[2]["response"] is None
    assert found[2]["error"] == {"code": "server_error", "message": "it failed"}
    assert found[3]["custom_id"] == "d"
    assert found[3]["error"]["code"] == "invalid_answer"
    assert found[4]["custom_id"] is None
    assert found[4]["id"] == "batch_req_5"
    assert found[5]["custom_id"] == "e"


def test_output_is_the_same_cut_at_every_byte() -> None:
    whole = put_back(OUTPUT)
    assert all(put_back(OUTPUT, at) == whole for at in range(len(OUTPUT)))


def test_a_line_of_output_that_is_too_long_becomes_an_error() -> None:
    data = b'{"id": "a", "answer": {}}\n' + b"x" * 5000 + b'\n{"id": "b", "answer": {}}\n'
    found = [orjson.loads(each) for each in put_back(data).splitlines()]
    assert [each["custom_id"] for each in found] == ["a", None, "b"]
    assert "longer than" in found[1]["error"]["message"]
