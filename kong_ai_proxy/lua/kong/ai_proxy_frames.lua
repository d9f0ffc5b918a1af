-- What the shim does around the relay: it says that it cuts frames out, and cuts them out.
--
-- The relay ends an answer with one private frame, the record of the request for Kong's log plugins:
-- \x1e, the request's marker (32 hex digits), a space, the length of the JSON (8 hex digits), \n and
-- a JSON object that has the names and values for kong.log.set_serialize_value.

local random = require("resty.random")
local to_hex = require("resty.string").to_hex
local json = require("cjson.safe").new() -- with settings of its own

local TICKET = "x-kong-ai-proxy-ticket"
local MARKER = "x-kong-ai-proxy-marker"
local FRAME = "X-Kong-AI-Proxy-Frame"
local MARKER_BYTES = 16
local LENGTH_DIGITS = 8
local MAX_JSON = 4 * 1024 * 1024
local MAX_TIMEOUT = 2 ^ 31 - 2 -- milliseconds, Kong's limit
local CONNECT_TIMEOUT = 5000 -- to this machine itself
local GRACE = 10000 -- milliseconds, for the relay's own 504 to come first

json.decode_array_with_array_mt(true) -- an empty array stays one in the log
json.decode_invalid_numbers(false) -- NaN: the log plugins could not write it

local frames = {}

-- Only access gives a ticket. nginx's variable matches X_Kong_AI_Proxy_Ticket too, so it only tells
-- whether to look closer.
function frames.clear_what_a_client_sent()
  if ngx.var.http_x_kong_ai_proxy_ticket then
    ngx.req.clear_header(TICKET)
  end
  if ngx.var.http_x_kong_ai_proxy_marker then
    ngx.req.clear_header(MARKER)
  end
end

local function relay_carries()
  return ngx.var.http_x_kong_ai_proxy_ticket and ngx.req.get_headers(0)[TICKET] ~= nil
end

-- The relay keeps each target's timeouts, tries several, and answers 504 itself. What Kong would give
-- one target is in `balancer` already; without `limits` the time is the Service's.
local function give_time(balancer, limits)
  local one = balancer.connect_timeout + balancer.send_timeout + balancer.read_timeout
  balancer.connect_timeout = CONNECT_TIMEOUT
  balancer.send_timeout = math.min(balancer.send_timeout + GRACE, MAX_TIMEOUT)
  balancer.read_timeout = math.min(one * ((limits.retries or 0) + 1) + GRACE, MAX_TIMEOUT)
end

-- Have Kong run this handler's filters before those of all other plugins on this request: they are
-- to see the answer without its frame and with its length. It was the last that Kong collected, as
-- pairs of plugin and configuration with their number at 0 (Kong 3.4 to 3.9). False: it did not.
local function run_first(handler, phase)
  local queue = (ngx.ctx.plugins or {})[phase]
  local count = type(queue) == "table" and queue[0]
  if not count or not queue[count - 1] or queue[count - 1].handler ~= handler then
    return false
  end
  local plugin, conf = queue[count - 1], queue[count]
  for place = count, 3, -1 do
    queue[place] = queue[place - 2]
  end
  queue[1], queue[2] = plugin, conf
  return true
end

-- To be called when the plugin server has decided.
function frames.announce(handler, conf)
  if not relay_carries() then
    return
  end
  if conf.balancer then
    give_time(ngx.ctx.balancer_data, conf.balancer)
  end
  local bytes = random.bytes(MARKER_BYTES, true)
  if not bytes then
    return kong.log.warn("no random bytes: this request is missing in ai.proxy.*")
  end
  local marker = to_hex(bytes)
  ngx.req.set_header(MARKER, marker)
  kong.log.set_serialize_value("request.headers." .. MARKER, "REDACTED")
  local first = run_first(handler, "header_filter") and run_first(handler, "body_filter")
  ngx.ctx.ai_proxy_frame = { opening = "\30" .. marker .. " ", first = first }
end

-- An answer with a frame comes without Content-Length, which the client is to get where it is known
-- and no plugin before this one may have changed the body.
function frames.header_filter()
  local announced = ngx.header[FRAME]
  if not announced then
    return
  end
  ngx.header[FRAME] = nil
  local state = ngx.ctx.ai_proxy_frame
  if state then
    state.expected, state.held = true, ""
    local length = type(announced) == "string" and announced:match("^%d+$")
    ngx.header["Content-Length"] = state.first and length or nil
  end
end

-- The part of `text` that may be the beginning of a frame which the next buffer continues.
local function possible_beginning(text, opening)
  local rest = text:sub(1 - #opening):match("\30[^\30]*$")
  return rest and opening:sub(1, #rest) == rest and rest or ""
end

-- Kong 3.4's log cannot hold cjson.null, and the prometheus plugin compares what it finds.
local function without_nulls(node)
  for key, value in pairs(node) do
    if value == ngx.null then
      node[key] = nil
    elseif type(value) == "table" then
      without_nulls(value)
    end
  end
  return node
end

local function record(text)
  local values, problem = json.decode(text)
  if type(values) ~= "table" then
    return false, problem or "expected an object"
  end
  for name, value in pairs(without_nulls(values)) do
    if type(name) ~= "string" then
      return false, "expected an object"
    end
    kong.log.set_serialize_value(name, value)
  end
  if values["ai.proxy.meta"] then -- the prometheus plugin of Kong 3.8 fails without the other
    kong.log.set_serialize_value("ai.proxy.cache", {}, { mode = "add" })
  end
  return true
end

local function give_up(state, problem)
  state.frame, state.done = nil, true
  kong.log.warn("dropped the relay's record of this request: ", problem)
end

-- Everything from the frame's first byte on comes here; none of it is for the client.
local function collect(state, text, last)
  if state.done then
    return
  end
  state.frame[#state.frame + 1] = text
  state.size = state.size + #text
  local start = #state.opening + LENGTH_DIGITS + 1 -- where the JSON starts, counted from 0
  if state.size >= start and not state.length then
    state.frame = { table.concat(state.frame) }
    state.length = tonumber(state.frame[1]:sub(start - LENGTH_DIGITS, start - 1), 16) or math.huge
    if state.length > MAX_JSON then
      return give_up(state, "its length is not a number up to " .. MAX_JSON)
    end
  end
  if state.length and state.size >= start + state.length then
    local text = table.concat(state.frame)
    local recorded, problem = record(text:sub(start + 1, start + state.length))
    if not recorded then
      return give_up(state, problem)
    end
    state.frame, state.done = nil, true
  elseif last then
    give_up(state, "it ends early")
  end
end

-- The answer's next piece without what belongs to the frame.
local function cut(state, piece, last)
  if state.frame or state.done then
    collect(state, piece, last)
    return nil
  end
  local text = state.held == "" and piece or state.held .. piece
  local from = text:find(state.opening, 1, true)
  if from then
    state.held, state.frame, state.size = "", {}, 0
    collect(state, text:sub(from), last)
    return text:sub(1, from - 1)
  end
  state.held = last and "" or possible_beginning(text, state.opening)
  return state.held == "" and text or text:sub(1, -1 - #state.held)
end

function frames.body_filter()
  local state = ngx.ctx.ai_proxy_frame
  if not state or not state.expected then
    return
  end
  local piece = ngx.arg[1] or ""
  local rest = cut(state, piece, ngx.arg[2])
  if rest ~= piece then
    ngx.arg[1] = rest
  end
end

return frames
