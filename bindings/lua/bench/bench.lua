--- Us and the clients that Lua's users would pick, side by side: `IOK_REDIS=redis://127.0.0.1:6379 luajit bench.lua`.
--
-- One line of JSON for each case and side: `per_second` (the median of the rounds) and `best`, `cpu_ns`, what the
-- program's own thread used for each message, waiting included, or `p50_us`. The sides take turns, so that what the
-- machine does besides meets all.
local folder = arg[0]:match("^(.*)/[^/]*$") or "."
package.path = folder .. "/?.lua;" .. folder .. "/../tests/?.lua;" .. package.path

local support = require("support")
local iokernel = require("iokernel")
local abi = require("iokernel.abi")
local core = require("iokernel.core_of_runtime")
local peers = require("peers")

local URL = assert(os.getenv("IOK_REDIS"), "IOK_REDIS: expected the URL of a Redis, over TCP")
local ROUNDS = tonumber(os.getenv("IOK_ROUNDS") or 7)
local OUTSTANDING, DEPTH = 256, 100
local runtime = support.is_jit and "LuaJIT" or _VERSION

local kernel = iokernel.Kernel()
local redis = kernel:open(URL)
redis:wait_ready(5)
redis:call("SET", "key", ("x"):rep(100))

local function median(list)
  table.sort(list)
  return list[math.floor((#list + 1) / 2)]
end

-- The sides of a case take turns; each is a function that works once, and how many messages that are.
local function compare(case, sides)
  local rates, costs = {}, {}
  for _, side in ipairs(sides) do
    rates[side], costs[side] = {}, {}
    side.work()
  end
  for round = 1, ROUNDS do
    for _, side in ipairs(sides) do
      local cpu, started = core.thread_cpu(), core.now()
      side.work()
      local took, used = core.now() - started, core.thread_cpu() - cpu
      rates[side][round], costs[side][round] = side.count / took, used * 1e9 / side.count
    end
  end
  for _, side in ipairs(sides) do
    local middle = median(rates[side])
    print(('{"case": "%s", "side": "%s", "runtime": "%s", "per_second": %.0f, "best": %.0f, "cpu_ns": %.1f}'):format(
      case, side.name, runtime, middle, rates[side][#rates[side]], median(costs[side])))
    io.stdout:flush()
  end
end

-- Echoes: what a message costs the program's thread

local ECHOES = 400 * OUTSTANDING

-- Counts what is under way.
local UnderWay = {}
UnderWay.__index = UnderWay

function UnderWay:settle()
  self.count = self.count - 1
end

local function submit(channel, waiter, count)
  for _ = 1, count do
    channel:request(waiter, abi.OP.ECHO, 0, 0, 0, 0)
  end
  waiter.count = waiter.count + count
end

-- A window that slides, as the same case in C has it.
local function echo_bare()
  local channel, waiter, done = kernel:channel(), setmetatable({ count = 0 }, UnderWay), 0
  while done < ECHOES do
    submit(channel, waiter, math.min(OUTSTANDING - waiter.count, ECHOES - done - waiter.count))
    channel:flush()
    local count = channel:drain()
    if count == 0 then
      channel:wait(-1)
    end
    done = done + count
  end
end

local function echo_futures()
  local futures = {}
  for _ = 1, ECHOES / OUTSTANDING do
    for at = 1, OUTSTANDING do
      futures[at] = kernel:echo(at)
    end
    for at = 1, OUTSTANDING do
      futures[at]:result()
    end
  end
end

compare("no-op, 256 outstanding", {
  { name = "iokernel, channel", work = echo_bare, count = ECHOES },
  { name = "iokernel, futures", work = echo_futures, count = ECHOES },
})

-- GETs, 100 in flight

local GETS = 400 * DEPTH

local requests = {}
for at = 1, DEPTH do
  requests[at] = { "GET", "key" }
end

local function get_all()
  for _ = 1, GETS / DEPTH do
    assert(#redis:all(requests)[DEPTH] == 100)
  end
end

local function get_futures()
  local futures = {}
  for _ = 1, GETS / DEPTH do
    for at = 1, DEPTH do
      futures[at] = redis("GET", "key")
    end
    for at = 1, DEPTH do
      assert(#futures[at]:result() == 100)
    end
  end
end

local function get_tasks()
  iokernel.run(function()
    for _ = 1, DEPTH do
      iokernel.spawn(function()
        for _ = 1, GETS / DEPTH do
          assert(#redis:call("GET", "key") == 100)
        end
      end)
    end
  end)
end

local function get_batch()
  local unpack = table.unpack or unpack
  for _ = 1, GETS / DEPTH do
    assert(#redis:call(unpack(requests))[DEPTH] == 100)
  end
end

local sides = {
  { name = "iokernel, all", work = get_all, count = GETS },
  { name = "iokernel, tasks", work = get_tasks, count = GETS },
  { name = "iokernel, futures", work = get_futures, count = GETS },
  { name = "iokernel, batch", work = get_batch, count = GETS },
}
local found = peers.open(URL)
for _, peer in ipairs(found) do
  sides[#sides + 1] = peer.pipeline and {
    name = peer.name .. ", pipeline",
    count = GETS,
    work = function()
      for _ = 1, GETS / DEPTH do
        peer.pipeline(DEPTH)
      end
    end,
  }
end
compare("GET, 100 in flight", sides)

-- GETs, one at a time

local CALLS = 3000

local function p50(get)
  local times = {}
  for at = 1, CALLS do
    local started = core.now()
    get()
    times[at] = (core.now() - started) * 1e6
  end
  return median(times)
end

local blocking = { { name = "iokernel", get = function() return redis:call("GET", "key") end } }
for _, peer in ipairs(found) do
  blocking[#blocking + 1] = peer
end
local times = {}
for round = 0, ROUNDS do
  for _, side in ipairs(blocking) do
    times[side] = times[side] or {}
    times[side][round] = p50(side.get)
  end
end
for _, side in ipairs(blocking) do
  local middle = median(times[side])
  print(('{"case": "GET, one at a time", "side": "%s", "runtime": "%s", "per_second": %.0f, "p50_us": %.1f}'):format(
    side.name, runtime, 1e6 / middle, middle))
end

kernel:close()
