"""Files of the stand-in provider: through OpenAI's client, of any size, and refused ones."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from collections.abc import AsyncIterator, Callable
from typing import IO, Any

import httpx
import openai
import psutil
import pytest
from openai.types import file_create_params

from kong_ai_proxy.gateway.provider import Provider, files
from kong_ai_proxy.gateway.provider.blob import Blob
from kong_ai_proxy.gateway.provider.http import ApiError
from kong_ai_proxy.gateway.provider.multipart import END, Parser, Part, boundary_of
from tests.unit.gateway.provider_client import client, plain

_LINE = b'{"custom_id": "1"}\n'
_TEXT = ("a.txt", b"a")
_FOR_AN_HOUR = {
    "purpose": "user_data",
    "expires_after[anchor]": "created_at",
    "expires_after[seconds]": "3600",
}


def test_files_know_every_parameter_of_the_official_client() -> None:
    official = file_create_params.FileCreateParams.__annotations__
    assert official.keys() - {"file"} == files.RULES.keys()


async def test_a_file_is_uploaded_found_read_and_deleted() -> None:
    async with client() as official:
        made = await official.files.create(file=("a.jsonl", _LINE), purpose="batch")
        found = await official.files.retrieve(made.id)
        content = await official.files.content(made.id)
        gone = await official.files.delete(made.id)
        with pytest.raises(openai.NotFoundError, match=f"No such File object: {made.id}"):
            await official.files.retrieve(made.id)
    assert found == made
    assert (made.filename, made.bytes, made.purpose) == ("a.jsonl", len(_LINE), "batch")
    assert made.id.startswith("file-")
    assert made.expires_at == made.created_at + 30 * 24 * 3600
    assert content.content == _LINE
    assert gone.deleted


async def test_an_expiry_can_be_given() -> None:
    async with client() as official:
        made = await official.files.create(
            file=("a.txt", b"a"),
            purpose="user_data",
            expires_after={"anchor": "created_at", "seconds": 3600},
        )
    assert made.expires_at == made.created_at + 3600


async def test_files_are_listed_page_by_page_and_by_purpose() -> None:
    async with client() as official:
        for number in range(5):
            purpose: Any = "vision" if number == 2 else "user_data"
            await official.files.create(file=(f"{number}.txt", b"a"), purpose=purpose)
        newest_first = [file.filename async for file in official.files.list(limit=2)]
        oldest_first = [file.filename async for file in official.files.list(order="asc")]
        visual = [file.filename async for file in official.files.list(purpose="vision")]
        page = await official.files.list(limit=2)
    assert newest_first == ["4.txt", "3.txt", "2.txt", "1.txt", "0.txt"]
    assert oldest_first == newest_first[::-1]
    assert visual == ["2.txt"]
    assert page.has_more


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "limit=10001", "order=up", "after=file-x"])
async def test_a_query_that_makes_no_sense_is_refused(query: str) -> None:
    async with plain() as http:
        answer = await http.get(f"/v1/files?{query}")
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == query.partition("=")[0]


@pytest.mark.parametrize(
    ("parts", "param"),
    [
        ({"file": _TEXT}, "purpose"),
        ({"file": _TEXT, "purpose": "fun"}, "purpose"),
        ({"file": _TEXT, "purpose": "batch"}, "file"),
        ({"file": ("a.txt", b""), "purpose": "vision"}, "file"),
        ({"purpose": "vision"}, "file"),
        ({"file": _TEXT, **_FOR_AN_HOUR, "expires_after[anchor]": "now"}, "expires_after.anchor"),
        ({"file": _TEXT, **_FOR_AN_HOUR, "expires_after[seconds]": "1"}, "expires_after.seconds"),
        ({"file": _TEXT, **_FOR_AN_HOUR, "expires_after[hours]": "1"}, "expires_after.hours"),
        ({"file": _TEXT, "purpose": "vision", "else": "x"}, None),
        ({"file": _TEXT, "purpose": "vision", "mask": ("x.png", b"x")}, None),
    ],
)
async def test_wrong_uploads(parts: dict[str, Any], param: str | None) -> None:
    form = {k: (None, v.encode()) if isinstance(v, str) else v for k, v in parts.items()}
    async with plain() as http:
        answer = await http.post("/v1/files", files=form)
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert answer.json()["error"]["param"] == param


async def test_json_instead_of_a_form_is_refused() -> None:
    async with plain() as http:
        answer = await http.post("/v1/files", json={"purpose": "batch", "file": "a"})
    assert answer.status_code == 415
    assert "multipart/form-data" in answer.json()["error"]["message"]


async def test_a_field_instead_of_the_file_is_refused() -> None:
    async with plain() as http:
        parts = {"file": (None, b"text"), "purpose": (None, b"batch")}
        answer = await http.post("/v1/files", files=parts)
    assert answer.status_code == 400
    assert "expected a file" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "key", ["nothing", "..", "%2e%2e", "..%2Fmodels", "%2e%2e%2fmodels", "a%00b", "%ff", "a" * 5000]
)
async def test_ids_with_tricks_are_not_found(key: str) -> None:
    async with plain() as http:
        request = http.build_request("GET", "/v1/files/x/content")
        request.url = request.url.copy_with(raw_path=f"/v1/files/{key}/content".encode())
        answer = await http.send(request)
    assert answer.status_code == 404
    assert answer.json()["error"]["type"] == "invalid_request_error"


# -- bodies of any size ----------------------------------------------------------------------------

_SIZE = 100 * 1024 * 1024
_PIECE = bytes(range(256)) * 1024


async def _large(boundary: str) -> AsyncIterator[bytes]:
    disposition = 'Content-Disposition: form-data; name="file"; filename="large.bin"'
    yield f"--{boundary}\r\n{disposition}\r\n\r\n".encode()
    for _ in range(_SIZE // len(_PIECE)):
        yield _PIECE
    field = 'Content-Disposition: form-data; name="purpose"'
    yield f"\r\n--{boundary}\r\n{field}\r\n\r\nuser_data\r\n--{boundary}--\r\n".encode()


async def test_a_hundred_megabytes_go_up_and_down_in_constant_memory() -> None:
    process = psutil.Process()
    async with plain() as http:
        await http.get("/v1/files")
        before, peak = process.memory_info().rss, 0
        headers = {"Content-Type": "multipart/form-data; boundary=b"}
        made = await http.post("/v1/files", content=_large("b"), headers=headers, timeout=30)
        peak = process.memory_info().rss
        got = hashlib.sha256()
        async with http.stream("GET", f"/v1/files/{made.json()['id']}/content") as answer:
            async for piece in answer.aiter_raw():
                got.update(piece)
                peak = max(peak, process.memory_info().rss)
    assert made.json()["bytes"] == int(answer.headers["content-length"]) == _SIZE
    sent = hashlib.sha256()
    for _ in range(_SIZE // len(_PIECE)):
        sent.update(_PIECE)
    assert got.hexdigest() == sent.hexdigest()
    assert peak - before < 20 * 1024 * 1024


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[IO[bytes]]:
    """The temporary files that were opened."""
    made: list[IO[bytes]] = []
    real = tempfile.TemporaryFile

    def noted(**options: Any) -> IO[bytes]:
        made.append(real(**options))
        return made[-1]

    monkeypatch.setattr("kong_ai_proxy.gateway.provider.blob.tempfile.TemporaryFile", noted)
    return made


async def test_an_upload_that_breaks_off_leaves_nothing(opened: list[IO[bytes]]) -> None:
    provider = await Provider.start()
    try:
        url = httpx.URL(provider.url)
        _, writer = await asyncio.open_connection(url.host, url.port)
        head = (
            "POST /v1/files HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n"
            "Content-Type: multipart/form-data; boundary=b\r\n\r\n--b\r\n"
            'Content-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        )
        writer.write(head.encode() + bytes(10_000))
        await _until(lambda: len(opened) == 1)
        assert not opened[0].closed
        writer.close()
        await writer.wait_closed()
        await _until(lambda: opened[0].closed)
    finally:
        await provider.stop()


async def _until(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not done():
            await asyncio.sleep(0.01)


async def test_a_large_upload_without_the_key_gets_401() -> None:
    async with plain(api_key="right") as http:
        headers = {"Content-Type": "multipart/form-data; boundary=b"}
        answer = await http.post("/v1/files", content=_large("b"), headers=headers, timeout=30)
    assert answer.status_code == 401


async def test_no_file_is_left_when_the_provider_stops(opened: list[IO[bytes]]) -> None:
    async with client() as official:
        await official.files.create(file=("a.txt", b"a"), purpose="vision")
        assert [file.closed for file in opened] == [False]
    assert [file.closed for file in opened] == [True]


async def test_what_was_sent_is_noted_up_to_a_mebibyte() -> None:
    provider = await Provider.start()
    try:
        async with httpx.AsyncClient(verify=False) as http:
            files = {"file": ("a.bin", b"x" * 2 * 1024 * 1024), "purpose": (None, b"user_data")}
            await http.post(f"{provider.url}/files", files=files)
    finally:
        await provider.stop()
    assert len(provider.seen[0].body) == 1024 * 1024
    assert b'name="file"; filename="a.bin"' in provider.seen[0].body


async def test_a_file_that_is_too_large_gets_413(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kong_ai_proxy.gateway.provider.form.MOST_FILE_BYTES", 10)
    async with plain() as http:
        parts = {"file": ("a", b"x" * 11), "purpose": (None, b"vision")}
        answer = await http.post("/v1/files", files=parts)
    assert answer.status_code == 413
    assert answer.json()["error"]["param"] == "file"


async def test_the_oldest_files_go_when_there_are_too_many_bytes() -> None:
    kept = files.Files(most_bytes=10)
    first = kept.add("a", "vision", Blob(b"12345"))
    second = kept.add("b", "vision", Blob(b"123456"))
    with pytest.raises(ApiError):
        kept.get(first.id)
    assert kept.get(second.id) is second
    kept.remove(second.id)


def test_a_file_may_be_closed_while_it_is_read() -> None:
    blob = Blob(b"abc")
    pieces = blob.pieces()
    blob2 = Blob(b"x" * 600_000)
    long = blob2.pieces()
    first = next(long)
    blob2.close()
    assert len(first + b"".join(long)) == 600_000
    assert list(pieces) == [b"abc"]
    blob.close()


def test_lines_are_read_across_pieces() -> None:
    blob = Blob(b"a" * 300_000 + b"\nb\n\nc")
    assert [len(line) for line in blob.lines(1_000_000)] == [300_000, 1, 0, 1]
    with pytest.raises(ValueError, match="longer than 1000 bytes"):
        list(blob.lines(1000))
    blob.close()


# -- multipart -------------------------------------------------------------------------------------

_FORM = (
    b"preamble\r\n--b\r\n"
    b'Content-Disposition: form-data; name="a"\r\n\r\n'
    b"one\r\n--c\r\n\r\n--b \t\r\n"
    b'content-disposition: form-data; filename="x\\"y"; name=f\r\nContent-Type: image/png\r\n\r\n'
    b"\r\n--b\r\n"
    b'Content-Disposition: form-data; name="d"\r\n\r\n'
    b"\r\n\r\n--b--\r\nepilogue\r\n--b\r\n"
)
_PARTS = [
    (Part("a", None, "text/plain"), b"one\r\n--c\r\n"),
    (Part("f", 'x"y', "image/png"), b""),
    (Part("d", None, "text/plain"), b"\r\n"),
]


def _parsed(*chunks: bytes) -> list[tuple[Part, bytes]]:
    parser = Parser(b"b")
    found: list[tuple[Part, bytes]] = []
    ended = 0
    for chunk in chunks:
        for event in parser.feed(chunk):
            if isinstance(event, Part):
                found.append((event, b""))
            elif isinstance(event, bytes):
                found[-1] = (found[-1][0], found[-1][1] + event)
            else:
                assert event is END
                ended += 1
    parser.end()
    assert ended == len(found)
    return found


@pytest.mark.parametrize("at", range(len(_FORM)))
def test_a_form_may_be_split_anywhere(at: int) -> None:
    assert _parsed(_FORM[:at], _FORM[at:]) == _PARTS


def test_a_form_may_come_byte_by_byte() -> None:
    assert _parsed(*(_FORM[at : at + 1] for at in range(len(_FORM)))) == _PARTS


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "ends before the closing boundary"),
        (b"--b\r\n", "ends before the closing boundary"),
        (_FORM[:-20], "ends before the closing boundary"),
        (b"x" * 70_000, "boundary does not occur"),
        (b"--bx\r\n", "expected CRLF"),
        (b"--b\n\n", "expected CRLF"),
        (b"--b" + b" " * 2000, "expected CRLF"),
        (b"--b\r\n\r\nx\r\n--b--", "without 'Content-Disposition"),
        (b"--b\r\nnothing\r\n\r\n", "no colon"),
        (b"--b\r\na: " + b"x" * 17_000, "longer than"),
        (b"--b\r\nContent-Disposition: form-data\r\n\r\n", "name="),
        (b'--b\r\nContent-Disposition: attachment; name="a"\r\n\r\n', "form-data; name"),
    ],
)
def test_bodies_that_are_no_form(body: bytes, why: str) -> None:
    with pytest.raises(ApiError, match=why):
        _parsed(body)


@pytest.mark.parametrize("header", ["multipart/form-data", "multipart/form-data; boundary="])
def test_a_boundary_must_be_named(header: str) -> None:
    with pytest.raises(ApiError, match="no boundary"):
        boundary_of(header)
