"""decK files: values as decK reads them, and the lines they stand in."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kong_ai_proxy.config.deck import Deck, DeckError, parse_text, read

HEAD = '_format_version: "3.0"\n'


def deck(text: str, **env: str) -> Deck:
    """The file with HEAD as its first line."""
    return parse_text(HEAD + dedent(text), "kong.yml", env)


def value(text: str, **env: str) -> Any:
    return deck(f"x: {text}\n", **env).data["x"]


def error(text: str, **env: str) -> tuple[int, str]:
    with pytest.raises(DeckError) as caught:
        parse_text(text, "kong.yml", env)
    assert caught.value.file == "kong.yml"
    assert str(caught.value) == f"kong.yml:{caught.value.line}: {caught.value.message}"
    return caught.value.line, caught.value.message


def test_a_line_is_that_of_the_key_or_of_the_list_item() -> None:
    file = deck(
        """\
        services:
        - name: a
          plugins:
          - name: ai-proxy
            config:
              model:
                provider: openai
        """
    )
    plugin = ("services", 0, "plugins", 0)
    assert file.line(plugin) == 5
    assert file.line((*plugin, "config")) == 6
    assert file.line((*plugin, "config", "model", "provider")) == 8
    assert file.line(("services", 0)) == 3


def test_the_line_of_what_is_missing_is_that_of_what_is_around_it() -> None:
    file = deck("plugins:\n- name: ai-proxy\n  config: {}\n")
    assert file.line(("plugins", 0, "config", "model", "provider")) == 4
    assert file.line(("plugins", 7)) == 2
    assert file.line(("nothing", "here")) == 1


def test_data_is_plain() -> None:
    file = deck("services: [{name: a, retries: 0, enabled: true, path: null}]\n")
    assert file.data == {
        "_format_version": "3.0",
        "services": [{"name": "a", "retries": 0, "enabled": True, "path": None}],
    }


SCALARS = [
    ("a b", "a b"),
    ("'5'", "5"),
    ("5", 5),
    ("-5", -5),
    ("1_000", 1000),
    ("0x1f", 31),
    ("0777", 511),
    ("0o17", 15),
    ("1.5", 1.5),
    ("1e3", 1000.0),
    ("yes", True),
    ("off", False),
    ("~", None),
    ("2023-05-15", "2023-05-15"),
    ("12:30:45", "12:30:45"),
    ("1.2.3", "1.2.3"),
    ('"{vault://env/x}"', "{vault://env/x}"),
    ("|\n  a\n  b\n", "a\nb\n"),
]


@pytest.mark.parametrize(("text", "expected"), SCALARS)
def test_a_scalar_is_read_as_deck_reads_it(text: str, expected: object) -> None:
    found = value(text)
    assert (found, type(found)) == (expected, type(expected))


VARIABLES = [
    ('${{ env "DECK_X" }}', "80", 80),
    ('${{env "DECK_X"}}', "abc", "abc"),
    ("${{ env `DECK_X` }}", "abc", "abc"),
    ('"${{ env "DECK_X" }}"', "80", "80"),
    ("'${{ env \"DECK_X\" }}'", "true", "true"),
    ('${{ env "DECK_X" | toInt }}', "80", 80),
    ('${{ env "DECK_X" | toBool }}', "true", True),
    ('"Bearer ${{ env "DECK_X" }}"', "sk-1", "Bearer sk-1"),
    ('${{ env "DECK_X" }}-${{ env "DECK_X" }}', "a", "a-a"),
    ('|\n  begin\n  ${{ env "DECK_X" | indent 2 }}\n', "k1\nk2", "begin\nk1\nk2\n"),
    ('${{ env "DECK_X" }}', "a: b # c", "a: b # c"),
    ("\"${{ env \"DECK_X\" }}\"", '"quoted"', '"quoted"'),
]  # fmt: skip


@pytest.mark.parametrize(("text", "variable", "expected"), VARIABLES)
def test_a_variable_takes_its_place(text: str, variable: str, expected: object) -> None:
    found = value(text, DECK_X=variable)
    assert (found, type(found)) == (expected, type(expected))


def test_a_variable_may_name_a_key() -> None:
    assert deck('${{ env "DECK_X" }}: 1\n', DECK_X="a").data["a"] == 1


@given(st.text())
def test_the_text_of_a_variable_is_never_yaml(text: str) -> None:
    file = deck('a: "${{ env "DECK_X" }}"\nb: 1\n', DECK_X=text)
    assert file.data == {"_format_version": "3.0", "a": text, "b": 1}
    assert file.line(("b",)) == 3


def test_an_unset_variable_is_an_error_at_its_line() -> None:
    found = error(HEAD + 'a: 1\nb: "${{ env "DECK_X" }}"\n')
    assert found == (3, "the environment variable DECK_X is not set")


def test_an_unset_variable_in_a_comment_does_not_matter() -> None:
    assert deck('a: 1 # ${{ env "DECK_X" }}\n').data["a"] == 1


def test_an_unset_variable_may_be_allowed() -> None:
    text = HEAD + 'a: {b: "x-${{ env "DECK_X" }}", c: 1}\n'
    file = parse_text(text, "kong.yml", {}, allow_unset=True)
    assert file.data["a"]["b"] == "x-DECK_X"
    assert file.unset == {("a", "b"): "DECK_X"}


def test_an_alias_stands_for_what_it_names() -> None:
    file = deck("a: &a {x: 1}\nb: *a\n")
    assert file.data["b"] == {"x": 1}
    assert file.line(("b", "x")) == 2


def test_a_merge_gives_way_to_what_is_written() -> None:
    file = deck("a: &a {x: 1, y: 1}\nb: &b {z: 1}\nc:\n  <<: [*a, *b]\n  x: 2\n")
    assert file.data["c"] == {"x": 2, "y": 1, "z": 1}
    assert [file.line(("c", name)) for name in "xyz"] == [6, 2, 3]


UNREADABLE = [
    ("", 1, "the file is empty"),
    ("- 1\n", 1, "expected a mapping such as `services:`"),
    ("services: []\n", 1, '_format_version is missing: write _format_version: "3.0"'),
    ("_format_version: 3.0\n", 1, '_format_version must be "3.0", in quotes'),
    ('\n_format_version: "1.1"\n', 2, '_format_version must be "3.0", in quotes'),
    (HEAD + "---\na: 1\n", 2, "not YAML: expected a single document in the stream, but found"),
    (HEAD + "a: 1\nb: 2\na: 3\n", 4, "a is there already, in line 2"),
    (HEAD + "a:\n  x: [1, {y: 1, y: 2}]\n", 3, "y is there already, in line 3"),
    (HEAD + "a: [1\n", 3, "not YAML: did not find expected"),
    (HEAD + "a: b: c\n", 2, "not YAML: mapping values are not allowed"),
    (HEAD + 'a: "\x01"\n', 2, "not YAML: control characters are not allowed"),
    (HEAD + "a: *b\n", 2, "not YAML: found undefined alias"),
    (HEAD + "a: &a [*a]\n", 2, "a YAML alias must not stand inside what it names"),
    (HEAD + "a: &a\n  <<: *a\n", 3, "<< needs the alias of a mapping"),
    (HEAD + "<<: 5\n", 2, "<< needs the alias of a mapping"),
    (HEAD + "? [a]\n: b\n", 2, "expected a name before the colon"),
    (HEAD + "a: !secret x\n", 2, "the YAML tag !secret is not understood"),
    (HEAD + 'a: ${{ env "HOME" }}\n', 2, "the name of the variable HOME must begin with DECK_"),
    (HEAD + "a: ${{ file }}\n", 2, 'only ${{ env "DECK_NAME" }} is understood'),
    (HEAD + "a: " + "[" * 200 + "]" * 200, 2, "nested too deeply"),
]


@pytest.mark.parametrize(("text", "line", "message"), UNREADABLE)
def test_what_cannot_be_read_says_where_and_why(text: str, line: int, message: str) -> None:
    found = error(text)
    assert found[0] == line
    assert found[1].startswith(message)


def test_aliases_cannot_make_a_small_file_endless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kong_ai_proxy.config.deck._MOST_VALUES", 10_000)
    lines = ["b0: &b0 [1, 2, 3, 4, 5, 6, 7, 8, 9]"]
    lines += [f"b{n}: &b{n} [{', '.join([f'*b{n - 1}'] * 9)}]" for n in range(1, 9)]
    assert error(HEAD + "\n".join(lines))[1] == "too many values"


def test_a_file_is_read_with_or_without_a_byte_order_mark(tmp_path: Path) -> None:
    file = tmp_path / "kong.yml"
    for mark in (b"", b"\xef\xbb\xbf"):
        file.write_bytes(mark + HEAD.encode() + "a: ä\n".encode())
        assert read(file, {}).data["a"] == "ä"


def test_a_file_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "kong.yml"
    file.write_bytes(HEAD.encode() + b"a: \xff\n")
    with pytest.raises(DeckError, match=r"kong\.yml:2: not UTF-8"):
        read(file, {})


def test_a_file_that_is_not_there_is_an_error_too(tmp_path: Path) -> None:
    with pytest.raises(DeckError, match="No such file"):
        read(tmp_path / "none.yml", {})


def test_json_is_read_too() -> None:
    text = '{\n  "_format_version": "3.0",\n  "services": [\n    {"name": "a"}\n  ]\n}\n'
    file = parse_text(text, "kong.json", {})
    assert file.data["services"] == [{"name": "a"}]
    assert file.line(("services", 0)) == 4
