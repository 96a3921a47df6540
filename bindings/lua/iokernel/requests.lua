--- What endpoints and leases have in common: requests.
--
-- An object has `kernel`, `of` (whose `number` the endpoint's is, 0 where it has to be opened first), and what goes
-- with each request: `flags`, `timeout_ms`, `key`.
local abi = require("iokernel.abi")
local errors = require("iokernel.errors")
local Future = require("iokernel.future")
local options = require("iokernel.options")
local tasks = require("iokernel.tasks")
local values = require("iokernel.values")

local REQUEST, IDEMPOTENT, ROUTE = abi.OP.REQUEST, abi.FLAG.IDEMPOTENT, abi.FLAG.ROUTE
local park = tasks.park
local unpack = table.unpack or unpack

local Requests = {}

-- The channel, and the endpoint's number.
local function place(self)
  local of = self.of
  local channel = self.kernel:channel()
  local number = of.number
  if number == 0 then
    number = of:reopen()
  end
  return channel, number
end

--- One request, waiting for its reply: `cache:call("GET", "key")`. In a task (`iokernel.spawn`) others run meanwhile;
-- elsewhere it blocks.
--
-- Arguments are nil, booleans, numbers, strings and tables, as the protocol takes them. Tables as arguments are a batch
-- of Redis, answered by one list: `cache:call({"SET", "a", 1}, {"GET", "a"})`; errors in it are RemoteError elements.
-- Raises an `iokernel.Error` with its `fate`.
function Requests:call(...)
  local channel, number = place(self)
  -- Before anything else: a trace that begins after a coroutine was asked for does not know these arguments.
  local slot, unsent = channel:request(false, REQUEST, self.flags, number, self.timeout_ms, self.key, ...)
  local here = tasks.current()
  if here then
    channel:give(slot, here)
    channel:scheduled(unsent)
    return park()
  end
  local future = Future.new(channel)
  channel:give(slot, future)
  local good, problem = pcall(channel.block, channel, future)
  if not good then
    channel:cancel(slot, future)
    error(problem, 0)
  end
  if future.problem then
    error(future.problem, 0)
  end
  return future.value
end

--- One request; returns at once, with a Future: `local reply = cache:begin("GET", "key")`, `reply:result()`. Also
-- `cache("GET", "key")`.
function Requests:begin(...)
  local channel, number = place(self)
  local future = Future.new(channel)
  local slot, unsent = channel:request(future, REQUEST, self.flags, number, self.timeout_ms, self.key, ...)
  future.slot = slot
  channel:scheduled(unsent)
  return future
end

--- One request whose reply nobody waits for. A failure is told on the standard error.
function Requests:send(...)
  local channel, number = place(self)
  channel:scheduled(channel:send(self.flags, number, self.key, ...))
end

-- Waits for many replies.
local All = {}
All.__index = All

function All:settle(value, problem, slot)
  local place_of = self.places
  local at = place_of[slot]
  place_of[slot] = false
  if problem then
    value = problem
  elseif value == nil then
    value = values.null
  end
  self.replies[at] = value
  local left = self.left - 1
  self.left = left
  if left == 0 then
    self.settled = true
    if self.here then
      tasks.redeem(self.here, self.ticket, true)
    end
  end
end

-- Queues the requests from `first` on.
local function put_all(self, all, requests)
  local channel, number = place(self)
  local flags, timeout_ms, key, places = self.flags, self.timeout_ms, self.key, all.places
  for at = 1, #requests do
    local request = requests[at]
    local count = #request
    local slot, unsent
    if count == 2 then
      slot, unsent = channel:request(all, REQUEST, flags, number, timeout_ms, key, request[1], request[2])
    elseif count == 3 then
      slot, unsent = channel:request(all, REQUEST, flags, number, timeout_ms, key, request[1], request[2], request[3])
    else
      slot, unsent = channel:request(all, REQUEST, flags, number, timeout_ms, key, unpack(request, 1, count))
    end
    places[slot] = at
    all.left = all.left + 1
    if unsent > 16384 then
      channel:scheduled(unsent)
    end
  end
  return channel
end

--- Many requests at a time: `cache:all{{"GET", "a"}, {"GET", "b"}}`. Waits for all of them. Returns their replies in
-- the same order: an error stands in its place, as does `iokernel.null` for nil.
function Requests:all(requests)
  local here = tasks.current()
  local all = setmetatable({ replies = {}, places = {}, left = 1, settled = false }, All)
  for at = 1, #requests do
    all.replies[at] = false
  end
  local good, channel = pcall(put_all, self, all, requests)
  all.left = all.left - 1
  if not good then
    all.replies = {}
    error(channel, 0)
  end
  if all.left == 0 then
    return all.replies
  elseif here then
    all.here, all.ticket = here, tasks.ticket(here)
    channel:scheduled(channel.core:unsent())
    park()
  else
    channel:block(all)
  end
  return all.replies
end

local function route_key(route)
  local kind = type(route)
  if kind == "number" and route % 1 == 0 or kind == "cdata" then
    return route == 0 and -1 or route
  end
  error(errors.bad_request(("route: %s: expected an integer"):format(tostring(route))), 0)
end

--- The same with options for each request: `cache:with{timeout = 0.1, idempotent = true}:call("GET", "key")`.
--
-- `timeout`: seconds; nil means the endpoint's own (`timeout=30s`), `math.huge` none. `idempotent`: it may be sent
-- again when its fate is in doubt. `route`, an integer: requests of one route go to one peer, for as long as the peers
-- stay the same. Cheap, and worth keeping.
function Requests:with(given)
  local flags, key = self.flags, self.key
  for name in pairs(given) do
    if name ~= "timeout" and name ~= "idempotent" and name ~= "route" then
      error(errors.bad_request(("%s: expected timeout, idempotent or route"):format(tostring(name))), 0)
    end
  end
  if given.idempotent and flags % (2 * IDEMPOTENT) < IDEMPOTENT then
    flags = flags + IDEMPOTENT
  end
  if given.route ~= nil then
    if self.of.is_lease then
      error(errors.bad_request("route: a lease is bound to its peer: expected none"), 0)
    end
    flags = flags % (2 * ROUTE) < ROUTE and flags + ROUTE or flags
    key = route_key(given.route)
  end
  local timeout_ms = given.timeout ~= nil and options.timeout_ms(given.timeout) or self.timeout_ms
  local made = { kernel = self.kernel, of = self.of, flags = flags, timeout_ms = timeout_ms, key = key }
  return setmetatable(made, getmetatable(self))
end

--- Gives a class these methods.
function Requests.mix(class)
  for name, method in pairs(Requests) do
    if name ~= "mix" then
      class[name] = method
    end
  end
  class.__call = Requests.begin
  class.__index = class
end

return Requests
