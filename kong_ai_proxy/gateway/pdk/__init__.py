"""Kong's Plugin Development Kit on a `RequestContext`: what each call does, and what it refuses.

Written after Kong 3.10 (kong/pdk/*.lua) and what a recorded Kong answered. `METHODS` has every
method of the ProtoBuf:1 service and those that only MsgPack:1 can reach and a plugin may use.
"""

from kong_ai_proxy.gateway.pdk import log, node, request, response, service
from kong_ai_proxy.gateway.pdk.base import METHODS, Call, ExitedError, LuaError, invoke
from kong_ai_proxy.gateway.pdk.log import record
from kong_ai_proxy.gateway.pdk.response import error_exit

_PARTS = (log, node, request, response, service)  # imported for what they register

__all__ = ["METHODS", "Call", "ExitedError", "LuaError", "error_exit", "invoke", "record"]
