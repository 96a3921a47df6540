--- Tasks: coroutines that yield while they wait, and the scheduler that resumes them.
--
-- Inside of a task every call waits without holding up the others; outside it blocks. `run` is a loop of our own; where
-- luv's runs (`iokernel.luv`), that one resumes them, and there any coroutine but the main one may wait.
local core = require("iokernel.core_of_runtime")
local errors = require("iokernel.errors")

local create, resume, running, yield = coroutine.create, coroutine.resume, coroutine.running, coroutine.yield
local unpack = table.unpack or unpack
local huge, max, ceil = math.huge, math.max, math.ceil

local tasks = {}

-- What can be resumed: coroutines, whether all went well, and what they get. From `head` to `tail`.
local ready, ready_good, ready_value = {}, {}, {}
local head, tail = 1, 0

-- The coroutine that the scheduler resumed.
local current = nil
-- Who hears of what runs: markers and the stack door.
local follow = nil
-- Tasks that have not ended, and how many.
local living, alive = {}, 0
-- Failures that nobody has asked about.
local unseen = {}
-- What coroutines wait for: another number each time, so that only one of several reasons wakes them.
local tickets, last_ticket = setmetatable({}, { __mode = "k" }), 0

--- The channels of this state, which the loop flushes and drains.
tasks.channels = setmetatable({}, { __mode = "k" })
--- luv's bridge, or nil: `wake()` sees to it that `turn` runs soon; `after(seconds, fn)` returns a function that stops.
tasks.bridge = nil

--- The coroutine that may yield here, or nil where a call has to block.
function tasks.current()
  if current == nil and tasks.bridge == nil then
    return nil
  end
  local here, is_main = running()
  if here == nil or is_main then
    return nil
  end
  if here == current or tasks.bridge then
    return here
  end
  return nil
end

--- Resumes a coroutine at the next turn: its `yield` gives `good` and `value`.
function tasks.ready(coroutine, good, value)
  tail = tail + 1
  ready[tail], ready_good[tail], ready_value[tail] = coroutine, good, value
  if tasks.bridge and current == nil then
    tasks.bridge.wake()
  end
end

--- Waits as the coroutine that runs here, until `ready`. Gives or raises what that was told.
function tasks.park()
  local good, value = yield()
  if good then
    return value
  end
  error(value, 0)
end

-- Tickets: for waits that several things may end.

--- A ticket for the coroutine that runs here. `redeem` takes it once.
function tasks.ticket(coroutine)
  last_ticket = last_ticket + 1
  tickets[coroutine] = last_ticket
  return last_ticket
end

--- Resumes a coroutine if it still waits with this ticket.
function tasks.redeem(coroutine, ticket, good, value)
  if tickets[coroutine] == ticket then
    tickets[coroutine] = nil
    tasks.ready(coroutine, good, value)
  end
end

-- Timers: a heap, the soonest first

local timers = {}

local function less(one, other)
  return timers[one].at < timers[other].at
end

local function swap(one, other)
  timers[one], timers[other] = timers[other], timers[one]
end

local function push_timer(timer)
  local place = #timers + 1
  timers[place] = timer
  while place > 1 do
    local above = (place - place % 2) / 2
    if not less(place, above) then
      return
    end
    swap(place, above)
    place = above
  end
end

local function pop_timer()
  local first, last = timers[1], #timers
  swap(1, last)
  timers[last] = nil
  local place = 1
  while true do
    local least = place
    for below = 2 * place, 2 * place + 1 do
      if below < last and less(below, least) then
        least = below
      end
    end
    if least == place then
      return first
    end
    swap(place, least)
    place = least
  end
end

--- Calls a function after so many seconds, inside of the loop. Returns a function that stops it.
function tasks.after(seconds, call)
  if tasks.bridge then
    return tasks.bridge.after(seconds, call)
  end
  local timer = { at = core.now() + seconds, call = call }
  push_timer(timer)
  return function()
    timer.call = nil
  end
end

local function drop_stopped()
  while timers[1] and not timers[1].call do
    pop_timer()
  end
end

local function fire_timers()
  drop_stopped()
  if not timers[1] then
    return
  end
  local now = core.now()
  while timers[1] and timers[1].at <= now do
    local timer = pop_timer()
    if timer.call then
      timer.call()
    end
  end
  drop_stopped()
end

--- Waits so many seconds; outside of tasks too.
function tasks.sleep(seconds)
  local here = tasks.current()
  if not here then
    local over = core.now() + seconds
    while core.now() < over do
      core.poll_fds({}, ceil(max(over - core.now(), 0) * 1000))
    end
    return
  end
  local ticket = tasks.ticket(here)
  local stop = tasks.after(seconds, function()
    tasks.redeem(here, ticket, true)
  end)
  local good, problem = yield()
  stop()
  if not good then
    error(problem, 0)
  end
end

-- Signals: something is other than it was

local Signal = {}
Signal.__index = Signal

--- What coroutines wait at until somebody fires it.
function tasks.signal()
  return setmetatable({}, Signal)
end

local function wake_all(signal)
  for at = #signal, 1, -1 do
    local waiting = signal[at]
    signal[at] = nil
    tasks.redeem(waiting[1], waiting[2], true, true)
  end
end

--- Wakes all that wait.
function Signal:fire()
  if self[1] then
    wake_all(self)
  end
end

--- Waits, as the coroutine `here`, until it is fired: true; or until `seconds` (nil: for ever) are over: false.
function Signal:wait(here, seconds)
  local ticket = tasks.ticket(here)
  local waiting, stop = { here, ticket }, nil
  self[#self + 1] = waiting
  if seconds and seconds < huge then
    stop = tasks.after(seconds, function()
      tasks.redeem(here, ticket, true, false)
    end)
  end
  local good, value = yield()
  if stop then
    stop()
  end
  for at = 1, #self do
    if self[at] == waiting then
      table.remove(self, at)
      break
    end
  end
  if not good then
    error(value, 0)
  end
  return value
end

-- Tasks

local Task = {}
Task.__index = Task
tasks.Task = Task

local function settle(task, good, ...)
  task.ended, task.good = true, good
  task.results, task.count = { ... }, select("#", ...)
  living[task], alive = nil, alive - 1
  task.coroutine = nil
  if not good then
    unseen[task] = true
  end
  task.signal:fire()
end

--- Begins a task: `spawn(fn, ...)`. It runs from the next turn of the loop on. Returns it.
function tasks.spawn(fn, ...)
  local arguments, count = { ... }, select("#", ...)
  local task = setmetatable({ ended = false, signal = tasks.signal() }, Task)
  -- Where an error that is a text was raised: others say what they are.
  local function seen(problem)
    task.traceback = type(problem) == "string" and debug.traceback(problem, 2) or nil
    return problem
  end
  task.coroutine = create(function()
    settle(task, xpcall(fn, seen, unpack(arguments, 1, count)))
  end)
  living[task], alive = true, alive + 1
  tasks.ready(task.coroutine)
  return task
end

local function switch(coroutine)
  current = coroutine
  if follow then
    follow(coroutine)
  end
end

--- `call` hears of each coroutine that the scheduler lets run, and of nil when none runs.
function tasks.follow(call)
  local before = follow
  follow = before and function(coroutine)
    before(coroutine)
    call(coroutine)
  end or call
end

--- The coroutine that the scheduler has resumed, also inside of others that this one has resumed.
function tasks.scheduled()
  return current
end

--- True once it has returned, failed or was cancelled.
function Task:done()
  return self.ended
end

--- What it returned, waiting for that; raises what it failed with. Outside of tasks this runs the loop.
function Task:result()
  local here = tasks.current()
  assert(self.ended or here or not tasks.bridge, "luv's loop runs the tasks: call uv.run()")
  while not self.ended do
    if here then
      self.signal:wait(here)
    else
      tasks.turn(nil, self)
    end
  end
  unseen[self] = nil
  if self.good then
    return unpack(self.results, 1, self.count)
  end
  error(self.results[1], 0)
end

--- Ends it: what it waits for is cancelled, and raises Cancelled in it. False if it has ended, or runs at the moment.
function Task:cancel()
  local coroutine = self.coroutine
  if not coroutine or coroutine == current then
    return false
  end
  local why = errors.of(-203, { fate = 2 })
  for channel in pairs(tasks.channels) do
    if channel:cancel_waiter(coroutine) then
      tasks.ready(coroutine, false, why)
      return true
    end
  end
  if tickets[coroutine] then
    tasks.redeem(coroutine, tickets[coroutine], false, why)
    return true
  end
  return false
end

-- The loop

--- True while coroutines are ready to run.
function tasks.has_ready()
  return head <= tail
end

--- Runs what is ready at this moment.
function tasks.run_ready()
  local last = tail
  while head <= last do
    local at = head
    local coroutine, good, value = ready[at], ready_good[at], ready_value[at]
    ready[at], ready_good[at], ready_value[at] = nil, nil, nil
    head = at + 1
    if head > tail then
      head, tail, last = 1, 0, 0
    end
    switch(coroutine)
    local went, problem = resume(coroutine, good, value)
    switch(nil)
    if not went then
      -- A coroutine of luv's user, whom nobody else would tell: tasks settle themselves.
      error(debug.traceback(coroutine, tostring(problem)), 0)
    end
  end
end

-- Milliseconds until the next timer; -1: there is none.
local function next_timer_ms()
  drop_stopped()
  if not timers[1] then
    return -1
  end
  return max(0, ceil((timers[1].at - core.now()) * 1000))
end

local function flush_all()
  local busy, last = 0, nil
  for channel in pairs(tasks.channels) do
    channel:flush()
    if channel:is_busy() then
      busy, last = busy + 1, channel
    end
  end
  return busy, last
end

local function drain_all()
  local count = 0
  for channel in pairs(tasks.channels) do
    count = count + channel:drain()
  end
  return count
end

local function wait_for_any(ms)
  local fds = {}
  for channel in pairs(tasks.channels) do
    if channel:is_busy() then
      fds[#fds + 1] = channel:fd()
    end
  end
  core.poll_fds(fds, ms)
end

-- Sleeps until something has completed, a timer is due, or `ms` (below 0: no limit) are over.
local function wait(ms)
  local due = next_timer_ms()
  if due >= 0 and (ms < 0 or due < ms) then
    ms = due
  end
  local busy, last = flush_all()
  if busy == 1 then
    last:wait(ms)
  elseif busy > 1 or ms >= 0 then
    wait_for_any(ms)
  else
    error("every task waits for another one, and nothing is under way", 0)
  end
end

--- One turn of the loop: runs what is ready, submits what that queued, takes what has completed. Sleeps at most
-- `timeout` seconds (nil: as long as it takes) if there is nothing to do, and not at all where that has ended which is
-- waited for: `task`, or all of them. Returns how many completions there were.
function tasks.turn(timeout, task)
  assert(not current, "the loop runs already")
  tasks.run_ready()
  if task and task.ended or alive == 0 and not timeout then
    flush_all()
  elseif head > tail then
    wait(timeout and ceil(timeout * 1000) or -1)
  else
    flush_all()
  end
  local count = drain_all()
  fire_timers()
  return count
end

--- Runs a function as a task, and all tasks, until none is left. Returns what the function returned; raises what it
-- failed with, or else what a task failed with whose `result` nobody asked for.
function tasks.run(fn, ...)
  assert(not tasks.bridge, "luv's loop runs the tasks: call uv.run()")
  local main = fn and tasks.spawn(fn, ...)
  while alive > 0 do
    tasks.turn()
  end
  if main and not main.good then
    return main:result()
  end
  local failed = next(unseen)
  if failed then
    return failed:result()
  end
  if main then
    return main:result()
  end
end

--- In a forked child: its tasks go on, the parent's channels do not.
function tasks.forget_channels()
  for channel in pairs(tasks.channels) do
    tasks.channels[channel] = nil
  end
end

return tasks
