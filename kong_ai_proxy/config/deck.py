"""Reads decK files, format 3.0, and keeps the line of every value.

`${{ env "DECK_X" }}` is replaced as decK does, but inside the values that YAML has found: a
variable's text never becomes YAML of its own, and lines stay where they are. `{vault://...}`
stays text. What YAML would take for dates stays text too, as in decK.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import yaml
from typing_extensions import override

DeckPath: TypeAlias = tuple[str | int, ...]
"""Keys and indexes down to a value, such as `("services", 0, "plugins", 1, "config")`."""

_DEEPEST = 100
_MOST_VALUES = 1_000_000  # YAML aliases can make a small file endless


class DeckError(ValueError):
    """A file that cannot be read as decK would, with the line (from 1) where that shows."""

    def __init__(self, file: str, line: int, message: str) -> None:
        super().__init__(file, line, message)
        self.file = file
        self.line = line
        self.message = message

    @override
    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.message}"


@dataclass(frozen=True)
class Deck:
    """A decK file's content and where each part of it stands."""

    name: str
    data: dict[str, Any]
    lines: Mapping[DeckPath, int] = field(repr=False)
    unset: Mapping[DeckPath, str] = field(default_factory=dict)
    """Values with a variable that is not set, and its name; only with `allow_unset`."""

    def line(self, path: DeckPath) -> int:
        """The line of the value at `path`, or of the nearest thing around it that is there."""
        while path not in self.lines:
            path = path[:-1]
        return self.lines[path]


def read(path: str | Path, env: Mapping[str, str], *, allow_unset: bool = False) -> Deck:
    """The decK file at `path`. Raises DeckError, also when it cannot be opened."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise DeckError(str(path), 1, error.strerror or "cannot be read") from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DeckError(str(path), line, "not UTF-8") from None
    return parse_text(text, str(path), env, allow_unset=allow_unset)


def parse_text(text: str, name: str, env: Mapping[str, str], *, allow_unset: bool = False) -> Deck:
    """The decK file that `text` is; `name` stands for it in errors.

    A variable that `env` lacks is an error, or, with `allow_unset`, its value is its name and
    `Deck.unset` says where.
    """
    masked = _Masked(text, name)
    reader = _Reader(masked, env, allow_unset)
    data = reader.value(masked.compose(), ())
    if not isinstance(data, dict):
        raise DeckError(name, 1, "expected a mapping such as `services:`")
    deck = Deck(name, data, reader.lines, reader.unset)
    _check_version(deck)
    return deck


def _check_version(deck: Deck) -> None:
    version = deck.data.get("_format_version")
    if isinstance(version, str) and version.startswith("3."):
        return
    line = deck.line(("_format_version",))
    if version is None:
        raise DeckError(deck.name, line, '_format_version is missing: write _format_version: "3.0"')
    raise DeckError(deck.name, line, '_format_version must be "3.0", in quotes')


_Base = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Base):  # type: ignore[misc, valid-type] # the faster one where it was built
    """YAML as decK's library reads it: no dates, no sexagesimal numbers."""

    yaml_implicit_resolvers = {  # noqa: RUF012 # PyYAML's own shape
        first: [
            (tag, pattern)
            for tag, pattern in resolvers
            if tag.rpartition(":")[2] in ("bool", "null", "merge")
        ]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_INT = re.compile(r"[-+]?(0b[01_]+|0o?[0-7_]+|0x[0-9a-fA-F_]+|0|[1-9][0-9_]*)$")
_FLOAT = re.compile(
    r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$"
)
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", _INT, list("-+0123456789"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))

_EXPRESSION = re.compile(r"\$\{\{([^\n]*?)\}\}")
_ENV = re.compile(
    r"""\s*env\s+(?:"([^"]*)"|`([^`]*)`)(?:\s*\|\s*(?:toBool|toInt|toFloat|indent\s+\d+))*\s*"""
)


class _Masked:
    """The text with each `${{ ... }}` replaced by a word that means nothing to YAML.

    The quotes inside an expression would otherwise end the quotes around it.
    """

    def __init__(self, text: str, name: str) -> None:
        self.name = name
        self.expressions: list[str] = []
        self._word = "deckenv"
        while self._word in text:
            self._word += "x"
        self._text = _EXPRESSION.sub(self._mask, text)
        self.pattern = re.compile(rf"{self._word}-(\d+)-")

    def _mask(self, match: re.Match[str]) -> str:
        self.expressions.append(match[1])
        return f"{self._word}-{len(self.expressions) - 1}-"

    def compose(self) -> yaml.Node:
        """YAML's nodes of the one document in the text."""
        try:
            self._check_depth()
            node = _Loader(self._text).get_single_node()
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            what = error.problem
            if isinstance(error, yaml.composer.ComposerError) and error.context:
                what = f"{error.context}, {error.problem}"
            raise DeckError(self.name, line, f"not YAML: {what}") from None
        except yaml.reader.ReaderError as error:
            line = self._text.count("\n", 0, error.position) + 1
            raise DeckError(self.name, line, f"not YAML: {error.reason}") from None
        if node is None:
            raise DeckError(self.name, 1, "the file is empty")
        return node  # type: ignore[no-any-return] # PyYAML's stubs do not reach the C loader

    def _check_depth(self) -> None:
        """Composing calls itself for each level, in C: too many would end the process."""
        depth = 0
        for event in yaml.parse(self._text, _Loader):
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > _DEEPEST:
                line = event.start_mark.line + 1 if event.start_mark else 1
                raise DeckError(self.name, line, "nested too deeply")


class _Reader:
    """Turns YAML's nodes into plain values, with the variables in and the lines noted."""

    def __init__(self, masked: _Masked, env: Mapping[str, str], allow_unset: bool) -> None:
        self.lines: dict[DeckPath, int] = {}
        self.unset: dict[DeckPath, str] = {}
        self._masked = masked
        self._env = env
        self._allow_unset = allow_unset
        self._resolver = _Loader("")
        self._open: set[int] = set()

    def value(self, node: yaml.Node, path: DeckPath) -> Any:
        """The value of `node`, which stands at `path`."""
        self.lines.setdefault(path, _line(node))
        if len(self.lines) > _MOST_VALUES:
            raise self._error(node, "too many values")
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        if id(node) in self._open:
            raise self._error(node, "a YAML alias must not stand inside what it names")
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.SequenceNode):
                items = enumerate(node.value)
                return [self.value(item, (*path, index)) for index, item in items]
            return self._mapping(node, path)
        finally:
            self._open.discard(id(node))

    def _mapping(self, node: yaml.Node, path: DeckPath) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in self._entries(node):
            name = self._text(key, path)
            self.lines[(*path, name)] = _line(key)
            found[name] = self.value(value, (*path, name))
        return found

    def _entries(self, node: yaml.Node) -> Iterator[tuple[yaml.Node, yaml.Node]]:
        """A mapping's keys and values, those of `<<` after its own. Raises for a key twice."""
        own: dict[str, int] = {}
        merged: list[tuple[yaml.Node, yaml.Node]] = []
        for key, value in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                sources = value.value if isinstance(value, yaml.SequenceNode) else [value]
                merged += ((key, source) for source in sources)
                continue
            if not isinstance(key, yaml.ScalarNode):
                raise self._error(key, "expected a name before the colon")
            if key.value in own:
                raise self._error(key, f"{key.value} is there already, in line {own[key.value]}")
            own[key.value] = _line(key)
            yield key, value
        yield from self._merged(merged, own)

    def _merged(
        self, sources: list[tuple[yaml.Node, yaml.Node]], own: dict[str, int]
    ) -> Iterator[tuple[yaml.Node, yaml.Node]]:
        for merge, source in sources:
            if not isinstance(source, yaml.MappingNode) or id(source) in self._open:
                raise self._error(merge, "<< needs the alias of a mapping")
            for key, value in self._entries(source):
                if key.value not in own:
                    own[key.value] = _line(key)
                    yield key, value

    def _scalar(self, node: yaml.ScalarNode, path: DeckPath) -> object:
        text = self._text(node, path)
        tag = node.tag
        # Where nothing is quoted, a variable may be a number. Plain style is None or "".
        if text != node.value and not node.style and path not in self.unset:
            tag = self._resolver.resolve(yaml.ScalarNode, text, (True, False))
        kind = tag.rpartition(":")[2]
        if kind not in _SCALARS:
            raise self._error(node, f"the YAML tag {tag} is not understood")
        return _SCALARS[kind](text)

    def _text(self, node: yaml.Node, path: DeckPath) -> str:
        return self._masked.pattern.sub(lambda match: self._expand(match, node, path), node.value)

    def _expand(self, match: re.Match[str], node: yaml.Node, path: DeckPath) -> str:
        expression = self._masked.expressions[int(match[1])]
        env = _ENV.fullmatch(expression)
        if env is None:
            raise self._error(node, 'only ${{ env "DECK_NAME" }} is understood')
        name = str(env[1] or env[2])
        if not name.startswith("DECK_"):
            raise self._error(node, f"the name of the variable {name} must begin with DECK_")
        if name in self._env:
            return self._env[name]
        if not self._allow_unset:
            raise self._error(node, f"the environment variable {name} is not set")
        self.unset[path] = name
        return name

    def _error(self, node: yaml.Node, message: str) -> DeckError:
        return DeckError(self._masked.name, _line(node), message)


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _int(text: str) -> int:
    digits = text.replace("_", "")
    octal = re.fullmatch(r"([-+]?)0o?([0-7]+)", digits)
    return int(octal[1] + octal[2], 8) if octal else int(digits, 0)


def _float(text: str) -> float:
    return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))


_SCALARS: Mapping[str, Callable[[str], object]] = {
    "str": str,
    "int": _int,
    "float": _float,
    "bool": lambda text: text.lower() in ("true", "yes", "on"),
    "null": lambda _: None,
}
