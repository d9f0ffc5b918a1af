"""The fields of a form that passes by: checked, set, or left to the client."""

from __future__ import annotations

import pytest

from kong_ai_proxy.exchange.errors import Refused
from kong_ai_proxy.exchange.form import Form, FormFields

TYPE = "multipart/form-data; boundary=b"


def form(**fields: str) -> bytes:
    parts = (
        f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    )
    return "".join(parts).encode() + b"--b--\r\n"


def passed(body: bytes, members: dict[str, str], kept: frozenset[str] = frozenset()) -> bytes:
    fields = FormFields(TYPE, lambda *_: None, members, kept=kept)
    return fields.feed(body) + fields.end()


@pytest.mark.parametrize(
    ("client", "kept", "expected"),
    [
        ({"file": "x"}, (), {"file": "x", "model": "ours"}),
        ({"model": "theirs"}, (), {"model": "ours"}),
        ({"model": "ours"}, (), {"model": "ours"}),
        ({"model": "theirs"}, ("model",), {"model": "theirs"}),
        ({"model": ""}, ("model",), {"model": "ours"}),
        ({"file": "x"}, ("model",), {"file": "x", "model": "ours"}),
        ({"model": "theirs"}, ("key",), {"model": "ours"}),
    ],
)
def test_a_member_is_set_but_where_the_clients_wins(
    client: dict[str, str], kept: tuple[str, ...], expected: dict[str, str]
) -> None:
    assert passed(form(**client), {"model": "ours"}, frozenset(kept)) == form(**expected)


def test_only_what_sets_members_may_change_a_form() -> None:
    assert FormFields(TYPE, lambda *_: None, {"model": "a"}).may_change
    assert not FormFields(TYPE, lambda *_: None, {}).may_change


def test_what_is_looked_at_is_checked() -> None:
    seen: list[tuple[str, str]] = []

    def check(name: str, value: str) -> None:
        seen.append((name, value))
        if value == "bad":
            raise Refused(403, "no")

    fields = FormFields(TYPE, check, {"key": "k"})
    fields.feed(form(prompt="x", model="a", stream="true", key="theirs"))
    assert seen == [("model", "a"), ("stream", "true"), ("key", "theirs")]
    with pytest.raises(Refused, match="no"):
        FormFields(TYPE, check, {}).feed(form(model="bad"))


@pytest.mark.parametrize("body", [b"x" * 9000, form(model="a")[:-4], form(Model="a")])
def test_a_form_that_cannot_be_read_is_a_400(body: bytes) -> None:
    with pytest.raises(Refused, match="multipart body: ") as caught:
        passed(body, {})
    assert caught.value.status == 400
    with pytest.raises(Refused, match="multipart body: ") as caught:
        Form(TYPE, body).model()
    assert caught.value.status == 400


def test_a_form_without_a_boundary_is_a_400() -> None:
    with pytest.raises(Refused, match="expected a boundary"):
        FormFields("multipart/form-data", lambda *_: None, {})


def test_the_model_of_a_form_that_was_read() -> None:
    assert Form(TYPE, form(prompt="x", model="a")).model() == "a"
    assert Form(TYPE, form(model="")).model() is None
    assert Form(TYPE, form(prompt="x")).model() is None
