--- Endpoints: services that requests go to.
local abi = require("iokernel.abi")
local core = require("iokernel.core_of_runtime")
local errors = require("iokernel.errors")
local options = require("iokernel.options")
local Requests = require("iokernel.requests")

local OP = abi.OP

--- A service, alive in the background from `iokernel.open` until `close`. `call`, `begin`, `send`, `all` and `with` are
-- those of `iokernel.requests`. In a forked child it opens itself again at its first use.
local Endpoint = {}
Requests.mix(Endpoint)

--- See `iokernel.open`.
function Endpoint.open(kernel, url)
  local number = kernel:open_number(url)
  local fields = { kernel = kernel, full_url = url, number = number, flags = 0, timeout_ms = 0, key = 0 }
  local self = setmetatable(fields, Endpoint)
  self.of = self
  kernel.mortal[self] = true
  return self
end

--- Its number where it has none: it is closed, or not open in this process yet. For what is inside of the binding.
function Endpoint:reopen()
  if self.is_closed then
    error(errors.of(-103, { fate = 1, endpoint = self:url(), text = "the endpoint is closed" }), 0)
  end
  self.number = self.kernel:open_number(self.full_url)
  if self.peers then
    self.kernel:ask(OP.PEERS, 0, self.number, 0, 0, self.peers)
  end
  return self.number
end

-- The endpoint's number, after a fork too.
local function number_of(self)
  local of = self.of
  of.kernel:channel()
  return of.number ~= 0 and of.number or of:reopen()
end
Endpoint.number_of = number_of

--- The URL, without password and options.
function Endpoint:url()
  return options.shown(self.of.full_url)
end

--- A request that keeps giving: `for message in cache:subscribe("SUBSCRIBE", "news") do`. See `iokernel.subscription`.
-- Waits until the peer has accepted.
function Endpoint:subscribe(...)
  return require("iokernel.subscription").open(self, number_of(self), ...)
end

--- How it is, as `state` has it: at once, and again after every change of its state, its peers or their roles; used as
-- a subscription. When more than `buffer` (nil: 1024) states wait in it unread, the oldest are dropped.
function Endpoint:watch(buffer)
  return require("iokernel.subscription").watch(self.kernel, number_of(self), buffer)
end

--- Tells the peers of an endpoint opened as `scheme+app://label`: the whole set, each time. Each is `"host:port"`, or a
-- table with `address` and, where wanted, `weight`, `priority` and `role`. Raises BadRequest, and changes nothing, if
-- one of them is wrong or the endpoint finds its peers by itself.
function Endpoint:set_peers(peers)
  local packed = core.pack(peers)
  self.kernel:ask(OP.PEERS, 0, number_of(self), 0, 0, packed)
  self.of.peers = packed
end

--- A connection of one's own, for transactions and what else changes a connection: `cache:lease(function(conn) ...
-- end)` gives it to the function, takes it back, and returns what that returned. Without a function it returns the
-- Lease, to be given back by `release`, or in Lua 5.4 by `local conn <close> = cache:lease()`. `with{timeout =}` says
-- how long to wait for it.
function Endpoint:lease(fn)
  return require("iokernel.lease").take(self, number_of(self), fn)
end

--- Waits until the endpoint is up. Raises Unavailable after `seconds` (nil: the endpoint's own timeout).
function Endpoint:wait_ready(seconds)
  self.kernel:until_up(number_of(self), seconds)
end

--- How it is: `state` (`"up"`, `"degraded"`, `"connecting"`, `"down"`), `description`, `conns`, `queued`, `inflight`,
-- `last_error` and more; `peers` has a table of each: `name`, `state`, `role`, `latency_us`, ...
function Endpoint:state()
  return (self.kernel:ask(OP.STATE, 0, number_of(self), 0, 0, ""))
end

--- Closes it; what is under way fails with Closed. Twice is harmless.
function Endpoint:close()
  local of, kernel = self.of, self.kernel
  if of.is_closed or kernel.is_closed then
    of.is_closed = true
    return
  end
  kernel:channel()
  local number = of.number
  of.is_closed, of.number = true, 0
  if number == 0 then
    return
  end
  local good, problem = pcall(kernel.ask, kernel, OP.CLOSE, 0, number, 0, 0, "")
  if not good and not errors.is(problem, errors.Closed) then
    error(problem, 0)
  end
end

--- True after `close`.
function Endpoint:closed()
  return self.of.is_closed == true
end

Endpoint.__close = Endpoint.close
Endpoint.__tostring = function(self)
  return ("iokernel.Endpoint %s%s"):format(self:url(), self:closed() and " closed" or "")
end

return Endpoint
