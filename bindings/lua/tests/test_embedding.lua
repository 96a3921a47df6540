--- Other people's loops: poll and fd; luv's coroutines and callbacks; threads.
local support = require("support")
local iokernel = require("iokernel")
local core = require("iokernel.core_of_runtime")
local check = support.check

local function with_redis(fn)
  return function()
    local kernel = iokernel.Kernel()
    local redis = kernel:open(support.server.url)
    local good, problem = pcall(fn, redis, kernel)
    kernel:close()
    if not good then
      error(problem, 0)
    end
  end
end

local function needs_luv()
  return support.luv or error({ skip = "luv is not installed" })
end

local tests = {}

tests[#tests + 1] = { "poll: the descriptor is readable while something waits", with_redis(function(redis, kernel)
  redis:wait_ready(5)
  check(kernel:fd() >= 0 and core.poll_fds({ kernel:fd() }, 0) == 0, "readable though nothing waits")
  local future = redis("ECHO", "x")
  check(core.poll_fds({ kernel:fd() }, 5000) == 1, "not readable though a reply waits")
  check(not future.settled and kernel:poll() == 1 and future.settled, "poll did not take it")
  check(future:result() == "x" and core.poll_fds({ kernel:fd() }, 0) == 0, "readable after that")
  local started = core.now()
  check(kernel:poll(0.05) == 0 and core.now() - started >= 0.045, "poll did not wait")
end) }

tests[#tests + 1] = { "poll runs tasks that can go on", with_redis(function(redis, kernel)
  local task = iokernel.spawn(function()
    iokernel.sleep(0.01)
    return redis:call("ECHO", "a") .. redis:call("ECHO", "b")
  end)
  local turns = 0
  while not task:done() do
    kernel:poll(0.5)
    turns = turns + 1
    check(turns < 100, "it does not end")
  end
  check(task:result() == "ab", "another's")
end) }

tests[#tests + 1] = { "luv: coroutines wait, callbacks block, timers fire meanwhile", with_redis(function(redis)
  local uv = needs_luv()
  local bridge = require("iokernel.luv")
  local got, ticks, blocked = nil, 0, nil
  local timer = uv.new_timer()
  timer:start(5, 5, function() ticks = ticks + 1 end)
  coroutine.wrap(function()
    redis:call("BLPOP", "t:nothing", "0.1")
    got = redis:call("ECHO", "mine")
    timer:close()
  end)()
  local once = uv.new_timer()
  once:start(1, 0, function()
    blocked = redis:call("ECHO", "blocked")
    once:close()
  end)
  uv.run()
  bridge.close()
  check(got == "mine" and blocked == "blocked", "replies: %s, %s", tostring(got), tostring(blocked))
  check(ticks >= 3, "%d ticks", ticks)
end) }

tests[#tests + 1] = { "luv: its loop ends when nothing of ours is left", with_redis(function(redis)
  local uv = needs_luv()
  local bridge = require("iokernel.luv")
  uv.run()
  local got = 0
  iokernel.spawn(function()
    local messages = redis:subscribe("SUBSCRIBE", "t:luv")
    iokernel.spawn(function()
      for number = 1, 3 do
        iokernel.sleep(0.01)
        redis:send("PUBLISH", "t:luv", number)
      end
    end)
    for message in messages do
      got = got + 1
      if message[3] == "3" then
        messages:close()
      end
    end
  end)
  uv.run()
  bridge.close()
  check(got == 3, "%d messages", got)
end) }

tests[#tests + 1] = { "luv: an error in a coroutine of its user is not swallowed", with_redis(function(redis)
  local uv = needs_luv()
  local script = os.tmpname()
  local file = assert(io.open(script, "w"))
  file:write(([[
    package.path, package.cpath = %q, %q
    local iokernel, uv = require("iokernel"), require("luv")
    require("iokernel.luv")
    local redis = iokernel.open(%q)
    coroutine.wrap(function() redis:call("PING") error("seen by somebody") end)()
    uv.run()
  ]]):format(package.path, package.cpath, support.server.url))
  file:close()
  local interpreter = support.interpreter
  local said = support.output_of(("%s '%s' 2>&1"):format(interpreter, script))
  os.remove(script)
  check(said:find("seen by somebody"), "%s", said)
  check(uv and redis, "unused")
end) }

tests[#tests + 1] = { "another thread's state joins the kernel, and leaves it open", with_redis(function(redis, kernel)
  local uv = needs_luv()
  local thread = uv.new_thread(function(path, cpath, token, url)
    package.path, package.cpath = path, cpath
    local iokernel = require("iokernel")
    local joined = iokernel.join(token)
    joined:open(url):call("SET", "t:joined", "yes")
    joined:close()
    joined:close()
  end, package.path, package.cpath, kernel:share(), support.server.url)
  thread:join()
  check(redis:call("GET", "t:joined") == "yes", "the thread did nothing")
end) }

tests[#tests + 1] = { "a kernel that is gone is seen by who joined it", function()
  local kernel = iokernel.Kernel()
  local joined = iokernel.join(kernel:share())
  kernel:close()
  local good, problem = pcall(joined.open, joined, "redis://127.0.0.1:1")
  check(not good and iokernel.is(problem, iokernel.Closed), "%s", problem)
end }

return tests
