"""Plugins that a test's own plugin server runs in place of the packaged ones, as files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class PluginFile:
    """The source of both plugins; NAME in it is the plugin's name."""

    source: str

    def write(self, folder: Path, **values: str) -> Path:
        """Write both into a folder of their own, with `values` for words in capitals."""
        plugins = folder / "plugins"
        plugins.mkdir()
        text = self.source
        for word, value in values.items():
            text = text.replace(word.upper(), repr(value))
        for name in ("ai-proxy", "ai-proxy-advanced"):
            (plugins / f"{name}.py").write_text(text.replace("NAME", repr(name)))
        return plugins


RAISING = PluginFile("""
from kong_ai_proxy.pluginserver.access import AccessPlugin

class Plugin(AccessPlugin):
    plugin = NAME

    def access(self, kong):
        if words := kong.request.get_header("x-raise"):
            raise ValueError(words)
        super().access(kong)
""")

DYING = PluginFile("""
import gc
from kong_ai_proxy.pluginserver.access import AccessPlugin
from kong_ai_proxy.pluginserver.session import Session

def end_connections():
    for session in [each for each in gc.get_objects() if isinstance(each, Session)]:
        session._transport.abort()

class Mortal:
    def __init__(self, part, left):
        self.part, self.left = part, left

    def __getattr__(self, name):
        return Mortal(getattr(self.part, name), self.left)

    def __call__(self, *arguments):
        answer = self.part(*arguments)
        self.left[0] -= 1
        if self.left[0] == 0:
            end_connections()
        return answer

died = set()

class Plugin(AccessPlugin):
    plugin = NAME

    def access(self, kong):
        calls = kong.request.get_header("x-calls")
        left = 0 if calls in died else int(calls.split()[0])
        died.add(calls)  # Kong repeats an event of ProtoBuf whose connection has ended
        super().access(Mortal(kong, [left]))
""")

ISSUING = PluginFile("""
from kong_ai_proxy.pluginserver.access import AccessPlugin

class Noting:
    def __init__(self, relay):
        self.relay, self.port = relay, relay.port

    def issue(self, *arguments):
        ticket = self.relay.issue(*arguments)
        with open(TICKETS, "a") as file:
            file.write(ticket + "\\n")
        return ticket

class Plugin(AccessPlugin):
    plugin = NAME

    def __init__(self, config, relay):
        super().__init__(config, Noting(relay))
""")
