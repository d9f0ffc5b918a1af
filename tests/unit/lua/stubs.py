"""LuaJIT with stand-ins for what the shim meets inside Kong."""

from __future__ import annotations

import json
from typing import Any

from lupa.luajit21 import LuaRuntime, lua_type

from kong_ai_proxy.lua.path import lua_package_path

# `server.access` is the plugin server's part of a request; `trace` keeps the order in which it and
# the changes of nginx's variables happen. `answered` and `logged` are what header_filter and the
# log plugins would see, `request_headers` what goes to the upstream.
_KONG = """
trace = {}
server = { PRIORITY = 770, VERSION = "1.2.3", schema = { name = "ai-proxy" }, server_def = {} }
function server:access(conf)
  trace[#trace + 1] = "server"
  type_seen, host_seen, conf_seen, self_seen = ngx.ctx.balancer_data.type,
    ngx.ctx.balancer_data.host, conf, self
  headers_seen = {}
  for name, value in pairs(request_headers) do headers_seen[name] = value end
  if answer then answer(conf) end
end
offered = { ["ai-proxy"] = true, ["ai-proxy-advanced"] = true }
package.loaded["kong.runloop.plugin_servers"] = {
  load_plugin = function(name)
    if offered[name] then return true, server end
    return false, "no plugin found"
  end,
  load_schema = function(name)
    if offered[name] then return true, server.schema end
    return false, "no plugin found"
  end,
}

randomness = 0
package.loaded["resty.random"] = { bytes = function(count, strong)
  randomness = randomness + 1
  return strong and not no_randomness and string.rep(string.char(randomness), count) or nil
end }
package.loaded["resty.string"] = { to_hex = function(bytes)
  return (bytes:gsub(".", function(byte) return string.format("%02x", byte:byte()) end))
end }
package.loaded["cjson.safe"] = { new = function()
  return {
    decode = decode,
    encode = encode,
    decode_array_with_array_mt = function(on) arrays_kept = on end,
    decode_invalid_numbers = function(on) invalid_numbers_taken = on end,
  }
end }

variables = { upstream_x_forwarded_for = "203.0.113.9" }
request_headers = {}
answered = {}
logged = {}
ngx = {
  null = null,
  header = setmetatable({}, {
    __index = function(_, name) return answered[name:lower()] end,
    __newindex = function(_, name, value) answered[name:lower()] = value end,
  }),
  req = {
    get_headers = function(limit) return limit == 0 and request_headers or {} end,
    set_header = function(name, value) request_headers[name:lower()] = value end,
    clear_header = function(name) request_headers[name:lower()] = nil end,
  },
  var = setmetatable({}, {
    __newindex = function(_, key, value)
      trace[#trace + 1] = key
      variables[key] = value
    end,
    __index = function(_, key)
      local wanted = key:match("^http_(.*)")
      for name, value in pairs(request_headers) do -- as nginx: a dash is an underscore
        if name:gsub("-", "_") == wanted then return value end
      end
      return variables[key]
    end,
  }),
  arg = {},
}
function new_request()
  request_headers, answered, logged = {}, {}, {}
  ngx.ctx = { balancer_data = { type = "ipv4", host = "192.0.2.1", port = 80, retries = 5,
    connect_timeout = 1, send_timeout = 2, read_timeout = 3 } }
end
function set_target(host)
  ngx.ctx.balancer_data.host, ngx.ctx.balancer_data.port = host, 443
end
function ngx.sleep(seconds) slept = (slept or 0) + seconds end
status, cleared, warnings = 200, {}, {}
kong = {
  client = {},
  ctx = { shared = {} },
  configuration = { pluginservers = { { name = "a" }, { name = "b" } } },
  log = {
    warn = function(...)
      warning = table.concat({ ... })
      warnings[#warnings + 1] = warning
    end,
    set_serialize_value = function(name, value, options)
      if not (options and options.mode == "add" and logged[name]) then logged[name] = value end
    end,
  },
}
kong.response = {
  exit = function(code, body) exit_status, exit_message = code, body.error.message end,
  get_status = function() return status end,
  clear_header = function(name) cleared[name] = true end,
}
"""

NULL = object()


def runtime(encoding: str = "utf-8") -> LuaRuntime:
    """A LuaJIT inside a Kong, so to speak. latin-1 lets Python's texts stand for any bytes."""
    lua = LuaRuntime(unpack_returned_tuples=True, encoding=encoding)
    lua.globals().null = NULL

    def decode(text: str) -> Any:
        try:
            return _to_lua(lua, json.loads(text))
        except ValueError as error:
            return None, str(error)

    def encode(value: Any) -> str:  # as cjson: an empty table is an object
        found = from_lua(value)
        is_list = bool(found) and list(found) == list(range(1, len(found) + 1))
        return json.dumps(list(found.values()) if is_list else found)

    lua.globals().decode = decode
    lua.globals().encode = encode
    lua.execute(_KONG)
    lua.globals().package.path = lua_package_path()
    return lua


def handler(lua: LuaRuntime, name: str = "ai-proxy") -> Any:
    """The handler that Kong would load for the plugin of this name."""
    return lua.eval(f'require("kong.plugins.{name}.handler")')


def from_lua(value: Any) -> Any:
    """A Lua value with its tables as dicts."""
    if lua_type(value) == "table":
        return {key: from_lua(inner) for key, inner in value.items()}
    return value


def _to_lua(lua: LuaRuntime, value: Any) -> Any:
    if isinstance(value, dict):
        return lua.table_from({key: _to_lua(lua, inner) for key, inner in value.items()})
    if isinstance(value, list):
        return lua.table_from([_to_lua(lua, inner) for inner in value])
    return NULL if value is None else value
