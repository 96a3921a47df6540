--- Leases: a connection of one's own.
local abi = require("iokernel.abi")
local errors = require("iokernel.errors")
local finalizer = require("iokernel.finalizer")
local Future = require("iokernel.future")
local Requests = require("iokernel.requests")

local OP = abi.OP

--- A connection of one's own. `call`, `begin`, `send`, `all` and `with` as an endpoint's. Given back clean: what it had
-- under way is cancelled.
local Lease = { is_lease = true }
Requests.mix(Lease)

-- One that comes when nobody wants it any more is given back.
local Unwanted = {}
Unwanted.__index = Unwanted

function Unwanted:settle(value)
  if value then
    self.channel:scheduled(self.channel:tell(OP.RELEASE, self.number, value))
  end
end

local function acquire(endpoint, number)
  local channel = endpoint.kernel:channel()
  local future = Future.new(channel)
  local ms, flags, key = endpoint.timeout_ms, endpoint.flags - endpoint.flags % abi.FLAG.ROUTE, endpoint.key
  local slot, unsent = channel:submit(future, OP.LEASE, flags, number, ms, key, "")
  channel:scheduled(unsent)
  local good, lease = pcall(future.result, future)
  if not good then
    channel:cancel(slot, future, setmetatable({ channel = channel, number = number }, Unwanted))
    error(lease, 0)
  end
  return lease, channel
end

local function hold(endpoint, number)
  local lease, channel = acquire(endpoint, number)
  local self = setmetatable({
    kernel = endpoint.kernel,
    endpoint = endpoint.of,
    number = number,
    flags = 0,
    timeout_ms = 0,
    key = lease,
    channel = channel,
  }, Lease)
  self.of = self
  self.kernel.mortal[self] = true
  local held = { is_held = true }
  self.held = held
  self.finalizer = finalizer(function()
    if held.is_held and not channel.ended then
      channel:later(function() channel:tell(OP.RELEASE, number, lease) end)
    end
  end)
  return self
end

local function finish(self, good, ...)
  self:release()
  if not good then
    error((...), 0)
  end
  return ...
end

--- See `Endpoint:lease`.
function Lease.take(endpoint, number, fn)
  local self = hold(endpoint, number)
  if not fn then
    return self
  end
  return finish(self, pcall(fn, self))
end

--- What requests ask for where the lease is not held: raises Closed.
function Lease:reopen()
  error(errors.of(-110, { fate = 1, endpoint = self.endpoint:url(), text = "the lease is not held any more" }), 0)
end

--- Gives the connection back. Twice is harmless.
function Lease:release()
  local of = self.of
  local number = of.number
  of.number, of.held.is_held = 0, false
  if number ~= 0 and not of.channel.ended and not of.endpoint.is_closed then
    of.channel:scheduled(of.channel:tell(OP.RELEASE, number, of.key))
  end
end

Lease.__close = Lease.release
Lease.__tostring = function(self)
  return ("iokernel.Lease of %s%s"):format(self.of.endpoint:url(), self.of.number == 0 and ", not held" or "")
end

return Lease
