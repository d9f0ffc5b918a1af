"""What a plugin class says about itself when Kong asks the running server."""

from __future__ import annotations

from kong_ai_proxy.pluginserver.events import PHASES


def info(plugin: type) -> tuple[list[str], str, int]:
    """Phases, version and priority of a plugin class.

    `version` and `priority` are attributes of the class; what is absent is empty or 0.
    """
    phases = sorted(phase for phase in PHASES if callable(getattr(plugin, phase, None)))
    return phases, str(getattr(plugin, "version", "")), int(getattr(plugin, "priority", 0))
