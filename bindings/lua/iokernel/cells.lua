--- Counters, sums, gauges and histograms: cells of shared memory that count without a call into the library's thread.
--
-- `kernel:counter("orders", {help =, unit =, labels = {shop = "north"}})`; a gauge takes `merge` too (`"sum"`, `"max"`
-- or `"min"`: what several processes make), a histogram `buckets` (upper bounds, growing, 128 at most). The same name
-- and labels give the same object. They survive forks, and the kernel. A `_total` at the end of a name is left out, as
-- exporters add it. Raises ConfigError for a wrong name, unit or label.
--
-- In LuaJIT an addition is a load and a store: threads of one process that count in the same series need labels that
-- tell them apart.
local core = require("iokernel.core_of_runtime")
local errors = require("iokernel.errors")
local options = require("iokernel.options")

local cells = {}

--- The bounds of a histogram that is given none: for times in seconds.
cells.BUCKETS = { 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10 }

local function number(value)
  if type(value) ~= "number" or value ~= value or value == math.huge or value == -math.huge then
    error(("%s: expected a number that is finite"):format(tostring(value)), 3)
  end
  return value
end

-- A whole number as an integer, where the interpreter tells them from floats.
local function whole(value)
  if number(value) < 0 or value % 1 ~= 0 then
    error(("%s: expected a whole number from 0 on"):format(tostring(value)), 3)
  end
  return math.tointeger and math.tointeger(value) or value
end

--- Counts whole numbers: `inc(n)`, 1 unless given.
local Counter = {}
Counter.__index = Counter

function Counter:inc(more)
  self.cells:add(0, more == nil and 1 or whole(more))
end

--- This process's part. It begins where a process that has ended left it: only its growth means anything.
function Counter:value()
  return self.cells:get(0)
end

--- Adds up what is no whole number, such as seconds: `inc(0.25)`.
local Sum = {}
Sum.__index = Sum

function Sum:inc(more)
  if number(more) < 0 then
    error(("%s: expected a number from 0 on"):format(tostring(more)), 2)
  end
  self.cells:add_float(0, more)
end

function Sum:value()
  return self.cells:get_float(0)
end

--- What goes up and down: `set(value)`, `inc(n)`, `dec(n)`. Each process has its own, which begins at 0.
local Gauge = {}
Gauge.__index = Gauge

function Gauge:set(value)
  self.cells:set_float(0, number(value))
end

function Gauge:inc(more)
  self.cells:add_float(0, more == nil and 1 or number(more))
end

function Gauge:dec(less)
  self.cells:add_float(0, less == nil and -1 or -number(less))
end

function Gauge:value()
  return self.cells:get_float(0)
end

--- How values are distributed: `observe(value)`, `time(fn, ...)`.
local Histogram = {}
Histogram.__index = Histogram

function Histogram:observe(value)
  number(value)
  local bounds = self.buckets
  local at = 1
  while at <= #bounds and value > bounds[at] do
    at = at + 1
  end
  self.cells:add(at - 1, 1)
  self.cells:add_float(-1, value)
end

local function observed(self, started, good, ...)
  self:observe(core.now() - started)
  if not good then
    error((...), 0)
  end
  return ...
end

--- Calls a function, and observes how long it took, in seconds; also if it fails. Returns what it returns.
function Histogram:time(fn, ...)
  return observed(self, core.now(), pcall(fn, ...))
end

local CLASSES = { counter = Counter, sum = Sum, gauge = Gauge, histogram = Histogram }

local function bounds_of(given)
  local bounds, texts = {}, {}
  for at, bound in ipairs(given or cells.BUCKETS) do
    if bound < math.huge then
      bounds[at], texts[at] = bound, ("%.17g"):format(bound)
    end
  end
  return bounds, table.concat(texts, ",")
end

--- See above, and `Kernel:counter`.
function cells.make(kernel, kind, name, given)
  given = given or {}
  local spec = { kind = kind, name = name, help = given.help, unit = given.unit, merge = given.merge }
  for label, value in pairs(given.labels or {}) do
    spec["label." .. label] = tostring(value)
  end
  local bounds
  if kind == "histogram" then
    bounds, spec.buckets = bounds_of(given.buckets)
  end
  local text = options.query(spec)
  local found = kernel.series[text]
  if found then
    return found
  end
  kernel:channel()
  local made, status = core.cells(kernel.handle, text)
  if not made then
    error(errors.of(status, { fate = 1, text = core.last_error() }), 0)
  end
  found = setmetatable({ name = name, cells = made, buckets = bounds }, CLASSES[kind])
  kernel.series[text] = found
  return found
end

return cells
