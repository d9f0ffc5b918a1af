-- Hands ai-proxy and ai-proxy-advanced over to the plugin server, and does around it what only Lua
-- inside Kong can do. Found before Kong's own plugins of these names through lua_package_path.
-- Used by Kong 3.4 and later; `balancer_data` and the upstream_* variables are Kong's own.

local frames = require("kong.ai_proxy_frames")
local json = require("cjson.safe").new()
local plugin_servers = require("kong.runloop.plugin_servers")

local NOWHERE = "ai-proxy.invalid" -- a name that never resolves (RFC 6761)
local PAUSE = 0.01 -- seconds, for nginx to notice which kept connections were closed
local CONSUMER_GROUPS = "ai_proxy_consumer_groups"
local MODEL_HEADER = "X-Kong-LLM-Model"
local BOTH = "ai-proxy and ai-proxy-advanced both apply to this request: remove one"
local FORWARDED = { "for", "proto", "host", "port", "path", "prefix" }

local shim = {}

local function handed_over(name, found, what)
  if not found or type(what) ~= "table" then
    error("no plugin server offers " .. name .. ": add it to pluginserver_names in kong.conf, "
      .. "as `kong-ai-proxy kong-conf` prints it")
  end
  return what
end

-- The values in `node` that came from a vault. Kong says which in `$refs`, beside the values; a
-- reference that is itself a table lists those of an array or a map.
local function vault_values(node, values)
  for key, reference in pairs(node["$refs"] or {}) do
    if type(reference) ~= "table" then
      values[#values + 1] = tostring(node[key])
    elseif type(node[key]) == "table" then
      for inner in pairs(reference) do
        values[#values + 1] = tostring(node[key][inner])
      end
    end
  end
  for key, child in pairs(node) do
    if key ~= "$refs" and type(child) == "table" then
      vault_values(child, values)
    end
  end
  return values
end

-- Configuration -> { seq, rotations, seen }, or false where nothing comes from a vault. Must hold
-- no part of the configuration itself: LuaJIT's weak keys would then never be collected.
local known = setmetatable({}, { __mode = "k" })

-- Kong renews a rotated secret inside the configuration it has, and starts a new instance at the
-- plugin server only when __seq__ has changed.
local function renew_instance_if_rotated(conf)
  local state = known[conf]
  if state == false then
    return
  end
  local values = vault_values(conf, {})
  local seen = table.concat(values, "\0")
  if state == nil then
    known[conf] = #values > 0 and { seq = tostring(conf.__seq__), rotations = 0, seen = seen }
  elseif state.seen ~= seen then
    state.seen, state.rotations = seen, state.rotations + 1
    conf.__seq__ = state.seq .. "." .. state.rotations
  end
end

-- The plugin server answers for retries and timeouts, and must name the target: until it has, the
-- request has nowhere to go. Type "name" lets it name a host where the Service has an IP address.
local function take_over_balancing(balancer, conf)
  local limits = conf.balancer or {}
  balancer.type, balancer.host = "name", NOWHERE
  balancer.retries = 0
  balancer.connect_timeout = limits.connect_timeout or balancer.connect_timeout
  balancer.send_timeout = limits.write_timeout or balancer.send_timeout
  balancer.read_timeout = limits.read_timeout or balancer.read_timeout
end

-- Kong 3.9 writes the handle of each server it runs into its own configuration, and its Admin API
-- cannot print that: GET /, which decK asks first, would answer 500. Keep such additions beside it.
local function keep_handles_out_of(configuration)
  for _, server in ipairs(configuration and configuration.pluginservers or {}) do
    if not getmetatable(server) then
      local additions = {}
      setmetatable(server, { __index = additions, __newindex = additions })
    end
  end
end

local function each(value)
  return ipairs(type(value) == "table" and value or { value })
end

-- A provider's cookies are its own affair: to the client they would be this gateway's. Those of Kong's
-- plugins stay. Nginx knows by name which ones the upstream sent; where Kong has buffered the answer
-- Kong does.
local function remove_the_providers_cookies()
  local cookies = ngx.header["Set-Cookie"]
  if not cookies then
    return
  end
  local theirs, kept = {}, {}
  if ngx.ctx.buffered_headers then
    for _, cookie in each(kong.service.response.get_headers()["set-cookie"]) do
      theirs[cookie] = true
    end
  end
  for _, cookie in each(cookies) do
    local name = cookie:match("^([^=;]-) *=") -- no plugin makes a cookie without a name
    if name and not theirs[cookie] and not ngx.var["upstream_cookie_" .. name] then
      kept[#kept + 1] = cookie
    end
  end
  ngx.header["Set-Cookie"] = kept
end

function shim.schema(name)
  return handed_over(name, plugin_servers.load_schema(name))
end

-- Rules for consumer groups need them, and a plugin server cannot ask for them. Kongs without
-- consumer groups leave the place empty: the plugin server then lets nobody in.
local function tell_consumer_groups(conf)
  local rules = conf.acls or {}
  if not (rules.allow or rules.deny) or not kong.client.get_consumer_groups then
    return
  end
  local told = {}
  for _, group in ipairs(kong.client.get_consumer_groups() or {}) do
    told[#told + 1] = { id = group.id, name = group.name }
  end
  kong.ctx.shared[CONSUMER_GROUPS] = json.encode(told)
end

local function ask(external, conf)
  take_over_balancing(ngx.ctx.balancer_data, conf)
  external.access(external, conf)
end

function shim.handler(name)
  local external = handed_over(name, plugin_servers.load_plugin(name))
  keep_handles_out_of(kong.configuration)
  -- Kong 3.4 skips a plugin whose server it has not yet seen accepting, and never looks at a server
  -- that it did not start. It is to try.
  external.server_def.ready = true
  local handler = { PRIORITY = external.PRIORITY, VERSION = external.VERSION }

  function handler:access(conf)
    if ngx.ctx.ai_proxy_applied then -- two of them would mix their providers and credentials
      return kong.response.exit(500, { error = { message = BOTH } })
    end
    ngx.ctx.ai_proxy_applied = true
    renew_instance_if_rotated(conf)
    frames.clear_what_a_client_sent()
    tell_consumer_groups(conf)
    local asked, problem = pcall(ask, external, conf)
    if not asked and not tostring(problem):find("timeout", 1, true) then
      -- As when Kong takes a connection that an ending server has just closed.
      kong.log.warn("asking the plugin server once more: ", problem)
      ngx.sleep(PAUSE)
      ask(external, conf)
    elseif not asked then -- it has had its minute
      error(problem, 0)
    end
    -- A failure without an answer: over MsgPack, and before 3.8 over ProtoBuf, Kong only logs it.
    if ngx.ctx.balancer_data.host == NOWHERE then
      return kong.response.exit(500, { error = { message = name .. " failed before proxying" } })
    end
    for _, part in ipairs(FORWARDED) do -- nginx sends no header whose value is empty
      ngx.var["upstream_x_forwarded_" .. part] = ""
    end
    frames.announce(self, conf)
  end

  function handler:header_filter()
    if kong.response.get_status() ~= 200 then
      kong.response.clear_header(MODEL_HEADER)
    end
    remove_the_providers_cookies()
    frames.header_filter()
  end

  function handler:body_filter()
    frames.body_filter()
  end

  return handler
end

return shim
