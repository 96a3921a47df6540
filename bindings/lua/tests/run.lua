--- The binding's own tests, beside a redis-server of their own: `lua5.4 tests/run.lua`, `luajit tests/run.lua`.
-- A name given is that of the only file to run: `run.lua values`. Prints TAP.
local folder = arg[0]:match("^(.*)/[^/]*$") or "."
package.path = folder .. "/?.lua;" .. package.path

local support = require("support")

local FILES = {
  "values", "errors", "calls", "tasks", "embedding", "subscriptions", "listeners", "processes", "observing", "examples",
}

-- Every test as `{"file: what it shows", fn}`.
local function collect()
  local tests = {}
  for _, file in ipairs(FILES) do
    if not arg[1] or arg[1] == file then
      for _, test in ipairs(require("test_" .. file)) do
        tests[#tests + 1] = { ("%s: %s"):format(file, test[1]), test[2] }
      end
    end
  end
  return tests
end

local function tell(line)
  io.stdout:write(line, "\n")
  io.stdout:flush()
end

local function run(number, test)
  local good, problem = xpcall(test[2], function(problem)
    if type(problem) == "table" and problem.skip then
      return problem
    end
    return debug.traceback(tostring(problem), 2)
  end)
  if good then
    tell(("ok %d - %s"):format(number, test[1]))
  elseif type(problem) == "table" then
    tell(("ok %d - %s # SKIP %s"):format(number, test[1], problem.skip))
  else
    tell(("not ok %d - %s"):format(number, test[1]))
    tell("# " .. problem:gsub("\n", "\n# "))
  end
  return good or type(problem) == "table"
end

local function main()
  local tests, failed = collect(), 0
  tell(("1..%d"):format(#tests))
  support.server = support.redis()
  for number, test in ipairs(tests) do
    failed = failed + (run(number, test) and 0 or 1)
  end
  support.server.stop()
  return failed == 0 and #tests > 0
end

os.exit(main() and 0 or 1, true)
