"""Kong schema documents interpreted: defaults, checks and Kong's texts, for the stand-in."""

from kong_ai_proxy.gateway.schema.document import REDACTED, PluginSchema, SchemaError

__all__ = ["REDACTED", "PluginSchema", "SchemaError"]
