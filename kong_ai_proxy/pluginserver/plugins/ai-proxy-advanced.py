"""ai-proxy-advanced, where a plugin server looks for it: a module named after the plugin."""

from kong_ai_proxy import __version__
from kong_ai_proxy.pluginserver.access import PRIORITY, AccessPlugin
from kong_ai_proxy.pluginserver.packaged_schema import config_fields

Schema = config_fields("ai-proxy-advanced")
version = __version__
priority = PRIORITY


class Plugin(AccessPlugin):
    """Several models behind a route."""

    plugin = "ai-proxy-advanced"
