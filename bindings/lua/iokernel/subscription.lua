--- Subscriptions: requests that keep giving.
local abi = require("iokernel.abi")
local errors = require("iokernel.errors")
local finalizer = require("iokernel.finalizer")
local News = require("iokernel.news")

local OP, KIND = abi.OP, abi.KIND
local BUFFER, WATCH_BUFFER = 65536, 1024

--- Messages as they come, until `close`: `for message in subscription do`, or `get`.
--
-- It outlives lost connections: messages sent meanwhile are not delivered, `reconnects` counts. `lost` counts messages
-- dropped because the program left too many unread. One that nobody holds any more is closed.
local Subscription = {}
Subscription.__index = Subscription

-- What the channel holds: it lets go of a subscription that nobody else holds.
local Sink = {}
Sink.__index = Sink
local weak = { __mode = "v" }

function Sink:settle(value, problem, _, kind)
  local subscription = self.weak[1]
  if subscription then
    subscription:take(value, problem, kind)
  end
end

-- Begins one; `put(sink)` queues its request and returns its slot and what is unsent.
local function begin(channel, buffer, keeps_newest, put)
  local sink = setmetatable({}, Sink)
  local slot, unsent = put(sink)
  local self = setmetatable({
    channel = channel,
    sink = sink,
    slot = slot,
    buffer = buffer,
    keeps_newest = keeps_newest,
    lost = 0,
    reconnects = -1,
    first = 1,
    last = 0,
    messages = {},
    news = News.of(channel),
    is_closed = false,
  }, Subscription)
  sink.weak = setmetatable({ self }, weak)
  self.finalizer = finalizer(function()
    if not channel.ended then
      channel:later(function() channel:cancel(slot, sink) end)
    end
  end)
  channel:scheduled(unsent)
  return self
end

local function is_settled(self)
  return self.reconnects >= 0 or self.is_closed
end

--- See `Endpoint:subscribe`.
function Subscription.open(endpoint, number, ...)
  local channel = endpoint.kernel:channel()
  local arguments, count = { ... }, select("#", ...)
  local unpack = table.unpack or unpack
  local self = begin(channel, BUFFER, false, function(sink)
    return channel:request(sink, OP.STREAM, 0, number, endpoint.timeout_ms, 0, unpack(arguments, 1, count))
  end)
  local good, problem = pcall(self.news.wait, self.news, self, is_settled)
  if not good then
    self:close()
    error(problem, 0)
  end
  if self.problem and self.first > self.last then
    error(self.problem, 0)
  end
  return self
end

--- See `Endpoint:watch` and `Kernel:watch`.
function Subscription.watch(kernel, number, buffer)
  local channel = kernel:channel()
  return begin(channel, buffer or WATCH_BUFFER, true, function(sink)
    return channel:submit(sink, OP.WATCH, 0, number, 0, 0, "")
  end)
end

local function keep(self, message)
  if self.last - self.first + 1 >= self.buffer then
    self.lost = self.lost + 1
    if not self.keeps_newest then
      return
    end
    self.messages[self.first] = nil
    self.first = self.first + 1
  end
  self.last = self.last + 1
  self.messages[self.last] = message
end

--- What the channel hands over.
function Subscription:take(value, problem, kind)
  if kind == KIND.PUSH then
    keep(self, value)
  elseif kind == KIND.ACCEPTED then
    self.reconnects = self.reconnects + 1
  elseif kind == KIND.LOST then
    self.lost = self.lost + value
  elseif kind == KIND.DONE then
    if not self.is_closed then
      self.problem = problem
    end
    self.is_closed = true
  end
  self.news:fire()
end

local function has_news(self)
  return self.first <= self.last or self.is_closed
end

local function next_message(self)
  local message = self.messages[self.first]
  self.messages[self.first] = nil
  self.first = self.first + 1
  return message
end

--- The next message, waiting for it `seconds` at most (nil: for ever). Raises Timeout when the time is over; after the
-- end, what ended it, or Closed.
function Subscription:get(seconds)
  if not self.news:wait(self, has_news, seconds) then
    error(errors.of(-202, { text = ("no message within %s s"):format(seconds) }), 0)
  end
  if self.first <= self.last then
    return next_message(self)
  end
  error(self.problem or errors.of(-103, { text = "the subscription has ended" }), 0)
end

--- The next message; nil after the end. Raises what ended it.
function Subscription:__call()
  self.news:wait(self, has_news)
  if self.first <= self.last then
    return next_message(self)
  elseif self.problem then
    error(self.problem, 0)
  end
  return nil
end

--- Ends it. Messages that came before can still be taken. Twice is harmless.
function Subscription:close()
  if not self.is_closed then
    self.is_closed = true
    self.channel:cancel(self.slot, self.sink)
    self.news:fire()
  end
end

--- True once no more messages come.
function Subscription:closed()
  return self.is_closed
end

Subscription.__close = Subscription.close
Subscription.__tostring = function(self)
  return ("iokernel.Subscription (%s)"):format(self.is_closed and "closed" or "open")
end

return Subscription
