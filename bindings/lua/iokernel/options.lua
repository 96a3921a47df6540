--- Options, URLs, times: as records and URLs have them.
local abi = require("iokernel.abi")
local errors = require("iokernel.errors")

local options = {}

local function escape(text)
  return (text:gsub("[^%w%-_.~]", function(byte) return ("%%%02X"):format(byte:byte()) end))
end
options.escape = escape

local function text_of(key, value)
  local kind = type(value)
  if kind == "number" and value == math.floor(value) and value > -2 ^ 53 and value < 2 ^ 53 then
    return ("%d"):format(value)
  elseif kind == "string" or kind == "number" or kind == "boolean" then
    return tostring(value)
  end
  local text = ('%s: "%s": expected a string, number or boolean, as in heartbeat="5s"'):format(key, tostring(value))
  error(errors.of(-105, { fate = 1, text = text }), 0)
end

--- `{heartbeat = "5s", require = true}` as `heartbeat=5s&require=true`.
function options.query(given)
  local parts = {}
  for key, value in pairs(given or {}) do
    parts[#parts + 1] = escape(tostring(key)) .. "=" .. escape(text_of(key, value))
  end
  table.sort(parts)
  return table.concat(parts, "&")
end

--- A URL whose query has these options too.
function options.with(url, given)
  if type(url) ~= "string" then
    error(errors.of(-105, { fate = 1, text = ('url: "%s": expected a string'):format(tostring(url)) }), 0)
  end
  local more = options.query(given)
  if more == "" then
    return url
  end
  local joint = url:find("[?&]$") and "" or url:find("?", 1, true) and "&" or "?"
  return url .. joint .. more
end

--- A URL without its query and its password.
function options.shown(url)
  local before = url:match("^[^?]*")
  local scheme, authority, path = before:match("^(.-//)([^/]*)(.*)$")
  if not scheme then
    return before
  end
  local credentials, host = authority:match("^(.*)@(.-)$")
  if credentials then
    authority = credentials:match("^[^:]*") .. ":***@" .. host
  end
  return scheme .. authority .. path
end

--- Seconds as a record has them. nil: the endpoint's own; `math.huge`: none. Raises Timeout if the time is over.
function options.timeout_ms(seconds)
  if seconds == nil then
    return 0
  elseif type(seconds) ~= "number" or seconds ~= seconds then
    local text = ("timeout: %s: expected seconds, nil (the endpoint's default) or math.huge"):format(tostring(seconds))
    error(errors.bad_request(text), 0)
  elseif seconds <= 0 then
    error(errors.of(-202, { fate = 1, text = "the time was over before the request began" }), 0)
  elseif seconds >= abi.TIMEOUT_NONE / 1000 then
    return abi.TIMEOUT_NONE
  end
  return math.ceil(seconds * 1000)
end

return options
