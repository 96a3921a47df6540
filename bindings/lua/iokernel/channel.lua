--- A channel: who waits for which completion, and when to submit.
--
-- A waiter is a coroutine, or a table with `settle(self, value, problem, slot, kind)`. Its slot is the lower half of
-- its tag, and is free again when its last completion has come.
local abi = require("iokernel.abi")
local core = require("iokernel.core_of_runtime")
local errors = require("iokernel.errors")
local tasks = require("iokernel.tasks")

local OP, FLAG, STATUS = abi.OP, abi.FLAG, abi.STATUS
local DONE = abi.KIND.DONE
local OWN_TAG, QUIET_TAG = abi.OWN_TAG, abi.QUIET_TAG
local ready = tasks.ready
local ceil, max, min = math.ceil, math.max, math.min
local type = type

--- The longest single sleep, so that a signal that another thread took is handled soon.
local WAIT_SLICE_MS = 1000
--- What one turn queues before the kernel is given it without waiting for the turn's end.
local FLUSH_BYTES = 16384
--- A program that submits faster than the kernel takes is held when it has left this much.
local UNSENT_BYTES_MAX = 4194304

local Channel = {}
Channel.__index = Channel

-- Stands for a waiter that hears no more.
local Deaf = {}
Deaf.__index = Deaf
function Deaf.settle() end
local deaf = setmetatable({}, Deaf)

--- Opens a channel of a kernel. `names`: the URLs of endpoints by their numbers; `config`: as `iok_channel_open` has
-- it.
function Channel.open(handle, names, config, record_max)
  local made, status = core.channel_open(handle, config or "", record_max or abi.RECORD_MAX)
  if not made then
    error(errors.of(status, { fate = 1, text = core.last_error() }), 0)
  end
  local self = setmetatable({
    core = made,
    names = names,
    waiters = {},
    free = {},
    free_count = 0,
    slots = 0,
    under_way = 0,
    quiet = 0,
    listeners = {},
    dropped = {},
    ended = nil,
    watcher = nil,
  }, Channel)
  tasks.channels[self] = true
  return self
end

-- Slots

-- The slot that is given next.
local function next_slot(self)
  local count = self.free_count
  return count > 0 and self.free[count] or self.slots + 1
end

-- The record of the next slot was queued: `waiter` has it from here on.
local function take(self, slot, waiter)
  local count = self.free_count
  if count > 0 then
    self.free_count = count - 1
  else
    self.slots = slot
  end
  self.waiters[slot] = waiter
  self.under_way = self.under_way + 1
  return slot
end

-- The last completion of a slot has come.
local function give_back(self, slot)
  self.waiters[slot] = false
  local count = self.free_count + 1
  self.free[count], self.free_count = slot, count
  self.under_way = self.under_way - 1
end

-- Submitting. Where a value cannot be packed, BadRequest is raised and nothing was queued.

local function check(self)
  if self.ended then
    error(self:ended_error(), 0)
  end
end

--- Queues a request of these arguments. Returns its slot, and how many bytes are queued. `next_slot` and `take` stand
-- here in full: where no trace inlines them, their calls would be a good part of what a request costs.
function Channel:request(waiter, op, flags, endpoint, timeout_ms, key, ...)
  if self.ended then
    check(self)
  end
  local count = self.free_count
  local slot = count > 0 and self.free[count] or self.slots + 1
  local unsent = self.core:put(op, flags, endpoint, timeout_ms, OWN_TAG, slot, key, ...)
  if count > 0 then
    self.free_count = count - 1
  else
    self.slots = slot
  end
  self.waiters[slot] = waiter
  self.under_way = self.under_way + 1
  return slot, unsent
end

--- A slot's waiter from here on, where `request` was given none.
function Channel:give(slot, waiter)
  self.waiters[slot] = waiter
end

--- Queues a submission whose payload is one value.
function Channel:submit_value(waiter, op, flags, endpoint, timeout_ms, key, value)
  check(self)
  local slot = next_slot(self)
  local unsent = self.core:put_value(op, flags, endpoint, timeout_ms, OWN_TAG, slot, key, value)
  return take(self, slot, waiter), unsent
end

--- Queues a submission whose payload are these bytes.
function Channel:submit(waiter, op, flags, endpoint, timeout_ms, key, payload)
  check(self)
  local slot = next_slot(self)
  local unsent = self.core:put_bytes(op, flags, endpoint, timeout_ms, OWN_TAG, slot, key, payload)
  return take(self, slot, waiter), unsent
end

-- A tag for what nobody waits for.
local function quiet(self)
  check(self)
  self.quiet = (self.quiet + 1) % 0x100000000
  return self.quiet
end

--- Queues a request whose reply nobody waits for.
function Channel:send(flags, endpoint, key, ...)
  local low = quiet(self)
  return self.core:put(OP.REQUEST, flags + FLAG.QUIET, endpoint, 0, QUIET_TAG, low, key, ...)
end

--- Queues a value that nobody waits for, under a tag of the kernel's.
function Channel:tell_value(op, endpoint, high, low, key, value)
  check(self)
  return self.core:put_value(op, FLAG.QUIET, endpoint, 0, high, low, key, value)
end

--- Queues what nobody waits for and has no payload.
function Channel:tell(op, endpoint, key)
  local low = quiet(self)
  return self.core:put_bytes(op, FLAG.QUIET, endpoint, 0, QUIET_TAG, low, key, "")
end

--- Gives back `bytes` of the window of a listener's request.
function Channel:credit(endpoint, bytes, key)
  check(self)
  return self.core:put_bytes(OP.CREDIT, 0, endpoint, 0, 0, bytes, key, "")
end

--- Asks to end what is under way in a slot; its waiter hears no more of it. False if somebody else has the slot.
-- `instead` takes what comes all the same.
function Channel:cancel(slot, waiter, instead)
  if self.waiters[slot] ~= waiter then
    return false
  end
  self.waiters[slot] = instead or deaf
  if not self.ended then
    self:scheduled(self.core:put_bytes(OP.CANCEL, 0, 0, 0, OWN_TAG, slot, 0, ""))
  end
  return true
end

--- Cancels what this coroutine waits for. False if that is nothing of this channel.
function Channel:cancel_waiter(coroutine)
  for slot = 1, self.slots do
    if self.waiters[slot] == coroutine then
      return self:cancel(slot, coroutine)
    end
  end
  return false
end

--- Does something at the next occasion. For finalizers, which run anywhere.
function Channel:later(call)
  self.dropped[#self.dropped + 1] = call
end

-- What the kernel would never take, because it is too large.
local function refuse(self, high, slot, endpoint)
  if high ~= OWN_TAG then
    return
  end
  local waiter = self.waiters[slot]
  give_back(self, slot)
  local problem = errors.of(STATUS.TOO_LARGE, { fate = 1, endpoint = self.names[endpoint], text = core.last_error() })
  if type(waiter) == "thread" then
    ready(waiter, false, problem)
  elseif waiter then
    waiter:settle(nil, problem, slot, DONE)
  end
end

local function run_dropped(self)
  while self.dropped[1] do
    table.remove(self.dropped, 1)()
  end
end

-- Something was not taken: leaves it out and goes on, or ends the channel.
local function not_taken(self, status, high, low, endpoint)
  while status ~= 0 and status ~= STATUS.FULL do
    if status ~= STATUS.TOO_LARGE then
      return self:finish(status)
    end
    refuse(self, high, low, endpoint)
    status, high, low, endpoint = self.core:flush()
  end
end

--- Submits what is queued, as much as fits, and wakes the kernel. Without a loop of its own, for the sake of traces.
function Channel:flush()
  if self.dropped[1] then
    run_dropped(self)
  end
  if self.ended then
    return
  end
  local status, high, low, endpoint = self.core:flush()
  if status ~= 0 then
    not_taken(self, status, high, low, endpoint)
  end
end

--- After queueing. In a task it goes at the end of the turn, or when there is much of it; elsewhere at once.
function Channel:scheduled(unsent)
  if unsent > FLUSH_BYTES or not (self.watcher or tasks.current()) then
    self:flush()
    if unsent > UNSENT_BYTES_MAX then
      self:hold_back()
    end
  end
  if self.watcher then
    self.watcher.wake()
  end
end

--- The program is far ahead of the kernel: waits until that has taken some.
function Channel:hold_back()
  self:flush()
  while self.core:unsent() > UNSENT_BYTES_MAX and not self.ended do
    self:wait(-1)
    self:drain()
    self:flush()
  end
end

-- Completing

-- Any completion but the plain reply of an own tag.
local function other(self, kind, slot, status, value)
  local made = self.core
  local high, endpoint, peer, fate = made:detail()
  local problem
  if status ~= 0 then
    problem = errors.of(status, { fate = fate, endpoint = self.names[endpoint], peer = peer, said = value })
  end
  if kind > 0 then
    local waiter = self.waiters[slot]
    if kind == DONE then
      give_back(self, slot)
    end
    if type(waiter) == "thread" then
      ready(waiter, problem == nil, problem or value)
    elseif waiter then
      waiter:settle(value, problem, slot, kind)
    end
  elseif high == QUIET_TAG then
    io.stderr:write(("iokernel: a one-way request failed: %s\n"):format(tostring(problem)))
  else
    local listener = self.listeners[endpoint]
    if listener then
      listener:completion(-kind, high, slot, value, problem, peer)
    end
  end
end

--- Hands out what has completed. Returns how many completions there were. What waits runs later, not inside of this.
function Channel:drain()
  local made, waiters, count = self.core, self.waiters, 0
  while true do
    local kind, slot, status, value = made:next()
    if not kind then
      break
    end
    count = count + 1
    if kind == DONE and status == 0 then
      local waiter = waiters[slot]
      give_back(self, slot)
      if type(waiter) == "thread" then
        ready(waiter, true, value)
      elseif waiter then
        waiter:settle(value, nil, slot, DONE)
      end
    else
      other(self, kind, slot, status, value)
    end
  end
  if count == 0 and not self.ended then
    local status = made:status()
    if status ~= 0 then
      self:finish(status)
    end
  end
  return count
end

-- Waiting

--- Sleeps until something has completed or there is room. `ms` below 0: no limit.
function Channel:wait(ms)
  local status = self.core:wait(ms < 0 and WAIT_SLICE_MS or min(ms, WAIT_SLICE_MS))
  if status ~= 0 and status ~= STATUS.TIMEOUT and status ~= STATUS.INTERRUPTED then
    self:drain()
    self:finish(status)
  end
end

--- Blocks until a waiter is `settled`, or `seconds` (nil: for ever) are over: false.
function Channel:block(waiter, seconds)
  local deadline = seconds and seconds < math.huge and core.now() + seconds
  self:flush()
  while not waiter.settled do
    local left = deadline and ceil(max(deadline - core.now(), 0) * 1000) or -1
    self:wait(left)
    if self:drain() == 0 and (left == 0 or self.ended) then
      return waiter.settled
    end
    self:flush()
  end
  return true
end

--- True while something is under way, or waits to be submitted.
function Channel:is_busy()
  return not self.ended and (self.under_way > 0 or next(self.listeners) ~= nil or self.core:unsent() > 0)
end

--- Readable while completions wait, until `drain` has taken them.
function Channel:fd()
  return self.core:fd()
end

-- Ending

function Channel:ended_error()
  local text = self.ended ~= STATUS.CLOSED and core.last_error() or nil
  return errors.of(self.ended, { fate = 1, text = text ~= "" and text or nil })
end

--- It is of no use any more: whoever waits is told.
function Channel:finish(status)
  if self.ended then
    return
  end
  if self.watcher and status ~= STATUS.FORKED then
    self.watcher.stop()
  end
  self:abandon(status)
end

--- As `finish`, and does not touch the loop that watches it: in a forked child that is the parent's.
function Channel:abandon(status)
  self.ended = status
  local problem = errors.of(status, { fate = 2 })
  for slot = 1, self.slots do
    local waiter = self.waiters[slot]
    if waiter then
      give_back(self, slot)
      if type(waiter) == "thread" then
        ready(waiter, false, problem)
      else
        waiter:settle(nil, problem, slot, DONE)
      end
    end
  end
  for endpoint, listener in pairs(self.listeners) do
    self.listeners[endpoint] = nil
    listener:left()
  end
  tasks.channels[self] = nil
end

--- Ends everything under way.
function Channel:close()
  self:finish(STATUS.CLOSED)
  self.core:close()
end

return Channel
