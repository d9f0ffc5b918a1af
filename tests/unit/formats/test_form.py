"""A multipart form streams through; of all of it only the watched fields are looked at."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterable, Mapping
from email import message_from_bytes, policy
from itertools import pairwise
from typing import Any

import httpx
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kong_ai_proxy.formats.form import MAX_PARTS, FormError, FormFilter

TYPE = "multipart/form-data; boundary=frontier"


def part(name: str, value: bytes, more: str = "") -> bytes:
    return (
        b"--frontier\r\n"
        + f'Content-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode()
        + value
        + b"\r\n"
    )


def upload(content: bytes, name: str = "file") -> bytes:
    more = '; filename="a.wav"\r\nContent-Type: audio/wav'
    return part(name, content, more)


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--frontier--\r\n"


def run(
    chunks: Iterable[bytes],
    *,
    change: Mapping[str, bytes] | None = None,
    add: Mapping[str, str] | None = None,
    seen: list[tuple[str, str]] | None = None,
    content_type: str = TYPE,
) -> bytes:
    """The form with watched fields changed, and those of `add` that it lacks added."""

    def on_field(name: str, value: str) -> bytes | None:
        if seen is not None:
            seen.append((name, value))
        return (change or {}).get(name)

    def missing(there: frozenset[str]) -> Mapping[str, str]:
        return {name: value for name, value in (add or {}).items() if name not in there}

    watch = frozenset({"model", "stream"})
    filtering = FormFilter(content_type, watch, on_field, missing)
    out = [filtering.feed(chunk) for chunk in chunks]
    return b"".join([*out, filtering.end()])


def sized(body: bytes, size: int) -> list[bytes]:
    return [body[at : at + size] for at in range(0, len(body), size)]


def refuses(body: bytes, says: str, content_type: str = TYPE) -> None:
    """However it is cut, and before anything behind the fault goes on."""
    for size in (1, 3, 1 << 20):
        with pytest.raises(FormError, match=says):
            run(sized(body, size), content_type=content_type)


FORMS = {
    "field first": form(part("model", b"whisper-1"), upload(b"RIFF\r\n\x00data")),
    "file first": form(upload(b"RIFF\r\n\x00data\r"), part("model", b"whisper-1")),
    "without the field": form(upload(b"\r\n"), part("prompt", b"a\r\nb")),
    "empty values": form(part("model", b""), upload(b"")),
    "no part": form(),
    "preamble and epilogue": b"a\r\n\r\nb-\r\n" + form(upload(b"x"), part("model", b"m")) + b"end",
    "no line end at the end": form(part("model", b"m"))[:-2],
    "line ends in the file": form(upload(b"\r\r\n\n\r\n-\r\n--\r\n--front\r\n--frontie\n--x")),
    "boundary inside a line": form(upload(b"x--frontier--frontier\r\n --frontier--\r\n")),
}
forms = pytest.mark.parametrize("body", FORMS.values(), ids=FORMS)


@forms
def test_a_form_of_which_nothing_changes_goes_on_byte_for_byte(body: bytes) -> None:
    for at in range(len(body) + 1):
        assert run([body[:at], body[at:]]) == body
    assert run(sized(body, 1)) == body


@forms
def test_a_form_that_changes_comes_out_alike_however_it_is_cut(body: bytes) -> None:
    change, add = {"model": b"gpt-4o-transcribe"}, {"model": "gpt-4o", "stream": "true"}
    whole = run([body], change=change, add=add)
    for at in range(len(body) + 1):
        assert run([body[:at], body[at:]], change=change, add=add) == whole
    assert run(sized(body, 1), change=change, add=add) == whole


def test_a_field_is_given_with_its_value_and_may_stay() -> None:
    seen: list[tuple[str, str]] = []
    run([form(part("model", "é".encode()), part("prompt", b"a"), part("stream", b""))], seen=seen)
    assert seen == [("model", "é"), ("stream", "")]


def test_a_changed_field_keeps_its_headers() -> None:
    body = form(part("model", b"a", "\r\nContent-Type: text/plain;charset=UTF-8"), upload(b"x"))
    changed = run([body], change={"model": b"longer"})
    assert changed == body.replace(b"\r\n\r\na\r\n", b"\r\n\r\nlonger\r\n")


def test_a_changed_field_loses_the_length_of_the_old_value() -> None:
    body = form(part("model", b"a", "\r\nContent-Length: 1"))
    assert run([body]) == body
    assert run([body], change={"model": b"bc"}) == form(part("model", b"bc"))


def test_a_changed_field_may_follow_a_large_file() -> None:
    content = b"\r\n--frontie" * 100_000
    body = form(upload(content), part("model", b"a"))
    changed = run(sized(body, 1000), change={"model": b"b"})
    assert changed == form(upload(content), part("model", b"b"))


def test_missing_fields_are_added_at_the_end() -> None:
    body = form(part("model", b"a"), upload(b"x"))
    added = run([body], add={"model": "b", "stream": "é"})
    assert added == form(part("model", b"a"), upload(b"x"), part("stream", "é".encode()))


def test_a_form_without_parts_can_be_added_to() -> None:
    assert run([form()], add={"model": "a"}) == form(part("model", b"a"))
    assert run([form()]) == form()


def test_a_chunk_inside_a_file_comes_back_as_the_same_object() -> None:
    filtering = FormFilter(TYPE, frozenset(), lambda *_: None, lambda _: {})
    filtering.feed(upload(b"start")[:-2])
    chunk = bytes(range(256)) * 256
    assert filtering.feed(chunk) is chunk


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["file", "prompt", "image[]"]),
            st.lists(
                st.sampled_from([b"\r\n", b"\r", b"\n", b"--", b"-", b"fronti", b"er", b"x", b"\0"])
            ).map(b"".join),
        ),
        max_size=4,
    ),
    st.integers(0, 4),
    st.lists(st.integers(0, 2000), max_size=8),
)
def test_any_contents_cut_anywhere_stay_what_they_are_or_are_refused(
    contents: list[tuple[str, bytes]], place: int, at: list[int]
) -> None:
    parts = [upload(content, name) for name, content in contents]
    before, after = parts[:place], parts[place:]
    body = form(*before, part("model", b"a"), *after)
    offsets = [0, *sorted({offset % (len(body) + 1) for offset in at}), len(body)]
    chunks = [body[a:b] for a, b in pairwise(offsets)]
    boundary_inside = any(
        line_end + b"--frontier" in b"\n" + content
        for _, content in contents
        for line_end in (b"\r", b"\n")
    )
    if boundary_inside:
        with pytest.raises(FormError):
            run(chunks, change={"model": b"b"})
    else:
        expected = form(*before, part("model", b"b"), *after)
        assert run(chunks, change={"model": b"b"}) == expected


def test_a_form_of_httpx_is_read_and_stays_whole() -> None:
    request = httpx.Request(
        "POST",
        "http://127.0.0.1/",
        data={"model": "a", "temperature": "0.5", "timestamp_granularities[]": ["word", "segment"]},
        files={"file": ('a "b"\\é.wav', bytes(range(256)), "audio/wav")},
    )
    body, content_type = request.read(), request.headers["content-type"]
    seen: list[tuple[str, str]] = []
    assert run(sized(body, 7), seen=seen, content_type=content_type) == body
    assert seen == [("model", "a")]
    changed = run(sized(body, 7), change={"model": b"bc"}, content_type=content_type)
    before, after = fields(content_type, body), fields(content_type, changed)
    assert after == [("model", b"bc") if name == "model" else (name, v) for name, v in before]


def fields(content_type: str, body: bytes) -> list[tuple[str, bytes]]:
    """As the standard library reads the form."""
    head = f"Content-Type: {content_type}\r\n\r\n".encode()
    found = []
    for item in message_from_bytes(head + body, policy=policy.HTTP).iter_parts():
        content = item.get_payload(decode=True)
        assert isinstance(content, bytes)
        found.append((str(item.get_param("name", header="content-disposition")), content))
    return found


def test_forms_of_the_official_client_are_read_and_changed() -> None:
    requests: list[tuple[str, bytes]] = []

    def keep(request: httpx.Request) -> httpx.Response:
        requests.append((request.headers["content-type"], request.read()))
        return httpx.Response(200, json={"text": ""})

    http: Any = httpx.Client(transport=httpx.MockTransport(keep))
    with http:
        client = openai.OpenAI(api_key="-", base_url="http://127.0.0.1/v1", http_client=http)
        client.audio.transcriptions.create(file=("a.wav", b"RIFF"), model="a")
        client.images.edit(image=[("a.png", b""), b"P"], prompt="p\r\nq", model="a", mask=b"m")
        client.files.create(file=b"{}\n", purpose="batch")
    for content_type, body in requests:
        changed = run(
            sized(body, 11),
            change={"model": b"b"},
            add={"model": "b"},
            content_type=content_type,
        )
        others = [field for field in fields(content_type, body) if field[0] != "model"]
        assert sorted(fields(content_type, changed)) == sorted([*others, ("model", b"b")])


def test_what_on_field_raises_comes_out_and_nothing_goes_on_after_it() -> None:
    def refuse(_name: str, value: str) -> bytes | None:
        raise PermissionError(value)

    filtering = FormFilter(TYPE, frozenset({"model"}), refuse, lambda _: {})
    body = form(part("model", b"a"), upload(b"x"))
    with pytest.raises(PermissionError, match="a"):
        filtering.feed(body)
    with pytest.raises(FormError, match="refused before"):
        filtering.feed(body)
    with pytest.raises(FormError):
        filtering.end()


@pytest.mark.parametrize(
    "content_type",
    [
        'multipart/form-data; boundary="frontier"',
        "Multipart/Form-Data;charset=utf-8;BOUNDARY=frontier",
        "multipart/form-data; boundary=frontier; ",
    ],
)
def test_a_boundary_is_found_in_the_content_type(content_type: str) -> None:
    assert run([form(part("model", b"a"))], content_type=content_type)


@pytest.mark.parametrize(
    ("content_type", "says"),
    [
        ("", "expected multipart/form-data"),
        ("application/json", "expected multipart/form-data"),
        ("multipart/mixed; boundary=frontier", "expected multipart/form-data"),
        ("multipart/form-data-x; boundary=frontier", "expected multipart/form-data"),
        ("multipart/form-data", "expected a boundary"),
        ("multipart/form-data; boundary=", "expected parameters"),
        ('multipart/form-data; boundary=""', "expected a boundary"),
        ('multipart/form-data; boundary="a "', "expected a boundary"),
        ('multipart/form-data; boundary="a;b"', "expected a boundary"),
        ("multipart/form-data; boundary=" + "a" * 71, "expected a boundary"),
        ("multipart/form-data; boundary=a, b", "expected parameters"),
        ("multipart/form-data; boundary=a; boundary=b", "boundary occurs twice"),
        ("multipart/form-data; boundary*=utf-8''a", "expected a boundary"),
        ('multipart/form-data; boundary="a\\"b"', "instead of"),
        ('multipart/form-data; boundary="frontier', "expected parameters"),
    ],
)
def test_a_content_type_without_a_plain_boundary_is_refused(content_type: str, says: str) -> None:
    with pytest.raises(FormError, match=says):
        run([], content_type=content_type)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ('"Model"', "did you mean 'model'"),
        ('"MODEL"', "did you mean 'model'"),
        ('" model"', "did you mean 'model'"),
        ('"mo\\del"', "did you mean 'model'"),
        ('"m%6fdel"', "did you mean 'model'"),
        ('"model"; filename="a"', "has a file name"),
        ('"model"; filename=""', "has a file name"),
        ("\"model\"; filename*=utf-8''a", "has a file name"),
        ('"x"; name="model"', "name occurs twice"),
        ('"x"; NAME="model"', "name occurs twice"),
        ("\"x\"; name*=utf-8''model", "no name\\*"),
        ('"x"; name*0="mod"; name*1="el"', "no name\\*"),
        ('"x\\"; name=\\"model"', "instead of"),
        ('"x"; filename="a\\"; name=\\"model"', "instead of"),
        ('"x', "expected parameters"),
        ("'x y'", "expected parameters"),
        ('"x" junk', "expected parameters"),
        ('"x"; ; name="model"', "expected parameters"),
    ],
)
def test_a_name_that_others_may_read_as_the_watched_one_is_refused(name: str, says: str) -> None:
    head = f"--frontier\r\nContent-Disposition: form-data; name={name}\r\n\r\n".encode()
    refuses(form(head + b"a\r\n"), says)


def test_a_name_without_quotes_is_a_name() -> None:
    body = form(part("model", b"a").replace(b'"model"', b"model"))
    assert run([body], change={"model": b"b"}) == body.replace(b"\r\na\r\n", b"\r\nb\r\n")


def test_a_name_in_another_case_is_a_name_where_it_is_not_watched() -> None:
    body = form(part("Prompt", b"a"), upload(b"x", "models"))
    assert run([body]) == body


DISPOSITION = b'Content-Disposition: form-data; name="model"\r\n'


@pytest.mark.parametrize(
    ("head", "says"),
    [
        (b"", "Content-Disposition: form-data"),
        (b"Content-Type: text/plain\r\n", "Content-Disposition: form-data"),
        (b'Content-Disposition: attachment; name="model"\r\n', "Content-Disposition: form-data"),
        (b'Content-Disposition: form-data-x; name="model"\r\n', "Content-Disposition: form-data"),
        (b"Content-Disposition: form-data\r\n", 'expected name="..."'),
        (b'Content-Disposition: form-data; name="\xff"\r\n', "name in UTF-8"),
        (DISPOSITION * 2, "content-disposition occurs twice"),
        (DISPOSITION + b"no colon\r\n", "expected headers"),
        (DISPOSITION + b" folded: x\r\n", "expected headers"),
        (b'Content-Disposition: form-data;\r\n name="model"\r\n', "expected headers"),
        (b'Content-Disposition : form-data; name="model"\r\n', "expected headers"),
        (DISPOSITION + b"a: \x00\r\n", "expected headers"),
        (DISPOSITION + b"a: b\rc: d\r\n", "expected headers"),
        (DISPOSITION + b"--frontier\r\n", "expected headers"),
        (DISPOSITION.replace(b"\r\n", b"\n"), "expected headers"),
        (DISPOSITION + b"Content-Transfer-Encoding: base64\r\n", "transfer encoding"),
        (DISPOSITION + b"Content-Type: text/plain; charset=utf-16\r\n", "another charset"),
    ],
)
def test_headers_of_a_part_that_are_not_plain_are_refused(head: bytes, says: str) -> None:
    refuses(b"--frontier\r\n" + head + b"\r\na\r\n--frontier--\r\n", says)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "cut short"),
        (b"hello", "cut short"),
        (b"x" * 10_000, "no part begins in the first 8192 bytes"),
        (b"x" * 8200 + b"\r\n" + form(), "no part begins in the first 8192 bytes"),
        (b"--frontier", "cut short"),
        (b"--frontier\r", "cut short"),
        (b"--frontier\n", "expected CRLF or --"),
        (b"--frontier \r\n", "expected CRLF or --"),
        (b"--frontierX\r\n", "expected CRLF or --"),
        (b"--frontier-\r\n", "expected CRLF or --"),
        (b"x--frontier\r\n" + DISPOSITION, "inside a line before the first part"),
        (b"x\n--frontier\r\n" + DISPOSITION, "expected CRLF before the boundary, got LF"),
        (b"x\r--frontier\r\n" + DISPOSITION, "expected CRLF before the boundary, got CR"),
        (form(part("model", b"a")).replace(b"\r\n", b"\n"), "expected CRLF or --"),
        (part("model", b"a"), "cut short"),
        (part("model", b"a") + b"--frontier", "cut short"),
        (part("model", b"a") + b"--frontier-", "cut short"),
        (part("model", b"a") + b"--frontier--\r", "cut short"),
        (part("model", b"a") + b"--frontier-- \r\n", "after the closing boundary"),
        (part("model", b"a") + b"--frontier--\n", "after the closing boundary"),
        (part("model", b"a") + b"--frontier--x", "after the closing boundary"),
        (form(part("model", b"a")) + form(part("model", b"b")), "again after the closing"),
        (form(part("model", b"a"), part("model", b"b")), "the field 'model' occurs twice"),
        (form(part("model", b"a" * 4097)), "longer than 4096 bytes"),
        (form(part("model", b"a" * 100_000)), "longer than 4096 bytes"),
        (form(part("model", b"\xff")), "is not UTF-8"),
        (form(part("model", "a".encode("utf-16"))), "is not UTF-8"),
        (form(upload(b"x\n--frontier\r\n" + DISPOSITION)), "got LF"),
        (form(upload(b"x\r--frontier\r\n" + DISPOSITION)), "got CR"),
        (form(part("x", b"")[:-2]), "expected an empty line"),
        (form(part("model", b"")[:-2]), "expected an empty line"),
        (form(part("x", b"a\n--frontier--\n")), "got LF"),
        (form(part("x", b"a", "\r\nb: " + "c" * 17_000)), "longer than 16384 bytes"),
        (b"--frontier\r\nb: " + b"c" * 17_000, "longer than 16384 bytes"),
        (form(*[part("x", b"")] * (MAX_PARTS + 1)), "more than 1000 parts"),
        (form(upload(b"x")).replace(b"--frontier", b"--other"), "cut short"),
    ],
)
def test_a_form_that_is_not_plain_is_refused(body: bytes, says: str) -> None:
    refuses(body, says)


@pytest.mark.parametrize("size", [1, 10, 1 << 20])
def test_what_is_just_within_the_limits_passes(size: int) -> None:
    filler = 16384 - len(part("x", b"", "\r\nb: ")) + len(b"--frontier\r\n\r\n")
    body = form(part("model", b"a" * 4096), part("x", b"", "\r\nb: " + "c" * filler))
    preamble = b"x" * 8190 + b"\r\n"
    assert run(sized(preamble + body, size)) == preamble + body


def test_a_value_that_contains_the_boundary_is_not_written() -> None:
    body = form(part("model", b"a"))
    with pytest.raises(FormError, match="choose another boundary"):
        run([body], change={"model": b"x--frontier"})
    with pytest.raises(FormError, match="choose another boundary"):
        run([body], add={"stream": "--frontier"})


def test_nothing_behind_a_fault_goes_on() -> None:
    filtering = FormFilter(TYPE, frozenset({"model"}), lambda *_: None, lambda _: {})
    out = filtering.feed(upload(b"x"))
    with pytest.raises(FormError):
        filtering.feed(part("Model", b"a"))
    assert out == upload(b"x")[:-2]
    with pytest.raises(FormError):
        filtering.feed(form(upload(b"x")))


@pytest.mark.parametrize(
    "content",
    [bytes(1 << 16), b"\r\n--frontie" * 6000, b"\r" * 65536, b"--frontier" * 6500],
    ids=["zeros", "near boundaries", "line ends", "boundaries inside a line"],
)
def test_a_file_of_a_hundred_megabytes_takes_constant_memory(content: bytes) -> None:
    filtering = FormFilter(TYPE, frozenset({"model"}), lambda *_: b"b", lambda _: {})
    filtering.feed(upload(b"x")[:-2])
    size, chunks = 0, (100 << 20) // len(content)
    tracemalloc.start()
    try:
        for _ in range(chunks):
            size += len(filtering.feed(content))
        assert tracemalloc.get_traced_memory()[1] < 300_000
    finally:
        tracemalloc.stop()
    last = filtering.feed(b"\r\n" + form(part("model", b"a")))
    assert size + len(last) == chunks * len(content) + len(b"\r\n" + form(part("model", b"b")))
    assert last.endswith(form(part("model", b"b")))
    assert filtering.end() == b""
