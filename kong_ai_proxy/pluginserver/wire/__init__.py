"""Kong's two plugin server protocols, ProtoBuf:1 and MsgPack:1, as pure codecs without I/O."""

from __future__ import annotations

import re


class WireError(ValueError):
    """Bytes from Kong that are no message of the protocol, or a value that cannot be sent.

    The text names what was expected and never holds the value itself, which may be a secret.
    """


# Kong acts on these words wherever they stand in an error text: it repeats the event at once,
# without bound or pause.
_ACTED_ON = re.compile(r"closed|no plugin instance", re.IGNORECASE)


def safe_text(text: str) -> str:
    """An error text that Kong may see: without the words that make it repeat the event."""
    return _ACTED_ON.sub("(...)", text)
