"""What the rules for a JSON body mean for a multipart form, whose fields come one by one."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from kong_ai_proxy.exchange.errors import BAD_REQUEST, Refused
from kong_ai_proxy.formats.form import FormError, FormFilter


class Form:
    """A multipart body. `data` is all of it where it was read, None where it passes by."""

    __slots__ = ("content_type", "data")

    def __init__(self, content_type: str, data: bytes | None = None) -> None:
        self.content_type = content_type
        self.data = data

    def model(self) -> str | None:
        """The field `model` of a body that was read. Raises Refused."""
        found: dict[str, str] = {}
        fields = FormFields(self.content_type, found.__setitem__, {})
        fields.feed(self.data or b"")
        fields.end()
        return found.get("model") or None


class FormFields:
    """A BodyFilter that looks at the fields `model` and `stream`, and sets fields."""

    def __init__(
        self,
        content_type: str,
        check: Callable[[str, str], None],
        members: Mapping[str, str],
        *,
        kept: frozenset[str] = frozenset(),
    ) -> None:
        """`check(name, value)` is called for each field that is there and may raise Refused.
        `members` are set in place of the client's, but for those in `kept`, where the client's
        wins. Raises Refused for a content type without a boundary."""
        self._check = check
        self._members = members
        self._kept = kept
        watched = frozenset({"model", "stream"} | members.keys())
        try:
            self._filter = FormFilter(content_type, watched, self._on_field, self._missing)
        except FormError as error:
            raise _refused(error) from None

    @property
    def may_change(self) -> bool:
        """See BodyFilter."""
        return bool(self._members)

    def feed(self, chunk: bytes) -> bytes:
        """See BodyFilter."""
        try:
            return self._filter.feed(chunk)
        except FormError as error:
            raise _refused(error) from None

    def end(self) -> bytes:
        """See BodyFilter."""
        try:
            return self._filter.end()
        except FormError as error:
            raise _refused(error) from None

    def _on_field(self, name: str, value: str) -> bytes | None:
        self._check(name, value)
        wanted = self._members.get(name)
        if wanted is None or wanted == value or (name in self._kept and value):
            return None
        return wanted.encode()

    def _missing(self, seen: frozenset[str]) -> Mapping[str, str]:
        return {name: value for name, value in self._members.items() if name not in seen}


def _refused(error: FormError) -> Refused:
    return Refused(BAD_REQUEST, f"multipart body: {error}")
