--- Listeners: requests of clients, replies whole and in parts.
local support = require("support")
local iokernel = require("iokernel")
local check = support.check

local function raised(fn, ...)
  local good, problem = pcall(fn, ...)
  check(not good, "nothing was raised")
  return problem
end

-- A test in each loop, with a listener that `handler` serves, and who asks it.
local function served(url, handler, fn)
  return function()
    support.in_each_loop(function()
      local kernel, clients = iokernel.Kernel(), iokernel.Kernel()
      local listener = kernel:listen(url)
      local serving = iokernel.spawn(listener.serve, listener, handler)
      local good, problem = pcall(fn, clients:open(listener:url()), listener, kernel)
      listener:close()
      serving:result()
      clients:close()
      kernel:close()
      if not good then
        error(problem, 0)
      end
    end)
  end
end

local tests = {}

tests[#tests + 1] = { "Redis: values of every kind, errors, and a handler that waits", served("redis://127.0.0.1:0",
  function(request)
    local name, argument = request.args[1], request.args[2]
    if name == "ECHO" then
      return argument
    elseif name == "SLOW" then
      iokernel.sleep(0.02)
      return 7
    elseif name == "LIST" then
      return { 1, "two", iokernel.null, { 3 } }
    elseif name == "REFUSE" then
      error(iokernel.remote("NOPE", "not today"))
    elseif name == "LATER" then
      iokernel.spawn(function()
        iokernel.sleep(0.01)
        request:reply("later")
      end)
      iokernel.sleep(0.03)
      return "too late"
    elseif name == "NIL" then
      return nil
    end
    request:error("ERR", "unknown command")
  end,
  function(redis)
    check(redis:call("ECHO", "x") == "x" and redis:call("SLOW") == 7 and redis:call("NIL") == nil, "plain")
    local list = redis:call("LIST")
    check(#list == 4 and list[1] == 1 and list[3] == iokernel.null and list[4][1] == 3, list)
    local problem = raised(redis.call, redis, "REFUSE")
    check(problem.code == "NOPE" and problem.message == "not today", "%s", problem)
    check(raised(redis.call, redis, "OTHER").code == "ERR" and redis:call("LATER") == "later", "others")
    local replies = redis:all({ { "SLOW" }, { "ECHO", 1 }, { "SLOW" } })
    check(replies[1] == 7 and replies[2] == "1" and replies[3] == 7, replies)
  end) }

tests[#tests + 1] = { "HTTP: bodies in pieces both ways", served("http://127.0.0.1:0?stream_above=64KiB",
  function(request)
    local body = request.args[2]
    request:begin({ 200, iokernel.map(), true })
    local count = 0
    if body == true then
      for piece in request do
        count = count + #piece
        request:send(piece:upper())
      end
    end
    request:finish()
    check(count > 0 or body ~= true, "no piece came")
  end,
  function(_, listener)
    local folder = support.make_folder()
    local file = assert(io.open(folder .. "/body", "wb"))
    file:write(("hello "):rep(200000))
    file:close()
    os.execute(("(curl -s -m 20 -H 'Expect:' --data-binary '@%s/body' '%s/' >'%s/said'; touch '%s/over') &"):format(
      folder, listener:url(), folder, folder))
    for _ = 1, 2000 do
      if support.read_file(folder .. "/over") then
        break
      end
      iokernel.sleep(0.01)
    end
    local said = support.read_file(folder .. "/said")
    support.remove_folder(folder)
    check(said == ("HELLO "):rep(200000), "%d bytes came back", said and #said or -1)
  end) }

tests[#tests + 1] = { "a handler that fails is told of, and its client gets ERR", function()
  local script = os.tmpname()
  local file = assert(io.open(script, "w"))
  file:write(([[
    package.path, package.cpath = %q, %q
    local iokernel = require("iokernel")
    iokernel.run(function()
      local listener = iokernel.listen("redis://127.0.0.1:0")
      iokernel.spawn(listener.serve, listener, function() error("a fault of mine") end)
      local redis = iokernel.open(listener:url())
      local good, problem = pcall(redis.call, redis, "X")
      print(good, problem)
      listener:close()
    end)
  ]]):format(package.path, package.cpath))
  file:close()
  local said = support.output_of(("%s '%s' 2>&1"):format(support.interpreter, script))
  os.remove(script)
  check(said:find("a fault of mine") and said:find("ERR the handler failed"), "%s", said)
end }

tests[#tests + 1] = { "blocking: one request after the other; clients that leave; closing", function()
  local kernel, clients = iokernel.Kernel(), iokernel.Kernel()
  local listener = kernel:listen("redis://127.0.0.1:0")
  local redis = clients:open(listener:url())
  local first, second = redis("A"), redis("B")
  redis("C")
  redis("D")
  local request = listener()
  check(request.args[1] == "A" and request.peer > 0 and not request:gone(), "the first one")
  request:reply("a")
  request:reply("again")
  check(request:gone() and first:result(5) == "a", "its reply")
  -- A client may end its sending side alone: that it has left is seen when replies find nobody.
  local unheard, refused, left = listener(), listener(), listener()
  redis:close()
  support.process.sleep(0.05)
  unheard:reply("nobody hears")
  support.process.sleep(0.05)
  refused:reply("nobody is there")
  for _ = 1, 200 do
    if left:gone() then
      break
    end
    kernel:poll(0.01)
  end
  check(left:gone(), "it does not hear that its client left")
  left:reply("nor this")
  check(not pcall(second.result, second), "it was closed")
  check(listener:state().state == "up" and not listener:closed(), "its state")
  local pending = clients:open(listener:url())("C")
  local late = listener()
  listener:close()
  listener:close()
  check(listener() == nil and listener:closed(), "after its end")
  check(late:gone() and not pcall(pending.result, pending), "a request that was left")
  check(iokernel.is(raised(kernel.listen, kernel, "redis://256.0.0.1:0"), iokernel.ConfigError), "no address")
  clients:close()
  kernel:close()
end }

tests[#tests + 1] = { "it leaves politely: what is under way has time to finish", function()
  iokernel.run(function()
    local kernel, clients = iokernel.Kernel(), iokernel.Kernel()
    local listener = kernel:listen("http://127.0.0.1:0")
    local serving = iokernel.spawn(listener.serve, listener, function()
      iokernel.sleep(0.1)
      return { 200, iokernel.map(), "late" }
    end)
    local api = clients:open(listener:url())
    local reply = api("GET", "/")
    iokernel.sleep(0.03)
    listener:close(5)
    check(reply:result()[3] == "late", "it was dropped")
    serving:result()
    clients:close()
    kernel:close()
  end)
end }

return tests
