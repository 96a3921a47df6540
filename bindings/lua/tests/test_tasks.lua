--- Tasks: in our own loop, and in luv's.
local support = require("support")
local iokernel = require("iokernel")
local core = require("iokernel.core_of_runtime")
local tasks = require("iokernel.tasks")
local check = support.check

local function raised(fn, ...)
  local good, problem = pcall(fn, ...)
  check(not good, "nothing was raised")
  return problem
end

-- A test in each loop, with an endpoint in a kernel of its own.
local function in_loops(fn)
  return function()
    local kernel = iokernel.Kernel()
    local redis = kernel:open(support.server.url)
    local good, problem = pcall(support.in_each_loop, fn, redis, kernel)
    kernel:close()
    if not good then
      error(problem, 0)
    end
  end
end

local tests = {}

tests[#tests + 1] = { "calls of many tasks are under way at the same time", in_loops(function(redis)
  local started = core.now()
  local asking = {}
  for number = 1, 20 do
    asking[number] = iokernel.spawn(function()
      redis:call("BLPOP", "t:nothing" .. number, "0.2")
      return number
    end)
  end
  for number, task in ipairs(asking) do
    check(task:result() == number, "what it returns")
  end
  check(core.now() - started < 2, "they ran one after the other")
end) }

tests[#tests + 1] = { "replies come back each to its own task", in_loops(function(redis)
  local seen = {}
  for number = 1, 500 do
    iokernel.spawn(function()
      for round = 1, 5 do
        local mine = number .. ":" .. round
        check(redis:call("ECHO", mine) == mine, "another's")
      end
      seen[#seen + 1] = number
    end)
  end
  while #seen < 500 do
    iokernel.sleep(0.001)
  end
end) }

tests[#tests + 1] = { "errors are raised inside of the task, and by its result", in_loops(function(redis)
  local task = iokernel.spawn(redis.call, redis, "NOSUCH")
  check(iokernel.is(raised(task.result, task), iokernel.RemoteError), "by its result")
  local good, problem = pcall(redis.call, redis, "LPUSH")
  check(not good and iokernel.is(problem, iokernel.RemoteError), "%s", problem)
  check(raised(function() iokernel.spawn(error, "text", 0):result() end) == "text", "of any kind")
end) }

tests[#tests + 1] = { "futures, all and leases in tasks", in_loops(function(redis)
  local futures = {}
  for number = 1, 50 do
    futures[number] = redis("ECHO", number)
  end
  for number, future in ipairs(futures) do
    check(future:result(5) == tostring(number), "a future")
  end
  local replies = redis:all({ { "ECHO", 1 }, { "ECHO", 2 }, { "NOSUCH" } })
  check(replies[1] == "1" and replies[2] == "2" and iokernel.is(replies[3], iokernel.RemoteError), "all")
  check(redis:lease(function(conn) return conn:call("ECHO", "x") end) == "x", "a lease")
  local slow = redis("BLPOP", "t:nothing", "0.3")
  check(iokernel.is(raised(slow.result, slow, 0.02), iokernel.Timeout), "late")
  check(slow:result() == nil, "it went on")
  local several, got = redis("BLPOP", "t:nothing", "0.1"), 0
  for _ = 1, 3 do
    iokernel.spawn(function()
      several:result()
      got = got + 1
    end)
  end
  several:result()
  iokernel.sleep(0.01)
  check(got == 3, "several wait for one")
end) }

tests[#tests + 1] = { "cancelling a task, whatever it waits for", in_loops(function(redis)
  redis:wait_ready(5)
  local pending, messages = redis("BLPOP", "t:nothing", "0.5"), redis:subscribe("SUBSCRIBE", "t:c")
  local waits = {
    function() redis:call("BLPOP", "t:nothing", 0) end,
    function() iokernel.sleep(10) end,
    function() pending:result() end,
    function() redis:all({ { "BLPOP", "t:nothing", "0.5" } }) end,
    function() messages:get(10) end,
  }
  for at, wait in ipairs(waits) do
    local task = iokernel.spawn(wait)
    iokernel.sleep(0.03)
    check(task:cancel(), "wait %d", at)
    check(iokernel.is(raised(task.result, task), iokernel.Cancelled), "wait %d", at)
    check(task:done() and not task:cancel(), "twice")
  end
  messages:close()
  check(redis:call("ECHO", "next") == "next", "the next one")
end) }

tests[#tests + 1] = { "a cancelled task may clean up, with calls", in_loops(function(redis)
  local cleaned
  local task = iokernel.spawn(function()
    local good, problem = pcall(redis.call, redis, "BLPOP", "t:nothing", 0)
    cleaned = redis:call("ECHO", "clean")
    check(not good and iokernel.is(problem, iokernel.Cancelled), "%s", problem)
    return "done"
  end)
  iokernel.sleep(0.03)
  check(task:cancel() and task:result() == "done" and cleaned == "clean", "it did not clean up")
end) }

tests[#tests + 1] = { "sleep: in order, and not before its time", in_loops(function()
  local order, started = {}, core.now()
  local sleeping = {}
  for at, seconds in ipairs({ 0.06, 0.02, 0.04, 0, 0.03 }) do
    sleeping[at] = iokernel.spawn(function()
      iokernel.sleep(seconds)
      check(core.now() - started >= seconds - 0.002, "%s s were too short", seconds)
      order[#order + 1] = seconds
    end)
  end
  for _, task in ipairs(sleeping) do
    task:result()
  end
  for at = 2, #order do
    check(order[at - 1] <= order[at], "not in order")
  end
end) }

tests[#tests + 1] = { "a hundred timers fire in their order, stopped ones do not", function()
  math.randomseed(11)
  iokernel.run(function()
    local fired, stopped = {}, 0
    for _ = 1, 100 do
      local seconds = math.random(0, 50) / 1000
      local stop = tasks.after(seconds, function() fired[#fired + 1] = seconds end)
      if math.random() < 0.3 then
        stop()
        stopped = stopped + 1
      end
    end
    iokernel.sleep(0.1)
    check(#fired == 100 - stopped, "%d fired", #fired)
    for at = 2, #fired do
      check(fired[at - 1] <= fired[at] + 0.001, "not in order")
    end
  end)
end }

tests[#tests + 1] = { "run: what it returns and raises; tasks without a loop, loops in loops", function()
  local first, second = iokernel.run(function(...) return ... end, 1, nil)
  check(first == 1 and second == nil and iokernel.run() == nil, "what it returns")
  check(raised(iokernel.run, error, "mine", 0) == "mine", "what it raises")
  local unseen = raised(iokernel.run, function() iokernel.spawn(error, "other's", 0) end)
  check(unseen == "other's", "what nobody asked about")
  local task = iokernel.spawn(function() return 7 end)
  check(task:result() == 7, "outside, result runs the loop")
  check(tostring(raised(iokernel.run, function() iokernel.run(function() end) end)):find("runs already"), "a loop in a loop")
  local waiting
  waiting = iokernel.spawn(function() return waiting:result() end)
  check(tostring(raised(waiting.result, waiting)):find("nothing is under way"), "one that waits for itself")
  waiting:cancel()
  pcall(waiting.result, waiting)
end }

tests[#tests + 1] = { "a coroutine inside of a task blocks, and gets its reply", in_loops(function(redis)
  if tasks.bridge then
    return
  end
  local generate = coroutine.wrap(function()
    coroutine.yield(redis:call("ECHO", 1))
    coroutine.yield(redis:call("ECHO", 2))
  end)
  check(generate() == "1" and generate() == "2", "another's")
end) }

tests[#tests + 1] = { "tasks that nobody holds run to their end, collected or not", in_loops(function(redis)
  local ended = 0
  for _ = 1, 50 do
    iokernel.spawn(function()
      redis:call("ECHO", "x")
      collectgarbage()
      ended = ended + 1
    end)
  end
  collectgarbage()
  while ended < 50 do
    iokernel.sleep(0.001)
  end
end) }

tests[#tests + 1] = { "two kernels in one loop", in_loops(function(redis)
  local other = iokernel.Kernel()
  local second = other:open(support.server.url)
  local asking = {}
  for number = 1, 200 do
    local of = number % 2 == 0 and redis or second
    asking[number] = iokernel.spawn(of.call, of, "ECHO", number)
  end
  for number, task in ipairs(asking) do
    check(task:result() == tostring(number), "another's")
  end
  other:close()
end) }

tests[#tests + 1] = { "a kernel that is closed ends what its tasks wait for", in_loops(function()
  local kernel = iokernel.Kernel()
  local redis = kernel:open(support.server.url)
  local task = iokernel.spawn(redis.call, redis, "BLPOP", "t:nothing", 0)
  iokernel.sleep(0.03)
  kernel:close()
  check(iokernel.is(raised(task.result, task), iokernel.Closed), "it waits on")
end) }

tests[#tests + 1] = { "no memory is kept of tasks and calls that are over", function()
  local kernel = iokernel.Kernel()
  local redis = kernel:open(support.server.url)
  local function work()
    iokernel.run(function()
      for number = 1, 500 do
        iokernel.spawn(redis.call, redis, "ECHO", number)
      end
    end)
    collectgarbage()
    collectgarbage()
    return collectgarbage("count")
  end
  for _ = 1, 3 do
    work()
  end
  local before = work()
  for _ = 1, 20 do
    work()
  end
  local after = work()
  -- Ten thousand tasks: were the coroutine of each kept, it would be ten MiB.
  check(after < before + 512, "%d KiB became %d", before, after)
  kernel:close()
end }

return tests
