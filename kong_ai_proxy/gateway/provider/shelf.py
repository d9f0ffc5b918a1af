"""What the stand-in provider remembers: a bounded number of objects of each kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final, Generic, Protocol, TypeVar

from kong_ai_proxy.gateway.provider.http import ApiError, Json, wrong_value

MOST: Final = 1000
MOST_BYTES: Final = 64 * 1024 * 1024


class Item(Protocol):
    """An object that can stand on a shelf."""

    @property
    def id(self) -> str: ...

    def shown(self) -> Json:
        """As the API shows it."""
        ...


T = TypeVar("T", bound=Item)


class Shelf(Generic[T]):
    """The newest objects of a kind; the oldest go when there are too many or they weigh too much.

    `absent` is the error for an unknown id, with `{id}` in it; `weigh` gives an object's bytes
    when it comes; `drop` is called with what goes.
    """

    def __init__(
        self,
        absent: str,
        *,
        param: str | None = None,
        most: int = MOST,
        most_bytes: int = MOST_BYTES,
        weigh: Callable[[T], int] = lambda _: 0,
        drop: Callable[[T], None] = lambda _: None,
    ) -> None:
        self._items: dict[str, tuple[T, int]] = {}
        self._absent = absent
        self._param = param
        self._most = most
        self._most_bytes = most_bytes
        self._bytes = 0
        self._weigh = weigh
        self._drop = drop

    def __iter__(self) -> Iterator[T]:
        """Oldest first."""
        return iter([item for item, _ in self._items.values()])

    def __len__(self) -> int:
        return len(self._items)

    def add(self, item: T) -> T:
        """Keep a new object."""
        weight = self._weigh(item)
        self._bytes += weight
        while self._items and (len(self._items) >= self._most or self._bytes > self._most_bytes):
            self._forget(next(iter(self._items)))
        self._items[item.id] = (item, weight)
        return item

    def get(self, key: str) -> T:
        """Raises ApiError 404."""
        if key not in self._items:
            raise ApiError(404, self._absent.replace("{id}", key), param=self._param)
        return self._items[key][0]

    def changed(self, item: T) -> T:
        """An object has other content, and maybe another weight. It may be forgotten already."""
        if item.id not in self._items:
            return item
        weight = self._weigh(item)
        self._bytes += weight - self._items[item.id][1]
        self._items[item.id] = (item, weight)
        while self._bytes > self._most_bytes and len(self._items) > 1:
            self._forget(next(key for key in self._items if key != item.id))
        return item

    def remove(self, key: str) -> T:
        """Forget an object. Raises ApiError 404."""
        item = self.get(key)
        self._forget(key)
        return item

    def clear(self) -> None:
        """Forget everything."""
        for key in list(self._items):
            self._forget(key)

    def _forget(self, key: str) -> None:
        item, weight = self._items.pop(key)
        self._bytes -= weight
        self._drop(item)


def page(
    query: Mapping[str, str],
    items: list[T],
    *,
    default: int = 20,
    most: int = 100,
) -> Json:
    """The part of a list (oldest first) that the query asks for: limit, order, after, before.

    Raises ApiError 400.
    """
    limit = _limit(query, default, most)
    order = query.get("order", "desc")
    if order not in ("asc", "desc"):
        raise wrong_value("order", order, ("asc", "desc"))
    shown = items if order == "asc" else items[::-1]
    if "after" in query:
        shown = shown[_place(query, "after", shown) + 1 :]
    if "before" in query:
        shown = shown[: _place(query, "before", shown)]
    data = [item.shown() for item in shown[:limit]]
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": len(shown) > limit,
    }


def _limit(query: Mapping[str, str], default: int, most: int) -> int:
    text = query.get("limit", str(default))
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= most):
        raise ApiError(
            400,
            f"Invalid 'limit': expected an integer between 1 and {most}, but got '{text}' instead.",
            param="limit",
            code="invalid_value",
        )
    return int(text)


def _place(query: Mapping[str, str], param: str, items: list[T]) -> int:
    for place, item in enumerate(items):
        if item.id == query[param]:
            return place
    raise ApiError(400, f"Invalid '{param}': no object '{query[param]}' here.", param=param)
