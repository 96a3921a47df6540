--- Subscriptions and watches.
local support = require("support")
local iokernel = require("iokernel")
local check = support.check

local function in_and_out_of_loops(fn)
  return function()
    local function show()
      local kernel = iokernel.Kernel()
      local redis = kernel:open(support.server.url)
      local good, problem = pcall(fn, redis, kernel)
      kernel:close()
      if not good then
        error(problem, 0)
      end
    end
    show()
    support.in_each_loop(show)
  end
end

local function raised(fn, ...)
  local good, problem = pcall(fn, ...)
  check(not good, "nothing was raised")
  return problem
end

local tests = {}

tests[#tests + 1] = { "messages by get and by iteration, until it is closed", in_and_out_of_loops(function(redis)
  local messages = redis:subscribe("SUBSCRIBE", "t:ch")
  check(messages.reconnects == 0 and messages.lost == 0 and not messages:closed(), "at its beginning")
  check(redis:call("PUBLISH", "t:ch", "first") == 1, "nobody hears")
  local message = messages:get(5)
  check(message[1] == "message" and message[2] == "t:ch" and message[3] == "first", message)
  check(iokernel.is(raised(messages.get, messages, 0.02), iokernel.Timeout), "nothing came")
  for number = 1, 100 do
    redis:send("PUBLISH", "t:ch", number)
  end
  local count = 0
  for one in messages do
    count = count + 1
    check(one[3] == tostring(count), "out of order")
    if count == 100 then
      messages:close()
    end
  end
  check(count == 100, "%d messages", count)
  check(iokernel.is(raised(messages.get, messages), iokernel.Closed), "after its end")
  messages:close()
end) }

tests[#tests + 1] = { "what is refused is raised at once", in_and_out_of_loops(function(redis)
  check(iokernel.is(raised(redis.subscribe, redis, "SUBSCRIBE"), iokernel.Error), "no channel")
  check(iokernel.is(raised(redis.subscribe, redis, print), iokernel.BadRequest), "a value that is none")
  check(redis:call("PING") == "PONG", "the next call")
end) }

tests[#tests + 1] = { "it outlives its connection, and counts", in_and_out_of_loops(function(redis)
  local messages = redis:subscribe("SUBSCRIBE", "t:again")
  redis:lease(function(conn)
    conn:call("CLIENT", "KILL", "TYPE", "pubsub", "SKIPME", "yes")
  end)
  pcall(redis.call, redis, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "no")
  local tries = 0
  repeat
    tries = tries + 1
    pcall(redis.call, redis, "PUBLISH", "t:again", "x")
    local good = pcall(messages.get, messages, 0.1)
  until good and messages.reconnects > 0 or tries > 100
  check(messages.reconnects > 0, "no reconnect")
  messages:close()
end) }

tests[#tests + 1] = { "one that nobody holds is closed", in_and_out_of_loops(function(redis)
  local messages = redis:subscribe("SUBSCRIBE", "t:held")
  check(redis:call("PUBSUB", "NUMSUB", "t:held")[2] == 1, "it stands")
  messages = nil
  for _ = 1, 100 do
    collectgarbage()
    collectgarbage()
    if redis:call("PUBSUB", "NUMSUB", "t:held")[2] == 0 then
      return
    end
    iokernel.sleep(0.01)
  end
  error("it still stands")
end) }

tests[#tests + 1] = { "a program that does not take has a bounded buffer", in_and_out_of_loops(function(redis)
  local messages = redis:subscribe("SUBSCRIBE", "t:flood")
  messages.buffer = 10
  for number = 1, 50 do
    redis:send("PUBLISH", "t:flood", number)
  end
  local first = messages:get(5)
  check(first[3] == "1", "the first one")
  for _ = 1, 100 do
    redis:call("PING")
    if messages.lost > 0 then
      break
    end
    iokernel.sleep(0.01)
  end
  check(messages.lost >= 39, "%d lost", messages.lost)
  messages:close()
end) }

tests[#tests + 1] = { "watch: at once, and after changes", in_and_out_of_loops(function(redis, kernel)
  redis:wait_ready(5)
  local watch = redis:watch()
  check(watch:get(5).state == "up", "at once")
  local of_kernel = kernel:watch()
  check(of_kernel:get(5).ready == true, "the kernel's")
  redis:close()
  local good, problem = pcall(watch.get, watch, 5)
  check(not good and iokernel.is(problem, iokernel.Closed), "%s", problem)
  watch:close()
  of_kernel:close()
end) }

return tests
