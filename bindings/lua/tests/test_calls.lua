--- Calls, futures, many at a time, leases: outside of tasks.
local support = require("support")
local iokernel = require("iokernel")
local check, same = support.check, support.same

-- A test with an endpoint in a kernel of its own.
local function with_redis(fn, config)
  return function()
    local kernel = iokernel.Kernel(config)
    local redis = kernel:open(support.server.url)
    local good, problem = pcall(fn, redis, kernel)
    kernel:close()
    if not good then
      error(problem, 0)
    end
  end
end

local function raised(fn, ...)
  local good, problem = pcall(fn, ...)
  check(not good, "nothing was raised")
  return problem
end

local tests = {}

tests[#tests + 1] = { "arguments of every kind and number", with_redis(function(redis)
  check(redis:call("SET", "t:n", 42) == "OK" and redis:call("GET", "t:n") == "42", "a number")
  check(redis:call("SET", "t:f", 0.1) == "OK" and redis:call("GET", "t:f") == "0.1", "a float")
  local binary = ("\0\1\255"):rep(100)
  redis:call("SET", iokernel.bytes("t:b"), iokernel.bytes(binary))
  check(redis:call("GET", "t:b") == binary, "bytes")
  redis:call("SET", "t:b", binary)
  check(redis:call("GET", "t:b") == binary, "bytes as text")
  local names = {}
  for count = 1, 40 do
    names[count] = "v" .. count
    redis:call("DEL", "t:l")
    check(redis:call("RPUSH", "t:l", (table.unpack or unpack)(names)) == count, "%d arguments", count)
    check(same(redis:call("LRANGE", "t:l", 0, -1), names), "%d arguments came back otherwise", count)
  end
  check(redis:call("GET", "t:none") == nil, "nil")
end) }

tests[#tests + 1] = { "a batch: one reply, errors in their places", with_redis(function(redis)
  local replies = redis:call({ "SET", "t:a", 1 }, { "INCR", "t:a" }, { "LPUSH", "t:a", "x" }, { "GET", "t:none" })
  check(replies[1] == "OK" and replies[2] == 2 and replies[4] == iokernel.null, replies)
  check(iokernel.is(replies[3], iokernel.RemoteError) and replies[3].code == "WRONGTYPE", "%s", replies[3])
end) }

tests[#tests + 1] = { "all: many at a time, in their order", with_redis(function(redis)
  local requests = {}
  for number = 1, 3000 do
    requests[number] = { "ECHO", number }
  end
  requests[7], requests[8], requests[9] = { "NOSUCH" }, { "GET", "t:none" }, { "SET", "t:all", "x", "EX", 60 }
  local replies = redis:all(requests)
  check(#replies == 3000, "%d replies", #replies)
  for number, reply in ipairs(replies) do
    if number < 7 or number > 9 then
      check(reply == tostring(number), "%s: expected %d", tostring(reply), number)
    end
  end
  check(iokernel.is(replies[7], iokernel.RemoteError) and replies[8] == iokernel.null and replies[9] == "OK", "others")
  check(#redis:all({}) == 0, "none")
  check(iokernel.is(raised(redis.all, redis, { { "GET", "a" }, { print } }), iokernel.BadRequest), "one that is none")
  check(redis:call("ECHO", "next") == "next", "the next one")
end) }

tests[#tests + 1] = { "futures: done, result, cancel, a result that is late", with_redis(function(redis)
  redis:wait_ready(5)
  local slow = redis("DEBUG", "SLEEP", "0.2")
  check(not slow:done() and not slow:cancelled() and tostring(slow):find("pending"), "%s", slow)
  local problem = raised(slow.result, slow, 0.02)
  check(iokernel.is(problem, iokernel.Timeout) and tostring(problem):find("goes on"), "%s", problem)
  check(slow:result() == "OK" and slow:done() and tostring(slow):find("done"), "it went on")
  check(slow:result() == "OK" and not slow:cancel(), "once more")
  local failed = redis("NOSUCH")
  check(iokernel.is(raised(failed.result, failed), iokernel.RemoteError), "it failed")
  local cancelled = redis("DEBUG", "SLEEP", "0.2")
  check(cancelled:cancel() and cancelled:cancelled() and not cancelled:cancel(), "cancelled")
  check(iokernel.is(raised(cancelled.result, cancelled), iokernel.Cancelled), "what it raises")
  check(redis:call("ECHO", "mine") == "mine", "the next one's reply")
end) }

tests[#tests + 1] = { "slots are used again, and none is lost", with_redis(function(redis, kernel)
  for round = 1, 50 do
    local futures = {}
    for number = 1, 40 do
      futures[number] = redis("ECHO", number)
    end
    for number = 1, 40, 3 do
      futures[number]:cancel()
    end
    for number = 1, 40 do
      if not futures[number]:cancelled() then
        check(futures[number]:result() == tostring(number), "round %d: a reply was another's", round)
      end
    end
  end
  redis:call("PING")
  check(kernel:channel().under_way == 0, "%d are under way", kernel:channel().under_way)
  check(kernel:channel().slots <= 100, "%d slots", kernel:channel().slots)
end) }

tests[#tests + 1] = { "send: nobody waits, and what fails is told", with_redis(function(redis)
  for number = 1, 100 do
    redis:send("SET", "t:sent", number)
  end
  check(redis:call("GET", "t:sent") == "100", "the last one")
end) }

tests[#tests + 1] = { "what was sent goes before the kernel is closed", function()
  local kernel = iokernel.Kernel()
  local redis = kernel:open(support.server.url)
  redis:wait_ready(5)
  redis:send("SET", "t:last", "words")
  kernel:close(1)
  with_redis(function(other)
    check(other:call("GET", "t:last") == "words", "it was lost")
  end)()
end }

tests[#tests + 1] = { "a message that is too large is refused, those beside it go", with_redis(function(redis, kernel)
  local before, large, after = redis("ECHO", "before"), redis("SET", "t:x", ("x"):rep(2000000)), redis("ECHO", "after")
  check(before:result() == "before" and after:result() == "after", "those beside it")
  local problem = raised(large.result, large)
  check(iokernel.is(problem, iokernel.BadRequest) and problem.fate == "not_sent", "%s", problem)
  check(kernel:channel().under_way == 0, "slots are left")
end, { channel = "max_request=1MiB" }) }

tests[#tests + 1] = { "large values both ways, beside small ones", with_redis(function(redis)
  local futures = {}
  for number = 1, 8 do
    local whole = tostring(number):rep(700000)
    redis:send("SET", "t:large" .. number, whole)
    futures[2 * number - 1], futures[2 * number] = redis("GET", "t:large" .. number), redis("ECHO", number)
  end
  for number = 1, 8 do
    check(futures[2 * number - 1]:result() == tostring(number):rep(700000), "a large one")
    check(futures[2 * number]:result() == tostring(number), "a small one")
  end
end) }

tests[#tests + 1] = { "leases are given back: after errors, by hand, when nobody holds them", with_redis(function(redis)
  local kept
  local problem = raised(redis.lease, redis, function(conn)
    kept = conn
    conn:call("MULTI")
    error("mine", 0)
  end)
  check(problem == "mine", "%s", problem)
  local closed = raised(kept.call, kept, "PING")
  check(iokernel.is(closed, iokernel.Closed) and closed.status_name == "NO_LEASE", "%s", closed)
  local first, second = redis:lease(function(conn)
    return conn:call("ECHO", "a"), conn:with({ timeout = 1 }):call("ECHO", "b")
  end)
  check(first == "a" and second == "b", "what the function returns")
  local lease = redis:lease()
  check(lease:call("CLIENT", "ID") > 0 and redis:state().leases == 1, "held")
  check(not pcall(lease.with, lease, { route = 7 }), "a route on a lease")
  lease:release()
  lease:release()
  lease = redis:lease()
  lease = nil
  collectgarbage()
  collectgarbage()
  redis:call("PING")
  for _ = 1, 100 do
    if redis:state().leases == 0 then
      break
    end
    support.process.sleep(0.01)
  end
  check(redis:state().leases == 0, "%d leases are held", redis:state().leases)
end) }

tests[#tests + 1] = { "wait_ready says why an endpoint is not up", function()
  local kernel = iokernel.Kernel()
  local nobody = kernel:open("redis://127.0.0.1:1", { connect_timeout = "50ms", require = true })
  local problem = raised(nobody.wait_ready, nobody, 0.2)
  check(iokernel.is(problem, iokernel.Unavailable) and problem.fate == "not_sent", "%s", problem)
  check(iokernel.is(raised(kernel.wait_ready, kernel, 0.05), iokernel.Unavailable), "the kernel's")
  check(kernel:state().ready == false and kernel:state().missing[1]:find("127.0.0.1:1", 1, true), "its state")
  check(nobody:state().state == "down" or nobody:state().state == "connecting", nobody:state().state)
  kernel:close()
end }

tests[#tests + 1] = { "peers that the program tells, and requests of one route", function()
  local kernel = iokernel.Kernel()
  local redis = kernel:open("redis+app://cache", { balance = "hash" })
  local problem = raised(redis.set_peers, redis, { "no address" })
  check(iokernel.is(problem, iokernel.BadRequest), "%s", problem)
  redis:set_peers({ "127.0.0.1:1" })
  check(redis:state().peers[1].name == "127.0.0.1:1", "its peers")
  kernel:close()
end }

tests[#tests + 1] = { "closing: an endpoint, a kernel, twice, with requests under way", function()
  local kernel = iokernel.Kernel()
  local redis = kernel:open(support.server.url)
  redis:wait_ready(5)
  local slow = redis("DEBUG", "SLEEP", "0.2")
  redis:close()
  check(iokernel.is(raised(slow.result, slow), iokernel.Closed), "under way")
  check(iokernel.is(raised(redis.call, redis, "PING"), iokernel.Closed) and redis:closed(), "later")
  redis:close()
  local other = kernel:open(support.server.url)
  check(other:call("PING") == "PONG", "the kernel lives on")
  kernel:close()
  kernel:close()
  other:close()
  check(kernel:closed() and iokernel.is(raised(other.call, other, "PING"), iokernel.Closed), "after the kernel's end")
  check(iokernel.is(raised(kernel.open, kernel, support.server.url), iokernel.Closed), "opening")
end }

return tests
