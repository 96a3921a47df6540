--- Listeners: clients connect to us, and their requests come as completions.
local abi = require("iokernel.abi")
local errors = require("iokernel.errors")
local News = require("iokernel.news")
local options = require("iokernel.options")
local Request = require("iokernel.request")
local tasks = require("iokernel.tasks")

local OP, KIND = abi.OP, abi.KIND

--- Where clients connect; made by `iokernel.listen`. `for request in listener do`, or let `serve` do it.
local Listener = {}
Listener.__index = Listener

--- See `iokernel.listen`.
function Listener.open(kernel, url)
  local fields = { kernel = kernel, live = {}, queue = {}, first = 1, last = 0, is_closed = false }
  local self = setmetatable(fields, Listener)
  self.channel = kernel:channel()
  self.news = News.of(self.channel)
  kernel:ask(OP.LISTEN, 0, 0, 0, 0, url, function(bound_url, number)
    self.bound_url, self.number = bound_url, number
    kernel.names[number] = options.shown(bound_url)
    self.channel.listeners[number] = self
  end)
  return self
end

--- Where it listens, with the port that the system chose.
function Listener:url()
  return self.bound_url
end

--- What the channel hands over.
function Listener:completion(kind, high, low, value, problem, peer)
  if kind == KIND.REQUEST then
    local request = Request.new(self, high, low, peer, value)
    self.live[low] = request
    self.last = self.last + 1
    self.queue[self.last] = request
    self.news:fire()
  elseif kind == KIND.DONE then
    if problem then
      io.stderr:write(("iokernel: a reply was not sent: %s\n"):format(tostring(problem)))
    end
  elseif self.live[low] then
    local request = self.live[low]
    if kind == KIND.GONE then
      self.live[low] = nil
    end
    request:completion(kind, value)
  end
end

--- Nothing comes any more: who waits is told.
function Listener:left()
  self.is_closed = true
  for low, request in pairs(self.live) do
    self.live[low] = nil
    request:completion(KIND.GONE)
  end
  self.news:fire()
end

local function has_news(self)
  return self.first <= self.last or self.is_closed
end

--- The next request, waiting for it; nil after the end.
function Listener:__call()
  self.news:wait(self, has_news)
  local request = self.queue[self.first]
  if request then
    self.queue[self.first] = nil
    self.first = self.first + 1
  end
  return request
end

local function answer(request, good, value)
  if request:gone() or request.begun then
    return
  end
  if good then
    good, value = pcall(request.reply, request, value)
  end
  if good or errors.is(value, errors.Closed) then
    return
  end
  if errors.is(value, errors.RemoteError) then
    return request:error(value.code ~= "" and value.code or "ERR", value.message)
  end
  io.stderr:write(("iokernel: a request's handler failed: %s\n"):format(tostring(value)))
  request:error("ERR", "the handler failed")
end

local function handle(handler, request)
  answer(request, pcall(handler, request))
end

--- Gives every request to `handler`, until the listener is closed. What it returns is the reply; a RemoteError that it
-- raises (`error(iokernel.remote("ERR", "why"))`) is the client's error; what else it raises is told on the standard
-- error and becomes `ERR`. It may also call `request:reply`, or `begin` and what follows, itself. In a task each
-- handler is a task of its own; elsewhere they run one after the other.
function Listener:serve(handler)
  for request in self do
    if tasks.current() then
      tasks.spawn(handle, handler, request)
    else
      handle(handler, request)
    end
  end
end

--- How it is: `state` (`"up"`, `"leaving"`), `address`, `conns`, `requests`; over TLS, `tls`.
function Listener:state()
  return (self.kernel:ask(OP.STATE, 0, self.number, 0, 0, ""))
end

--- Stops listening and drops its clients. With `drain`, seconds, it leaves as politely as its protocol can: what is
-- under way has so long to finish. Twice is harmless.
function Listener:close(drain)
  if self.is_closed or self.kernel.is_closed or self.channel.ended then
    self.is_closed = true
    return
  end
  local ms = drain and drain > 0 and options.timeout_ms(drain) or 0
  if ms == 0 then
    self:left()
  end
  local good, problem = pcall(self.kernel.ask, self.kernel, OP.CLOSE, 0, self.number, ms, 0, "")
  self.channel.listeners[self.number] = nil
  self:left()
  if not good and not errors.is(problem, errors.Closed) and not errors.is(problem, errors.Timeout) then
    error(problem, 0)
  end
end

--- True after `close`, or when its kernel has ended.
function Listener:closed()
  return self.is_closed
end

Listener.__close = function(self) self:close() end
Listener.__tostring = function(self)
  return ("iokernel.Listener %s%s"):format(self.bound_url, self.is_closed and " closed" or "")
end

return Listener
