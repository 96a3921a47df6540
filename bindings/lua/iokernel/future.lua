--- Replies under way.
local errors = require("iokernel.errors")
local tasks = require("iokernel.tasks")

local Future = {}
Future.__index = Future

--- A future of a channel, before its request is queued. With a place for all that it will have, so that its table
-- never grows.
function Future.new(channel)
  return (setmetatable({ channel = channel, settled = false, slot = 0, value = false, problem = false }, Future))
end

--- What the channel hands over.
function Future:settle(value, problem)
  self.value, self.problem, self.settled = value, problem, true
  local signal = self.signal
  if signal then
    signal:fire()
  end
end

--- True once `result` would not wait. Looks for what has completed, without waiting.
function Future:done()
  if not self.settled then
    self.channel:flush()
    self.channel:drain()
  end
  return self.settled
end

local function late(seconds)
  return errors.of(-202, { text = ("no reply within %s s; the request goes on"):format(seconds) })
end

-- Waits until it is settled. False if `seconds` were over before.
local function wait(self, seconds)
  local here = tasks.current()
  if not here then
    return self.channel:block(self, seconds)
  end
  self.signal = self.signal or tasks.signal()
  while not self.settled do
    if not self.signal:wait(here, seconds) then
      return self.settled
    end
  end
  return true
end

--- The reply, waiting for it. Raises what the request failed with; Timeout if it took more than `seconds` (nil: waits
-- for as long as it takes), and then the request goes on.
function Future:result(seconds)
  if not self.settled and not wait(self, seconds) then
    error(late(seconds), 0)
  end
  if self.problem then
    error(self.problem, 0)
  end
  return self.value
end

--- Ends the request. False if it had ended.
function Future:cancel()
  if self.settled or not self.channel:cancel(self.slot, self) then
    return false
  end
  self:settle(nil, errors.of(-203, { fate = 2, text = "cancelled by the program" }))
  return true
end

--- True after `cancel`.
function Future:cancelled()
  return errors.is(self.problem, errors.Cancelled)
end

function Future:__tostring()
  return ("iokernel.Future (%s)"):format(not self.settled and "pending" or self.problem and "failed" or "done")
end

return Future
