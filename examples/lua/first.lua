--- First steps: one service, called by the program and by its tasks.
--
--   $ luajit first.lua redis://127.0.0.1:6379
--   hello
--   300 tasks, one connection: 300 replies
local iokernel = require("iokernel")

-- Returns at once. Names, the connection, its heartbeats: all of that lives in the I/O thread from here on.
local cache = iokernel.open(arg[1] or "redis://127.0.0.1:6379")

cache:with({ timeout = 5 }):call("SET", "greeting", "hello")
print(cache:call("GET", "greeting"))

-- Inside of tasks the same call lets the others run. Everybody shares one connection.
local replies = 0
iokernel.run(function()
  for _ = 1, 300 do
    iokernel.spawn(function()
      if cache:call("GET", "greeting") == "hello" then
        replies = replies + 1
      end
    end)
  end
end)
print(("300 tasks, one connection: %d replies"):format(replies))

-- Errors are raised. They say what they are, and whether the request may have been executed.
local good, problem = pcall(cache.call, cache, "LPUSH", "greeting", "x")
assert(not good and iokernel.is(problem, iokernel.RemoteError) and problem.code == "WRONGTYPE")

cache:call("DEL", "greeting")
cache:close()
