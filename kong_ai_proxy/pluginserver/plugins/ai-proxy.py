"""ai-proxy, where a plugin server looks for it: a module named after the plugin."""

from kong_ai_proxy import __version__
from kong_ai_proxy.pluginserver.access import PRIORITY, AccessPlugin
from kong_ai_proxy.pluginserver.packaged_schema import config_fields

Schema = config_fields("ai-proxy")
version = __version__
priority = PRIORITY


class Plugin(AccessPlugin):
    """One model behind a route."""

    plugin = "ai-proxy"
