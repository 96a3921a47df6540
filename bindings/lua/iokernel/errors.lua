--- What can go wrong, and what is known of the request then. Errors are raised: `pcall(cache.call, cache, "GET", key)`.
--
-- Each has `message` (a sentence for people), `status` (a negative number; 0 inside of a reply), `status_name`
-- (`"TIMEOUT"`), `fate` (`"not_sent"`: sending again is safe; `"maybe_executed"`; `"replied"`; nil where no request
-- was), `endpoint` (the URL without secrets, or nil), `peer` (the number of the connection, or nil) and `code` (a word
-- for programs, such as `"WRONGTYPE"`).
local errors = {}

local FATES = { "not_sent", "maybe_executed", "replied" }

local core

-- Fields that are worked out when they are asked for.
local function named(class)
  return function(self, key)
    if key == "status_name" then
      return (core.status_name(self.status):gsub("^IOK_STATUS_", ""))
    end
    return class[key]
  end
end

local function with_notes(self)
  local notes = {}
  notes[1] = self.endpoint
  if self.fate and self.fate ~= "replied" then
    notes[#notes + 1] = self.fate:gsub("_", " ")
  end
  return #notes == 0 and self.message or ("%s (%s)"):format(self.message, table.concat(notes, ", "))
end

local function class(name, parent, tostring)
  local made = { name = name, parent = parent }
  setmetatable(made, { __index = parent, __tostring = function() return name end })
  made.metatable = { __index = named(made), __tostring = tostring or parent and parent.metatable.__tostring }
  errors[name] = made
  return made
end

--- Any error of iokernel.
local Error = class("Error", nil, with_notes)
--- The peer answered with an error. Inside of a reply (a batch, a transaction) it is an element, not raised.
local RemoteError = class("RemoteError", Error, function(self)
  return self.code ~= "" and ("%s %s"):format(self.code, self.message) or self.message
end)
--- The deadline passed; the fate says whether the request may have been executed.
local Timeout = class("Timeout", Error)
--- No connection could be made, or the peer refused it (user, password, database).
local Unavailable = class("Unavailable", Error)
--- The connection was lost before the reply, or its peer broke the protocol.
local ConnectionLost = class("ConnectionLost", Error)
--- A limit of the endpoint or the channel was reached.
local Overloaded = class("Overloaded", Error)
--- Cancelled by the program.
local Cancelled = class("Cancelled", Error)
--- The request is none of the endpoint's protocol, or too large.
local BadRequest = class("BadRequest", Error, function(self) return self.message end)
--- A URL or option is wrong: `key`, `value`, and what was `expected`.
local ConfigError = class("ConfigError", BadRequest)
--- The kernel, endpoint, listener or lease is closed.
local Closed = class("Closed", Error)

local CLASSES = {
  [-101] = BadRequest,
  [-102] = Closed,
  [-103] = Closed,
  [-104] = Closed,
  [-105] = ConfigError,
  [-106] = BadRequest,
  [-107] = BadRequest,
  [-108] = BadRequest,
  [-109] = Closed,
  [-110] = Closed,
  [-111] = Closed,
  [-201] = Overloaded,
  [-202] = Timeout,
  [-203] = Cancelled,
  [-204] = Overloaded,
  [-206] = Overloaded,
  [-301] = RemoteError,
  [-302] = ConnectionLost,
  [-303] = Unavailable,
  [-304] = ConnectionLost,
  [-305] = Unavailable,
}

--- True if this is an error of the class, or of one below it: `errors.is(problem, errors.Timeout)`.
function errors.is(problem, wanted)
  local found = type(problem) == "table" and rawget(problem, "class")
  while found and found ~= wanted do
    found = found.parent
  end
  return found ~= nil and found ~= false
end

--- `problem:is(errors.Timeout)`, where it is known to be an error of iokernel.
Error.is = errors.is

local function make(of, fields)
  fields.class = of
  return setmetatable(fields, of.metatable)
end

local function explain(problem)
  problem.key, problem.value, problem.expected = problem.message:match("^([^:]+): (.-): expected (.*)$")
  problem.value = problem.value and problem.value:gsub("^[\"']", ""):gsub("[\"']$", "")
end

--- The error of a status. `fields`: `fate` and `peer` as numbers of a completion, `endpoint` as a URL, `said` as a
-- completion's payload, `[code, message]`, or `text` in its place.
function errors.of(status, fields)
  local said = type(fields.said) == "table" and fields.said or {}
  local peer = fields.peer
  local problem = make(CLASSES[status] or Error, {
    status = status,
    code = tostring(said[1] or ""),
    message = said[2] and tostring(said[2]) or fields.text or core.status_text(status),
    fate = FATES[fields.fate],
    endpoint = fields.endpoint,
    peer = peer ~= 0 and peer or nil,
  })
  if problem.class == ConfigError then
    explain(problem)
  end
  return problem
end

--- An error that stands inside of a reply, or that a listener's handler raises for its client.
function errors.remote(code, message)
  return make(RemoteError, { status = 0, code = tostring(code), message = tostring(message), fate = "replied" })
end

--- What was wrong with a value that was given. Raised for what cannot be packed.
function errors.bad_request(text)
  return errors.of(-107, { fate = 1, text = text, said = nil })
end

--- Tells about the core whose statuses these are.
function errors.install(given)
  core = given
  RemoteError.metatable.__iokernel = function(self)
    return 1, core.pack({ self.code ~= "" and self.code or "ERR", self.message })
  end
  RemoteError.metatable.__eq = function(one, other)
    return one.class == other.class and one.code == other.code and one.message == other.message
  end
end

return errors
