--- iokernel: all the networking of a program in one I/O thread that its interpreter cannot stall.
--
--   local iokernel = require("iokernel")
--   local cache = iokernel.open("redis://cache.internal")     -- returns at once
--   cache:call("SET", "greeting", "hello")                    -- blocks, or in a task lets others run
--   iokernel.run(function()
--     for number = 1, 100 do
--       iokernel.spawn(function() cache:call("INCR", "visits") end)
--     end
--   end)
local core = require("iokernel.core_of_runtime")
local cells = require("iokernel.cells")
local errors = require("iokernel.errors")
local Kernel = require("iokernel.kernel")
local tasks = require("iokernel.tasks")
local values = require("iokernel.values")

local iokernel = { _VERSION = "0.1.0" }

--- Which core runs: `"ffi"` in LuaJIT, `"c"` elsewhere.
iokernel.core = core.name

--- An I/O thread of one's own; see `iokernel.kernel`.
iokernel.Kernel = Kernel.open_new
--- The kernel of `open` and `listen`.
iokernel.default_kernel = Kernel.default
--- The kernel of another state, in another thread of this process; see `Kernel:share`.
iokernel.join = Kernel.join

--- Opens a service in the default kernel and returns at once; names, connections, heartbeats live from here on.
--
-- Options are those of the URL's query: `open("redis://host", {heartbeat = "5s", max_inflight = 200})`. Raises
-- ConfigError (with `key`, `value`, `expected`) for a URL or an option that is wrong; that the peer cannot be reached
-- is seen by requests, `wait_ready` and `state`.
function iokernel.open(url, options)
  return Kernel.default():open(url, options)
end

--- Listens in the default kernel: `listen("redis://127.0.0.1:0")`. `url()` of the result has the port. Raises
-- ConfigError for a URL or option that is wrong, Error if the system refuses the address.
function iokernel.listen(url, options)
  return Kernel.default():listen(url, options)
end

for _, kind in ipairs({ "counter", "sum", "gauge", "histogram", "marker" }) do
  --- As the kernel's, of the default one.
  iokernel[kind] = function(...)
    local kernel = Kernel.default()
    return kernel[kind](kernel, ...)
  end
end

--- The bounds of a histogram that is given none.
iokernel.BUCKETS = cells.BUCKETS

--- Tasks; see `iokernel.tasks`.
iokernel.run, iokernel.spawn, iokernel.sleep = tasks.run, tasks.spawn, tasks.sleep

--- Errors; see `iokernel.errors`. `is(problem, iokernel.Timeout)` tells whether something raised is one.
for _, name in ipairs({
  "Error",
  "RemoteError",
  "Timeout",
  "Unavailable",
  "ConnectionLost",
  "Overloaded",
  "Cancelled",
  "BadRequest",
  "ConfigError",
  "Closed",
}) do
  iokernel[name] = errors[name]
end
iokernel.is, iokernel.remote = errors.is, errors.remote

--- Values that Lua has no type for; see `iokernel.values`.
for _, name in ipairs({ "null", "map", "bytes", "set", "big", "attributed", "ext" }) do
  iokernel[name] = values[name]
end

return iokernel
