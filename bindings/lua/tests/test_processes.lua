--- Forks, signals, the end of a state.
local support = require("support")
local iokernel = require("iokernel")
local check, process = support.check, support.process

-- Runs a function in a forked child, which ends at once afterwards. Its exit status: 0 if nothing was raised.
local function in_child(fn)
  local child = process.fork()
  if child == 0 then
    local good, problem = pcall(fn)
    if not good then
      io.stderr:write(tostring(problem), "\n")
    end
    process.exit(good and 0 or 1)
  end
  return child
end

-- A program in an interpreter of its own: what it printed, both ways.
local function output_of_program(text)
  local script = os.tmpname()
  local file = assert(io.open(script, "w"))
  file:write(("package.path, package.cpath = %q, %q\n"):format(package.path, package.cpath), text)
  file:close()
  local interpreter = support.interpreter
  local said = support.output_of(("timeout -s KILL 20 %s '%s' 2>&1; echo \"status $?\""):format(interpreter, script))
  os.remove(script)
  return said
end

local tests = {}

tests[#tests + 1] = { "a child's endpoints, leases, subscriptions and futures are its own", function()
  local kernel = iokernel.Kernel()
  local redis = kernel:open(support.server.url)
  local lease = redis:lease()
  local messages = redis:subscribe("SUBSCRIBE", "t:fork")
  local pending = redis("BLPOP", "t:nothing", "0.3")
  local child = in_child(function()
    check(redis:call("ECHO", "child") == "child", "its endpoint")
    local good, problem = pcall(lease.call, lease, "PING")
    check(not good and iokernel.is(problem, iokernel.Closed), "its lease: %s", tostring(problem))
    good, problem = pcall(pending.result, pending)
    check(not good and problem.status_name == "FORKED", "its future: %s", tostring(problem))
    good, problem = pcall(messages.get, messages, 1)
    check(not good and problem.status_name == "FORKED", "its subscription: %s", tostring(problem))
    check(redis:lease(function(conn) return conn:call("ECHO", "own") end) == "own", "a lease of its own")
    local grandchild = in_child(function() check(redis:call("ECHO", "grandchild") == "grandchild", "its child") end)
    check(process.waitpid(grandchild) == 0, "its child's end")
    kernel:close()
  end)
  check(process.waitpid(child) == 0, "the child failed")
  check(pending:result() == nil and lease:call("PING") == "PONG", "the parent's")
  redis:call("PUBLISH", "t:fork", "x")
  check(messages:get(5)[3] == "x", "the parent's subscription")
  lease:release()
  kernel:close()
end }

tests[#tests + 1] = { "a fork inside of a task", function()
  local kernel = iokernel.Kernel()
  local redis = kernel:open(support.server.url)
  iokernel.run(function()
    local other = iokernel.spawn(redis.call, redis, "BLPOP", "t:nothing", "0.2")
    iokernel.sleep(0.02)
    local child = in_child(function() check(redis:call("ECHO", "child") == "child", "its endpoint") end)
    check(redis:call("ECHO", "parent") == "parent", "the parent's")
    check(process.waitpid(child) == 0, "the child failed")
    check(other:result() == nil, "the parent's other task")
  end)
  kernel:close()
end }

tests[#tests + 1] = { "a child that does nothing, and closes what is the parent's", function()
  local kernel = iokernel.Kernel()
  local redis = kernel:open(support.server.url)
  redis:wait_ready(5)
  local child = in_child(function()
    redis:close()
    kernel:close()
    collectgarbage()
  end)
  check(process.waitpid(child) == 0, "the child failed")
  check(redis:call("PING") == "PONG", "the parent's connection")
  kernel:close()
end }

tests[#tests + 1] = { "a listener's address is the parent's; the child's copy is closed", function()
  local kernel = iokernel.Kernel()
  local listener = kernel:listen("redis://127.0.0.1:0")
  local child = in_child(function()
    kernel:channel()
    check(listener:closed() and listener() == nil, "it goes on")
    listener:close()
  end)
  check(process.waitpid(child) == 0, "the child failed")
  check(listener:state().state == "up", "the parent's")
  kernel:close()
end }

tests[#tests + 1] = { "Ctrl-C ends a call that waits", function()
  if support.is_jit and jit.version_num < 20100 then
    error({ skip = "this LuaJIT does not look for signals" })
  end
  local said = output_of_program(([[
    local iokernel = require("iokernel")
    local redis = iokernel.open(%q)
    redis:wait_ready(5)
    os.execute("(sleep 0.3; kill -INT $PPID) &")
    local good, problem = pcall(redis.call, redis, "BLPOP", "t:nothing", "5")
    print(good, problem)
    print(redis:call("ECHO", "and goes on"))
  ]]):format(support.server.url))
  check(said:find("false.*interrupted!") and said:find("and goes on"), "%s", said)
end }

tests[#tests + 1] = { "a state that ends: with requests under way, from inside of a task, without closing", function()
  local program = ([[
    local iokernel = require("iokernel")
    local redis = iokernel.open(%q)
    redis:call("PING")
    local pending = redis("BLPOP", "t:nothing", 5)
    local messages, lease = redis:subscribe("SUBSCRIBE", "t:end"), redis:lease()
    redis:send("SET", "t:end", "written")
    print("here")
    %s
  ]])
  for _, ending in ipairs({ "", "os.exit(0)", "os.exit(0, true)", "iokernel.run(function() os.exit(0, true) end)" }) do
    local said = output_of_program(program:format(support.server.url, ending))
    check(said:find("here") and said:find("status 0"), "%q: %s", ending, said)
  end
end }

tests[#tests + 1] = { "kernels that nobody holds are closed, and leave no descriptors", function()
  local function make()
    local kernel = iokernel.Kernel()
    kernel:open(support.server.url):call("PING")
  end
  make()
  local before = support.open_files()
  for _ = 1, 10 do
    make()
    collectgarbage()
    collectgarbage()
  end
  collectgarbage()
  check(support.open_files() <= before + 4, "%d descriptors became %d", before, support.open_files())
end }

tests[#tests + 1] = { "a library that is not there", function()
  local said = support.output_of(("IOKERNEL_LIBRARY=/nowhere %s -e \"package.path = '%s' package.cpath = '%s' "
    .. "require('iokernel')\" 2>&1"):format(support.interpreter, package.path, package.cpath))
  check(said:find("IOKERNEL_LIBRARY: \"/nowhere\": expected the path of"), "%s", said)
end }

return tests
