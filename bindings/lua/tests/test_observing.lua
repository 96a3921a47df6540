--- What others see of the program: counters, markers, stacks.
local support = require("support")
local iokernel = require("iokernel")
local check, process = support.check, support.process

-- A test with a kernel that has an admin endpoint, and `ask(path)`.
local function with_admin(fn)
  return function()
    local folder = support.make_folder()
    local kernel = iokernel.Kernel({ admin = ("unix:%s/admin"):format(folder) })
    local good, problem = pcall(fn, kernel, function(path)
      return support.output_of(("curl -s -m 5 --unix-socket '%s/admin' 'http://localhost%s'"):format(folder, path))
    end, folder)
    kernel:close()
    support.remove_folder(folder)
    if not good then
      error(problem, 0)
    end
  end
end

local function has_line(text, line)
  return ("\n" .. text):find("\n" .. line .. "\n", 1, true) ~= nil
end

local function raised(fn, ...)
  local good, problem = pcall(fn, ...)
  check(not good, "nothing was raised")
  return problem
end

local tests = {}

tests[#tests + 1] = { "counters, sums, gauges and histograms are read from outside", with_admin(function(kernel, ask)
  local paid = kernel:counter("paid", { help = "Orders.", labels = { shop = "north & south" } })
  paid:inc()
  paid:inc(2)
  kernel:sum("worked", { unit = "seconds" }):inc(0.25)
  local depth = kernel:gauge("depth", { merge = "max" })
  depth:set(5)
  depth:inc()
  depth:dec(2.5)
  local took = kernel:histogram("took_seconds", { unit = "seconds", buckets = { 0.1, 1, math.huge } })
  took:observe(0.1)
  took:observe(0.5)
  took:observe(7)
  check(took:time(function(...) return ... end, "mine") == "mine", "what the function returns")
  check(raised(took.time, took, error, "mine", 0) == "mine", "what it raises")
  local text = ask("/metrics")
  for _, line in ipairs({
    'paid_total{shop="north & south"} 3', "worked_seconds_total 0.25", "depth 3.5", 'took_seconds_bucket{le="0.1"} 3',
    'took_seconds_bucket{le="1"} 4', 'took_seconds_bucket{le="+Inf"} 5', "took_seconds_count 5",
  }) do
    check(has_line(text, line), "%s: is not in %s", line, text:match("paid.*") or text)
  end
  check(paid:value() == 3 and depth:value() == 3.5, "values")
  check(kernel:sum("worked", { unit = "seconds" }):value() == 0.25, "a sum's value")
  check(kernel:counter("paid", { help = "Orders.", labels = { shop = "north & south" } }) == paid, "the same object")
end) }

tests[#tests + 1] = { "what is no number is refused", with_admin(function(kernel)
  local counter, gauge = kernel:counter("n"), kernel:gauge("g")
  for _, wrong in ipairs({ -1, 0.5, 0 / 0, 1 / 0, "1", {} }) do
    check(tostring(raised(counter.inc, counter, wrong)):find("expected"), "%s", tostring(wrong))
  end
  check(tostring(raised(gauge.set, gauge, 0 / 0)):find("finite"), "a gauge")
  check(counter:value() == 0, "it counted")
  check(iokernel.is(raised(kernel.counter, kernel, "no name"), iokernel.ConfigError), "a name")
  check(iokernel.is(raised(kernel.gauge, kernel, "n"), iokernel.ConfigError), "a kind that is another's")
end) }

tests[#tests + 1] = { "a child counts in the same series", with_admin(function(kernel, ask)
  local counter = kernel:counter("family")
  counter:inc(1)
  local child = process.fork()
  if child == 0 then
    counter:inc(10)
    process.exit(0)
  end
  check(process.waitpid(child) == 0, "the child failed")
  check(has_line(ask("/metrics"), "family_total 11"), "%s", ask("/metrics"):match("family[^\n]*"))
end) }

tests[#tests + 1] = { "markers: nested, entered again, cut, beyond their places", with_admin(function(kernel, ask)
  local function shown()
    return ask("/state"):match('"main": *(%b{})')
  end
  local outer, inner = kernel:marker("outer", { id = 7, a = "x" }), kernel:marker("inner")
  check(outer:around(function(...)
    inner:enter()
    local text = shown()
    check(text:find("outer a=x id=7", 1, true) and text:find("inner", 1, true), text)
    inner:leave()
    check(not shown():find("inner", 1, true), "it was left")
    return ...
  end, "mine") == "mine", "what the function returns")
  check(raised(outer.around, outer, error, "mine", 0) == "mine" and not shown():find("outer"), "left after an error")
  local long = kernel:marker(("ä"):rep(40)):enter()
  check(shown():find(("ä"):rep(28), 1, true) and not shown():find(("ä"):rep(29), 1, true), "cut at a character")
  long:leave()
  for _ = 1, 20 do
    inner:enter()
  end
  for _ = 1, 20 do
    inner:leave()
  end
  inner:leave()
  check(not shown():find("inner", 1, true), "all were left")
  check(inner:around(shown):find("inner", 1, true), "once more")
end) }

tests[#tests + 1] = { "requests go with the marker of their task", with_admin(function(kernel, ask)
  local redis = kernel:open(support.server.url)
  redis:wait_ready(5)
  iokernel.run(function()
    local jobs = { iokernel.spawn(redis.call, redis, "BLPOP", "t:nothing", 0) }
    for number = 1, 2 do
      jobs[number + 1] = iokernel.spawn(function()
        kernel:marker("job " .. number):around(function()
          redis:call("BLPOP", "t:nothing" .. number, 0)
        end)
      end)
    end
    iokernel.sleep(0.05)
    local requests = ask("/requests")
    for number = 1, 2 do
      check(select(2, requests:gsub("job " .. number, "")) == 1, "job %d: %s", number, requests)
    end
    check(select(2, requests:gsub('"command"', "")) >= 3, "%s", requests)
    for _, job in ipairs(jobs) do
      check(job:cancel() and not pcall(job.result, job), "it was not cancelled")
    end
  end)
end) }

tests[#tests + 1] = { "a stack names the functions of Lua, also in tasks", with_admin(function(kernel, ask, folder)
  if support.is_jit then
    error({ skip = "LuaJIT shows native frames alone" })
  end
  local core = require("iokernel.core_of_runtime")
  local function busy_in_here(seconds)
    local over, count = core.now() + seconds, 0
    while core.now() < over do
      count = count + 1
    end
    return count
  end
  local function ask_while_busy()
    os.execute(("(for i in 1 2 3 4 5 6 7 8 9 10; do curl -s -m 5 --unix-socket '%s/admin' http://localhost/stack; "
      .. "done >'%s/said'; touch '%s/over') &"):format(folder, folder, folder))
    local rounds = 0
    while not support.read_file(folder .. "/over") and rounds < 100 do
      busy_in_here(0.1)
      rounds = rounds + 1
    end
    os.remove(folder .. "/over")
    local said = support.read_file(folder .. "/said")
    local _, count = said:gsub("busy_in_here", "")
    check(count >= 8, "%d of 10 name it: %s", count, said)
  end
  ask_while_busy()
  iokernel.run(ask_while_busy)
  local hook = function() end
  debug.sethook(hook, "c", 0)
  ask_while_busy()
  local found = debug.gethook()
  debug.sethook()
  check(found == hook, "the program's own hook is gone")
  check(kernel:closed() == false and ask("/healthz"):find("ok"), "it goes on")
end) }

tests[#tests + 1] = { "asking for stacks does not disturb calls", with_admin(function(kernel, _, folder)
  local redis = kernel:open(support.server.url)
  os.execute(("(for i in $(seq 40); do curl -s -m 5 --unix-socket '%s/admin' http://localhost/stack; done "
    .. ">/dev/null; touch '%s/over') &"):format(folder, folder))
  local count = 0
  while not support.read_file(folder .. "/over") and count < 200000 do
    count = count + 1
    check(redis:call("ECHO", count) == tostring(count), "another's")
  end
  check(count > 0, "nothing was asked")
end) }

return tests
