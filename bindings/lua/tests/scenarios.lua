--- The shared scenarios in Lua: `bindings/scenarios/run.py lua luajit`.
package.path = (arg[0]:match("^(.*)/[^/]*$") or ".") .. "/?.lua;" .. package.path

local support = require("support")
local iokernel = require("iokernel")
local core = require("iokernel.core_of_runtime")
local process, check, shown, same = support.process, support.check, support.shown, support.same
local unpack = table.unpack or unpack

local REDIS = assert(os.getenv("IOK_REDIS"), "IOK_REDIS: expected the URL of a Redis")

local scenarios = {}

-- What the scenarios have in common

-- What the shared file has; numbers of cjson are floats also where they are whole.
local function whole_numbers(value)
  if type(value) == "number" and math.tointeger then
    return math.tointeger(value) or value
  elseif type(value) == "table" then
    for key, inner in pairs(value) do
      value[key] = whole_numbers(inner)
    end
  end
  return value
end

local function read_scenarios()
  local packed = os.getenv("IOK_SCENARIOS_MSGPACK")
  if packed then
    return core.unpack(assert(support.read_file(packed))).scenarios
  end
  return whole_numbers(require("cjson").decode(assert(support.read_file(os.getenv("IOK_SCENARIOS"))))).scenarios
end

-- Calls a function with an endpoint in a kernel of its own, which is closed afterwards.
local function opened(fn, url, config)
  local kernel = iokernel.Kernel(config)
  local good, problem = pcall(function() fn(kernel:open(url or REDIS), kernel) end)
  kernel:close()
  if not good then
    error(problem, 0)
  end
end

-- `{"bytes": "v"}` as the binding gives it, inside of another value.
local function as_lua(value)
  local kind, given = next(value)
  if kind == "array" then
    local list = {}
    for at, one in ipairs(given) do
      list[at] = as_lua(one)
    end
    return list
  end
  return kind == "nil" and iokernel.null or given
end

local function is_error(problem, wanted)
  check(iokernel.is(problem, iokernel.Error), "%s: expected an error of iokernel", tostring(problem))
  local found = { error = problem.status_name:lower(), code = problem.code, fate = problem.fate }
  for key, value in pairs(found) do
    local is_so = wanted[key] == nil or wanted[key] == value
    check(is_so, "%s: %s %s: expected %s", tostring(problem), key, value, wanted[key])
  end
  check(wanted.fate == nil or found.fate, "%s: expected the fate %s", tostring(problem), wanted.fate)
  local text, name = tostring(problem), wanted.names or ""
  check(text:find(name, 1, true), "%s: expected that it names %s", text, name)
end

-- The call ends as a scenario says: `reply` or `error`.
local function expect(wanted, fn, ...)
  local good, found = pcall(fn, ...)
  if wanted.reply then
    check(good, "%s: expected %s", tostring(found), shown(wanted.reply))
    found = found == nil and iokernel.null or found
    check(same(found, as_lua(wanted.reply)), "%s: expected %s", shown(found), shown(wanted.reply))
  else
    check(not good, "%s: expected %s", shown(found), shown(wanted.error))
    is_error(found, wanted.error)
  end
end

-- A request whose `$name`s are filled in.
local function filled(request, values)
  local made = {}
  for at, part in ipairs(request) do
    local name = type(part) == "string" and part:match("^%$(.*)")
    made[at] = name and tostring(values[name]) or part
  end
  return unpack(made)
end

local function elapsed_ms(started)
  return (core.now() - started) * 1000
end

-- The scenarios

function scenarios.echo(one)
  opened(function(_, kernel)
    for _, value in ipairs(one.values) do
      local found = kernel:echo(value):result()
      found = found == nil and iokernel.null or found
      check(same(found, value), "%s: expected %s", shown(found), shown(value))
    end
  end)
end

scenarios["get-set"] = function(one)
  opened(function(redis)
    for _, call in ipairs(one.calls) do
      expect(call, redis.call, redis, unpack(call.call))
    end
  end)
end

scenarios["errors-and-fates"] = function(one)
  scenarios["get-set"](one)
  for _, wrong in ipairs(one.urls) do
    expect(wrong, iokernel.open, wrong.url)
  end
  local refused = one.refused
  opened(function(nobody)
    local hurried = nobody:with({ timeout = refused.timeout / 1000 })
    expect(refused, hurried.call, hurried, unpack(refused.call))
  end, refused.url)
end

function scenarios.timeout(one)
  opened(function(redis)
    redis:wait_ready(5)
    local hurried = redis:with({ timeout = one.timeout / 1000 })
    expect(one, hurried.call, hurried, unpack(one.slow))
    expect(one["then"], redis.call, redis, unpack(one["then"].call))
  end)
end

local function cancel_a_task(one)
  opened(function(redis)
    redis:wait_ready(5)
    local task = iokernel.spawn(redis.call, redis, unpack(one.slow))
    iokernel.sleep(one.cancel_after / 1000)
    local started = core.now()
    check(task:cancel(), "it had ended already")
    expect(one, task.result, task)
    check(elapsed_ms(started) < one.ends_within, "it did not end at once")
    expect(one["then"], redis.call, redis, unpack(one["then"].call))
  end)
end

function scenarios.cancel(one)
  opened(function(redis)
    redis:wait_ready(5)
    local slow = redis:begin(unpack(one.slow))
    process.sleep(one.cancel_after / 1000)
    local started = core.now()
    check(slow:cancel(), "it had ended already")
    expect(one, slow.result, slow)
    check(elapsed_ms(started) < one.ends_within, "it did not end at once")
    expect(one["then"], redis.call, redis, unpack(one["then"].call))
  end)
  support.in_each_loop(cancel_a_task, one)
end

local function pubsub(one)
  opened(function(redis)
    local messages = redis:subscribe(unpack(one.subscribe))
    for number = 0, one.messages - 1 do
      redis:send(filled(one.publish, { number = number }))
    end
    for number = 0, one.messages - 1 do
      local message = messages:get(10)
      check(message[3] == tostring(number), "%s: expected %d", message[3], number)
    end
    messages:close()
    check(messages:closed() and messages() == nil, "it goes on after its end")
  end)
end

function scenarios.pubsub(one)
  pubsub(one)
  support.in_each_loop(pubsub, one)
end

scenarios["pushes-lost"] = function(one)
  opened(function(reader)
    opened(function(writer)
      local messages = reader:subscribe(unpack(one.subscribe))
      for number = 1, one.messages do
        local digits = tostring(number)
        writer:call(filled(one.publish, { bytes = ("0"):rep(one.bytes - #digits) .. digits }))
      end
      local found, last = 0, 0
      while found + messages.lost < one.messages do
        local good, message = pcall(messages.get, messages, 2)
        if not good then
          check(iokernel.is(message, iokernel.Timeout), message)
          break
        end
        local number = tonumber(message[3])
        check(number > last, "messages are out of order")
        found, last = found + 1, number
      end
      check(messages.lost > 0, "nothing was lost")
      check(found + messages.lost == one.messages, "%d came, %d lost", found, messages.lost)
    end)
  end, REDIS, { channel = one.channel })
end

local function value(one)
  local block = {}
  for at = 1, 65536 do
    block[at] = string.char((at * 7 + math.floor(at / 251)) % 256)
  end
  local whole = table.concat(block):rep(one.bytes / 65536)
  opened(function(redis)
    check(redis:call("SET", "s:value", whole) == "OK", "it was not set")
    check(redis:call("GET", "s:value") == whole, "another value came back")
    redis:call("DEL", "s:value")
  end)
end

scenarios["value-1MiB"], scenarios["value-64MiB"] = value, value

local function clients(redis)
  return redis:call("INFO", "clients"):match("connected_clients:(%d+)")
end

local function many(one)
  opened(function(redis)
    local before, fired, left = clients(redis), 0, one.requests
    local timer = iokernel.spawn(function()
      while left > 0 do
        iokernel.sleep(one.timer / 1000)
        fired = fired + 1
      end
    end)
    local asking = {}
    for number = 1, one.requests do
      asking[number] = iokernel.spawn(function()
        local found = redis:call(filled(one.call, { number = number }))
        left = left - 1
        check(found == tostring(number), "%s: expected %d", found, number)
      end)
    end
    for _, task in ipairs(asking) do
      task:result()
    end
    timer:result()
    check(fired > 0, "no timer fired meanwhile")
    check(clients(redis) == before, "more than one conn")
  end)
end

function scenarios.many(one)
  support.in_each_loop(many, one)
end

scenarios["back-pressure"] = function(one)
  opened(function(redis)
    redis:call("DEL", "s:order")
    local futures = {}
    for number = 1, one.requests do
      futures[number] = redis:begin(filled(one.call, { number = number }))
    end
    for number, future in ipairs(futures) do
      check(future:result() == number, "the order was not kept")
    end
    for at, found in ipairs(redis:call("LRANGE", "s:order", 0, -1)) do
      check(found == tostring(at), "values were lost")
    end
    check(redis:call("LLEN", "s:order") == one.requests, "values were lost")
  end, REDIS, { channel = one.channel })
end

scenarios["lost-connection"] = function(one)
  opened(function(redis)
    redis:lease(function(lease)
      local id = lease:call("CLIENT", "ID")
      local waiting = lease:begin(unpack(one.lease))
      process.sleep(0.05)
      check(redis:call(filled(one.kill, { id = id })) == 1, "there was no such conn")
      expect(one, waiting.result, waiting)
    end)
    expect(one["then"], redis.call, redis, unpack(one["then"].call))
  end)
end

function scenarios.transaction(one)
  opened(function(redis)
    redis:call("DEL", "s:watched")
    local beside = {}
    for number = 1, 100 do
      beside[number] = redis("ECHO", number)
    end
    redis:lease(function(conn)
      for _, call in ipairs(one.calls) do
        expect(call, conn.call, conn, unpack(call.call))
        check(redis:call("ECHO", "beside") == "beside", "others' requests are in it")
      end
    end)
    for number, future in ipairs(beside) do
      check(future:result() == tostring(number), "a reply beside it was another's")
    end
  end)
end

local function answer(one)
  return function(request)
    local head = request.args[1]
    local is_known = head[1] == "GET" and head[2] == one.path
    return { is_known and one.status or 404, iokernel.map(), is_known and one.body or iokernel.null }
  end
end

local function start_curl(listener, one)
  return assert(io.popen(("curl -s -m 10 -w ' %%{http_code}' '%s%s'"):format(listener:url(), one.path)))
end

local function check_curl(curl, one)
  local said = curl:read("*a")
  curl:close()
  check(said == ("%s %d"):format(one.body, one.status), "curl says %q", said)
end

local function listen_in_a_loop(one)
  local kernel = iokernel.Kernel()
  local listener = kernel:listen(one.url)
  local curl
  local serving = iokernel.spawn(listener.serve, listener, function(request)
    local reply = answer(one)(request)
    iokernel.spawn(function()
      iokernel.sleep(0.05)
      listener:close()
    end)
    return reply
  end)
  curl = start_curl(listener, one)
  serving:result()
  check_curl(curl, one)
  kernel:close()
end

function scenarios.listen(one)
  local kernel = iokernel.Kernel()
  local listener = kernel:listen(one.url)
  local curl = start_curl(listener, one)
  local request = listener()
  request:reply(answer(one)(request))
  check_curl(curl, one)
  listener:close()
  check(listener() == nil, "it goes on after its end")
  kernel:close()
  support.in_each_loop(listen_in_a_loop, one)
end

function scenarios.fork(one)
  opened(function(redis)
    redis:wait_ready(5)
    local under_way = redis("DEBUG", "SLEEP", "0.2")
    local child = process.fork()
    if child == 0 then
      local pid = process.getpid()
      local hurried = redis:with({ timeout = 5 })
      local good, found = pcall(hurried.call, hurried, filled(one.call, { pid = pid }))
      process.exit(not good and 2 or found == tostring(pid) and 0 or 1)
    end
    check(under_way:result() == "OK", "the parent's request was disturbed")
    local mine = redis:call(filled(one.call, { pid = process.getpid() }))
    local status = process.waitpid(child)
    check(mine == tostring(process.getpid()), "the parent's reply was %s", mine)
    check(status == 0, "the child ended with %d", status)
  end)
end

function scenarios.close(one)
  local kernel = iokernel.Kernel()
  local redis = kernel:open(REDIS)
  redis:wait_ready(5)
  local slow = redis(unpack(one.slow))
  local started = core.now()
  kernel:close()
  expect(one, slow.result, slow)
  expect(one, redis.call, redis, "PING")
  kernel:close()
  redis:close()
  redis:close()
  check(elapsed_ms(started) < one.ends_within, "it took too long")
end

-- Runs in another thread, in a state of its own: it has what it is given, and nothing else.
local function ask_in_a_thread(path, cpath, token, url, name, requests)
  package.path, package.cpath = path, cpath
  local iokernel = require("iokernel")
  local redis = iokernel.join(token):open(url)
  local wrong = 0
  iokernel.run(function()
    for number = 1, requests do
      iokernel.spawn(function()
        local mine = name .. number
        if redis:call("ECHO", mine) ~= mine then
          wrong = wrong + 1
        end
      end)
    end
  end)
  for number = 1, 100 do
    local mine = name .. number
    if redis:call("ECHO", mine) ~= mine then
      wrong = wrong + 1
    end
  end
  redis:call("SET", "s:thread:" .. name, wrong)
end

function scenarios.threads(one)
  if not support.luv then
    error({ skip = "Lua has no threads of its own, and luv is not installed" })
  end
  opened(function(redis, kernel)
    redis:call("DEL", "s:thread:a", "s:thread:b")
    local threads, token = {}, kernel:share()
    for at, name in ipairs({ "a", "b" }) do
      local path, cpath = package.path, package.cpath
      threads[at] = support.luv.new_thread(ask_in_a_thread, path, cpath, token, REDIS, name, one.requests)
    end
    for _, thread in ipairs(threads) do
      thread:join()
    end
    for _, name in ipairs({ "a", "b" }) do
      local wrong = redis:call("GET", "s:thread:" .. name)
      check(wrong == "0", "thread %s ended with %s", name, tostring(wrong))
    end
  end)
end

function scenarios.loops(one)
  opened(function(redis)
    local function ask(number)
      local found = redis:call(filled(one.call, { number = number }))
      check(found == tostring(number), "%s: expected %d", tostring(found), number)
    end
    support.in_each_loop(ask, 0)
    local before = support.open_files()
    for number = 1, one.rounds do
      support.in_each_loop(ask, number)
    end
    check(support.open_files() <= before, "%d descriptors became %d", before, support.open_files())
  end)
end

local function idle(one)
  opened(function(redis)
    local messages = redis:subscribe("SUBSCRIBE", "s:idle")
    redis:call("PING")
    local started = os.clock()
    iokernel.sleep(one.idle / 1000)
    local used = (os.clock() - started) * 1000
    messages:close()
    check(used <= one.cpu_at_most, "%.1f ms of CPU time", used)
  end)
end

function scenarios.idle(one)
  support.in_each_loop(idle, one)
end

-- Asks the admin endpoint of a kernel from another process, while this one sits in `hang`. What it answered.
local function asked_while(hang, path, prepare)
  local folder = support.make_folder()
  local kernel = iokernel.Kernel({ admin = ("unix:%s/admin"):format(folder) })
  local leave = prepare and prepare(kernel)
  local ask = "(cd '%s'; sleep 0.3; curl -s -m 5 --unix-socket admin 'http://localhost%s' >said; touch over) &"
  os.execute(ask:format(folder, path))
  hang()
  local is_over, said = support.read_file(folder .. "/over"), support.read_file(folder .. "/said")
  if leave then
    leave()
  end
  kernel:close()
  support.remove_folder(folder)
  check(is_over, "no answer came while the program hung")
  return said
end

-- In LuaJIT one call of C, which a signal does not end: hooks do not run in traces, and no handler can be written here.
local function hang_in_waitpid(ms)
  local ffi = require("ffi")
  local child = process.fork()
  if child == 0 then
    process.sleep(ms / 1000)
    process.exit(0)
  end
  ffi.C.waitpid(child, nil, 0)
end

local function hang_in_here(ms)
  local over = core.now() + ms / 1000
  while core.now() < over do
    for number = 1, 1000 do
      math.sqrt(number)
    end
  end
end

-- Lua names a function as its caller does.
local function hang(ms)
  return function()
    if support.is_jit then
      hang_in_waitpid(ms)
    else
      hang_in_here(ms)
    end
  end
end

scenarios["stack-while-hung"] = function(one)
  local function ask(wanted)
    local said = asked_while(hang(one.hang), one.path)
    check(said:find(wanted), "%s", said)
  end
  ask(support.is_jit and "wait4" or '"function": *"hang_in_here"')
  if not support.is_jit then
    iokernel.run(ask, '"function": *"hang_in_here"')
  end
end

function scenarios.counters(one)
  local said = asked_while(hang(1000), one.path, function(kernel)
    kernel:counter(one.counter):inc(one.add)
  end)
  check(("\n" .. said):find("\n" .. one.line .. "\n", 1, true), "%s", said:match("[^\n]*" .. one.counter .. "[^\n]*"))
end

function scenarios.markers(one)
  local said = asked_while(hang(1000), one.path, function(kernel)
    local marker = kernel:marker(one.marker):enter()
    return function() marker:leave() end
  end)
  check(said:match('"main": *(%b{})'):find(one.marker, 1, true), "%s", said)
end

-- Running them

local function tell(line)
  io.stdout:write(line, "\n")
  io.stdout:flush()
end

local function in_one_line(problem)
  return (tostring(problem):gsub("%s+", " "):gsub("#", "No."):sub(1, 400))
end

local function main()
  local listed, failed = read_scenarios(), 0
  tell(("1..%d"):format(#listed))
  for number, one in ipairs(listed) do
    local show = scenarios[one.name] or function() error("there is no such scenario", 0) end
    local good, problem = pcall(show, one)
    if good then
      tell(("ok %d - %s"):format(number, one.name))
    elseif type(problem) == "table" and problem.skip then
      tell(("ok %d - %s # SKIP %s"):format(number, one.name, problem.skip))
    else
      failed = failed + 1
      tell(("not ok %d - %s # %s"):format(number, one.name, in_one_line(problem)))
    end
  end
  return failed == 0
end

os.exit(main() and 0 or 1, true)
