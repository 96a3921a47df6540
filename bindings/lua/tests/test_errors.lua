--- Errors: what they are, and what they say.
local support = require("support")
local iokernel = require("iokernel")
local errors = require("iokernel.errors")
local check = support.check

local function raised(fn, ...)
  local good, problem = pcall(fn, ...)
  check(not good, "nothing was raised")
  return problem
end

local tests = {}

tests[#tests + 1] = { "a ConfigError names key, value and what was expected", function()
  local problem = raised(iokernel.open, "redis://127.0.0.1:1", { timeout = "soon" })
  check(iokernel.is(problem, iokernel.ConfigError) and iokernel.is(problem, iokernel.BadRequest), problem)
  check(problem.key == "timeout" and problem.value == "soon" and problem.expected, "%s", problem)
  check(problem.status == -105 and problem.status_name == "BAD_CONFIG", "%s", problem.status_name)
  problem = raised(iokernel.open, "redis://127.0.0.1:1", { timeout = {} })
  check(iokernel.is(problem, iokernel.ConfigError) and problem.key == "timeout", "%s", problem)
  check(iokernel.is(raised(iokernel.open, nil), iokernel.ConfigError), "a URL that is none")
  check(raised(iokernel.Kernel, { nosuch = 1 }).key == "nosuch", "an option of the kernel")
end }

tests[#tests + 1] = { "classes: each is an Error, and none is its neighbour", function()
  local timeout = errors.of(-202, { fate = 2, endpoint = "redis://host", peer = 3 })
  check(timeout:is(iokernel.Timeout) and timeout:is(iokernel.Error) and not timeout:is(iokernel.Closed), "Timeout")
  check(timeout.fate == "maybe_executed" and timeout.peer == 3 and timeout.code == "", "fields")
  check(tostring(timeout):find("(redis://host, maybe executed)", 1, true), "%s", timeout)
  check(not iokernel.is("text", iokernel.Error) and not iokernel.is(nil, iokernel.Error), "what is no error")
  check(not iokernel.is({}, iokernel.Error), "a table that is none")
  check(tostring(iokernel.Timeout) == "Timeout", "the name of a class")
end }

tests[#tests + 1] = { "every status of the header has a class of its own, or is an Error", function()
  local header = support.read_file(support.binding .. "/../../include/iokernel.h")
  local count = 0
  for name, number in header:gmatch("#define IOK_STATUS_(%w+) (%-%d+)") do
    local problem = errors.of(tonumber(number), {})
    check(problem:is(iokernel.Error) and #problem.message > 0, name)
    count = count + 1
  end
  for name, number in header:gmatch("#define IOK_STATUS_([%w_]+) (%-%d+)") do
    check(errors.of(tonumber(number), {}).status_name == name, name)
  end
  check(count > 10, "the header was not read")
end }

tests[#tests + 1] = { "the numbers of the ABI are the header's", function()
  local header = support.read_file(support.binding .. "/../../include/iokernel.h")
  local abi = require("iokernel.abi")
  for _, group in ipairs({ "OP", "KIND", "STATUS", "EXT" }) do
    for name, number in pairs(abi[group]) do
      local found = header:match(("#define IOK_%s_%s (%%-?%%d+)\n"):format(group, name))
      check(tonumber(found) == number, "%s %s: %s", group, name, tostring(found))
    end
  end
  for name, number in pairs(abi.FLAG) do
    local shift = header:match(("#define IOK_FLAG_%s %%(1 << (%%d+)%%)"):format(name))
    check(shift and 2 ^ tonumber(shift) == number, "flag %s", name)
  end
end }

tests[#tests + 1] = { "secrets are not shown", function()
  local kernel = iokernel.Kernel()
  local secret = kernel:open("redis://user:hush@127.0.0.1:1/3?timeout=1s")
  check(secret:url() == "redis://user:***@127.0.0.1:1/3", secret:url())
  local problem = raised(secret:with({ timeout = 0.05 }).call, secret:with({ timeout = 0.05 }), "PING")
  check(not tostring(problem):find("hush") and problem.endpoint == secret:url(), "%s", problem)
  check(not tostring(secret):find("hush"), "%s", secret)
  kernel:close()
end }

tests[#tests + 1] = { "options that are none", function()
  local kernel = iokernel.Kernel()
  local redis = kernel:open("redis://127.0.0.1:1")
  check(iokernel.is(raised(redis.with, redis, { timeot = 1 }), iokernel.BadRequest), "a name")
  check(iokernel.is(raised(redis.with, redis, { timeout = "1" }), iokernel.BadRequest), "a time")
  check(iokernel.is(raised(redis.with, redis, { timeout = 0 }), iokernel.Timeout), "no time")
  check(iokernel.is(raised(redis.with, redis, { route = "x" }), iokernel.BadRequest), "a route")
  check(redis:with({ timeout = math.huge }).timeout_ms == 0xFFFFFFFF, "no deadline")
  check(redis:with({ timeout = 0.0001 }).timeout_ms == 1, "rounded up")
  kernel:close()
end }

return tests
