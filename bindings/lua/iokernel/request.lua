--- A client's request at one of our listeners, with its further messages both ways.
local abi = require("iokernel.abi")
local core = require("iokernel.core_of_runtime")
local errors = require("iokernel.errors")
local News = require("iokernel.news")

local OP, KIND = abi.OP, abi.KIND
--- What may be sent before the kernel has said that it is on its way.
local SEND_AHEAD_BYTES = 262144
--- What is taken of a stream that has more in store is given back in portions of this.
local CREDIT_BYTES = 65536

--- A client's request: `args` is what it asked, `peer` the number of its connection. Exactly one of `reply`, `error`
-- and `begin`. Where the protocol has requests whose messages go both ways, `for piece in request do` gives what else
-- comes, `last_word` what came with their end, and a reply may come in parts: `begin`, `send` as often as needed,
-- `finish`.
local Request = {}
Request.__index = Request

--- See `Listener:completion`.
function Request.new(listener, high, low, peer, args)
  return setmetatable({
    listener = listener,
    args = args,
    peer = peer,
    high = high,
    low = low,
    key = core.word(high, low),
    settled = false,
    begun = false,
    lost = false,
    ended = false,
    pieces = {},
    first = 1,
    last = 0,
    taken = 0,
    unsent = 0,
    news = News.of(listener.channel),
  }, Request)
end

--- What the listener hands over.
function Request:completion(kind, value)
  if kind == KIND.PUSH then
    local _, _, _, _, bytes = self.listener.channel.core:detail()
    self.last = self.last + 1
    self.pieces[self.last] = { value, bytes }
  elseif kind == KIND.END then
    self.ended, self.last_word = true, value
  else
    self.settled, self.lost = true, true
  end
  self.news:fire()
end

--- True if nobody waits for a reply any more: it was given, or the client has left.
function Request:gone()
  return self.settled
end

local function check_open(self)
  local listener = self.listener
  if listener.is_closed then
    error(errors.of(-103, { fate = 1, endpoint = listener.bound_url, text = "the listener is closed" }), 0)
  end
end

local function put_reply(self, value)
  local listener = self.listener
  local channel = listener.channel
  channel:scheduled(channel:tell_value(OP.REPLY, listener.number, self.high, self.low, 0, value))
end

local function is_over(self)
  self.settled = true
  self.listener.live[self.low] = nil
end

--- Answers. Raises BadRequest for a value that cannot be packed, Closed after the listener's end. A client that has
-- left meanwhile is no error.
function Request:reply(value)
  if self.settled and self.lost then
    return
  end
  check_open(self)
  if not self.settled then
    put_reply(self, value)
    is_over(self)
  end
end

-- Queues one more message. Raises what an earlier one failed with.
local function submit(self, value)
  if self.refused then
    error(self.refused, 0)
  end
  check_open(self)
  if self.lost then
    local listener = self.listener
    error(errors.of(-302, { fate = 2, endpoint = listener.bound_url, text = "the client has left" }), 0)
  elseif not self.begun or self.settled then
    local text = self.settled and "the reply is over" or "the reply has not begun: expected begin() before"
    error(errors.of(-103, { fate = 1, text = text }), 0)
  end
  local channel, packed = self.listener.channel, core.pack(value)
  self.unsent = self.unsent + #packed
  local acknowledged = {}
  function acknowledged.settle(_, _, problem)
    self.unsent = self.unsent - #packed
    self.refused = self.refused or problem
    self.news:fire()
  end
  local _, unsent = channel:submit(acknowledged, OP.SEND, 0, self.listener.number, 0, self.key, packed)
  channel:scheduled(unsent)
end

local function is_ahead_little(self)
  return self.unsent <= SEND_AHEAD_BYTES or self.lost or self.refused
end

local function is_all_sent(self)
  return self.unsent <= 0 or self.lost or self.refused
end

local function wait(self, is_so, seconds)
  if not self.news:wait(self, is_so, seconds) then
    error(errors.of(-202, { text = ("nothing happened within %s s; the request goes on"):format(seconds) }), 0)
  end
  if self.refused then
    error(self.refused, 0)
  end
end

--- Answers with an error: `request:error("ERR", "unknown command")`. After `begin` it shows the client that the reply
-- is not complete, as far as the protocol can.
function Request:error(code, message)
  local problem = errors.remote(code, message)
  if not self.begun then
    return self:reply(problem)
  elseif not self.settled then
    submit(self, problem)
    is_over(self)
  end
end

--- Begins a reply of which more follows by `send`, until `finish`. Raises as `reply` does.
function Request:begin(value)
  if not self.settled then
    check_open(self)
    put_reply(self, value)
    self.begun = true
  end
end

--- Sends one more part, or a message of a lane. Waits while too much is under way, at most `seconds` (nil: as long as
-- it takes); then Timeout is raised, and what was sent still goes. Raises ConnectionLost if the client has left.
function Request:send(value, seconds)
  submit(self, value)
  wait(self, is_ahead_little, seconds)
end

--- Ends the reply; `last` is its last part, where the protocol has one. Waits until everything sent is on its way.
function Request:finish(last, seconds)
  submit(self, last)
  is_over(self)
  wait(self, is_all_sent, seconds)
end

local function has_news(self)
  return self.first <= self.last or self.ended or self.lost
end

-- What was taken makes room for more: given back in portions.
local function give_back(self, bytes)
  self.taken = self.taken + math.max(bytes, 1)
  local listener = self.listener
  if self.lost or listener.is_closed or self.taken < CREDIT_BYTES and self.first <= self.last then
    return
  end
  local channel, taken = listener.channel, self.taken
  self.taken = 0
  channel:scheduled(channel:credit(listener.number, taken, self.key))
end

--- The next piece of what the client sends; nil at its end. Raises ConnectionLost if the client has left before.
function Request:__call()
  self.news:wait(self, has_news)
  if self.first <= self.last then
    local piece = self.pieces[self.first]
    self.pieces[self.first] = nil
    self.first = self.first + 1
    give_back(self, piece[2])
    return piece[1]
  elseif self.ended then
    return nil
  end
  check_open(self)
  error(errors.of(-302, { fate = 2, endpoint = self.listener.bound_url, text = "the client has left" }), 0)
end

return Request
