--- luv's loop runs the tasks: `require("iokernel.luv")`, once, before `uv.run()`.
--
-- From then on every coroutine but the main one may wait for a reply, those of `coroutine.wrap` too; callbacks of luv
-- are in none, and block. What a turn of the loop queues is submitted at its end; completions are taken when the
-- channel's descriptor is readable. The loop ends when nothing of ours or anybody else's is under way.
local uv = require("luv")
local tasks = require("iokernel.tasks")

local bridge = {}

-- While it is started, luv does not sleep.
local idle = uv.new_idle()
local is_awake = false
local watched = setmetatable({}, { __mode = "k" })

-- Closes a handle for good. luv crashes at the end of a state with handles that its loop has not finished closing.
local function close(handle)
  handle:close()
  if not uv.loop_mode() then
    uv.run("nowait")
  end
end

-- Runs what is ready, and submits what that queued.
local function turn()
  is_awake = false
  idle:stop()
  tasks.run_ready()
  for channel, watcher in pairs(watched) do
    channel:flush()
    watcher.refer()
  end
  if tasks.has_ready() then
    bridge.wake()
  end
end

--- `turn` runs before luv sleeps the next time.
function bridge.wake()
  if not is_awake then
    is_awake = true
    idle:start(turn)
  end
end

--- Calls a function after so many seconds. Returns one that stops it.
function bridge.after(seconds, call)
  local timer = uv.new_timer()
  local function stop()
    if timer then
      local mine = timer
      timer = nil
      mine:stop()
      close(mine)
    end
  end
  timer:start(math.ceil(seconds * 1000), 0, function()
    stop()
    call()
  end)
  return stop
end

--- Watches a channel. Its handle keeps the loop alive while something is under way.
function bridge.watch(channel)
  local poll = uv.new_poll(channel:fd())
  local watcher = { wake = bridge.wake }

  function watcher.refer()
    if not poll then
      return
    elseif channel:is_busy() then
      poll:ref()
    else
      poll:unref()
    end
  end

  function watcher.stop()
    if poll then
      local mine = poll
      poll, watched[channel] = nil, nil
      mine:stop()
      close(mine)
    end
  end

  poll:start("r", function()
    channel:drain()
    turn()
  end)
  poll:unref()
  channel.watcher = watcher
  watched[channel] = watcher
  bridge.wake()
end

--- Ends it: handles are closed, and calls block again, or wait in `iokernel.run`. Outside of luv's loop this runs it
-- for a moment.
function bridge.close()
  for _, watcher in pairs(watched) do
    watcher.stop()
  end
  for channel in pairs(tasks.channels) do
    channel.watcher = nil
  end
  tasks.bridge = nil
  package.loaded["iokernel.luv"] = nil
  if not idle:is_closing() then
    close(idle)
  end
end

tasks.bridge = bridge
for channel in pairs(tasks.channels) do
  bridge.watch(channel)
end

return bridge
