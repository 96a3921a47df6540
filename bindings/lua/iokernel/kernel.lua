--- Kernels: an I/O thread each, with the channel of this Lua state.
local abi = require("iokernel.abi")
local Channel = require("iokernel.channel")
local core = require("iokernel.core_of_runtime")
local errors = require("iokernel.errors")
local Future = require("iokernel.future")
local options = require("iokernel.options")
local tasks = require("iokernel.tasks")

local OP, FLAG, STATUS = abi.OP, abi.FLAG, abi.STATUS
local generation_of = core.generation

local Kernel = {}
Kernel.__index = Kernel

-- Kernels of this state, which a forked child tells of the fork.
local kernels = setmetatable({}, { __mode = "k" })
local generation = generation_of()
--- The default one is called so by those who look on.
local DEFAULT_NAME = "iokernel"
local default

local function failed(status)
  error(errors.of(status, { fate = 1, text = core.last_error() }), 0)
end

-- Lets this thread be asked where it is.
local is_followed = false
local function open_stack(handle)
  core.stack_open(handle)
  if core.stack_running and not is_followed then
    is_followed = true
    tasks.follow(core.stack_running)
  end
  if core.stack_running then
    core.stack_running(tasks.scheduled())
  end
end

local function open_handle(self)
  if self.is_closed then
    error(errors.of(STATUS.CLOSED, { fate = 1, text = "the kernel is closed" }), 0)
  end
  if not self.handle then
    local handle, status = core.kernel_open(self.config)
    if not handle then
      failed(status)
    end
    self.handle = handle
    if self.has_stack then
      open_stack(handle)
    end
  end
  return self.handle
end

local function make(fields)
  fields.names, fields.mortal, fields.series = {}, setmetatable({}, { __mode = "k" }), {}
  local self = setmetatable(fields, Kernel)
  kernels[self] = true
  return self
end

--- An I/O thread with everything it owns: `iokernel.Kernel{name = "web-1"}`. Usually the default one is enough.
--
-- `config` are the options of `iok_kernel_open`. Two more: `stack` lets the admin endpoint's `/stack` ask this thread
-- where it is, by a signal; it is on where `admin` is given. `channel` configures the channel of this state:
-- `channel = "ring=64KiB"`. In a forked child it starts anew at its first use. Raises ConfigError for a wrong option.
function Kernel.open_new(config)
  local given = {}
  for key, value in pairs(config or {}) do
    given[key] = value
  end
  local stack, channel = given.stack, given.channel
  given.stack, given.channel = nil, nil
  local self = make({ config = options.query(given), channel_config = channel })
  self.has_stack = stack == nil and given.admin ~= nil or stack == true
  open_handle(self)
  return self
end

--- The kernel of another state of this process, which told of it by `share`. To close it is the other's business.
function Kernel.join(token)
  local self = make({ config = "", is_joined = true })
  self.handle = core.kernel_join(token)
  return self
end

--- A word by which a state in another thread joins this kernel: `iokernel.join(word)`.
function Kernel:share()
  self:channel()
  return core.kernel_token(self.handle)
end

--- The kernel of `iokernel.open` and `iokernel.listen`, started at their first call. The environment variable
-- IOKERNEL_ADMIN gives it an admin endpoint, as `Kernel{admin = ...}` does.
function Kernel.default()
  if not default or default.is_closed then
    local admin = os.getenv("IOKERNEL_ADMIN")
    default = Kernel.open_new({ name = DEFAULT_NAME, admin = admin ~= "" and admin or nil })
  end
  return default
end

-- Forks

-- In a forked child nothing of the parent's is touched; everything opens again at its first use.
local function forget(self)
  if self.chan then
    self.chan:abandon(STATUS.FORKED)
  end
  if self.is_joined then
    self.is_closed = true
  end
  self.handle, self.chan, self.names, self.markers = nil, nil, {}, nil
  for one in pairs(self.mortal) do
    one.number = 0
  end
end

local function forked()
  generation = generation_of()
  core.stack_forget()
  for kernel in pairs(kernels) do
    forget(kernel)
  end
end

-- The channel

local function record_max(config)
  local size, unit = (config or ""):match("ring=(%d+)(%a*)")
  local units = { [""] = 1, KiB = 1024, MiB = 1048576 }
  return size and math.min(abi.RECORD_MAX, tonumber(size) * (units[unit] or 1) / 4)
end

local function open_channel(self)
  local handle = open_handle(self)
  self.chan = Channel.open(handle, self.names, self.channel_config, record_max(self.channel_config))
  if tasks.bridge then
    tasks.bridge.watch(self.chan)
  end
  return self.chan
end

--- The channel of this state. For what is inside of the binding.
function Kernel:channel()
  if generation_of() ~= generation then
    forked()
  end
  local channel = self.chan
  if channel and not channel.ended then
    return channel
  end
  return open_channel(self)
end

-- Waits for one operation, of which its endpoint's number matters too. `hear(value, number)` is told before anything
-- else of that endpoint comes.
local Outcome = setmetatable({}, { __index = Future })
Outcome.__index = Outcome

function Outcome:settle(value, problem)
  if not problem then
    local _, endpoint = self.channel.core:detail()
    self.endpoint = endpoint
    if self.hear then
      self.hear(value, endpoint)
    end
  end
  Future.settle(self, value, problem)
end

--- One operation, waiting for its end: its value, and the number of its endpoint. Raises what it failed with.
function Kernel:ask(op, flags, endpoint, timeout_ms, key, payload, hear)
  local channel = self:channel()
  local outcome = setmetatable(Future.new(channel), Outcome)
  outcome.hear = hear
  local slot, unsent = channel:submit(outcome, op, flags, endpoint, timeout_ms, key, payload)
  channel:scheduled(unsent)
  local good, value = pcall(outcome.result, outcome)
  if not good then
    channel:cancel(slot, outcome)
    error(value, 0)
  end
  return value, outcome.endpoint
end

--- Opens a service: its number. For what is inside of the binding.
function Kernel:open_number(url)
  local _, number = self:ask(OP.OPEN, 0, 0, 0, 0, url)
  self.names[number] = options.shown(url)
  return number
end

--- Waits until an endpoint is up; 0: every one that must be. Raises Unavailable when the time is over.
function Kernel:until_up(number, seconds)
  local good, problem = pcall(self.ask, self, OP.STATE, FLAG.UNTIL_UP, number, options.timeout_ms(seconds), 0, "")
  if good then
    return
  end
  if errors.is(problem, errors.Timeout) then
    local said = { problem.code, problem.message }
    problem = errors.of(STATUS.UNAVAILABLE, { fate = 1, endpoint = problem.endpoint, said = said })
  end
  error(problem, 0)
end

-- The surface

--- Opens a service; see `iokernel.open`.
function Kernel:open(url, given)
  return require("iokernel.endpoint").open(self, options.with(url, given))
end

--- Opens a listener; see `iokernel.listen`.
function Kernel:listen(url, given)
  return require("iokernel.listener").open(self, options.with(url, given))
end

-- Its payload is one value.
local Echo = setmetatable({}, { __index = Future })
Echo.__index = Echo

function Echo:settle(value, problem)
  Future.settle(self, value and core.unpack(value), problem)
end

--- A value there and back by way of the I/O thread, without any network: a future.
function Kernel:echo(value)
  local channel = self:channel()
  local future = setmetatable(Future.new(channel), Echo)
  local slot, unsent = channel:submit_value(future, OP.ECHO, 0, 0, 0, 0, value)
  future.slot = slot
  channel:scheduled(unsent)
  return future
end

--- How it is: `ready` (every endpoint opened with `require=true` is up), `missing` (the URLs of those that are not),
-- and `endpoints`, each with its `endpoint` (a number), `url`, `state` and `required`.
function Kernel:state()
  return (self:ask(OP.STATE, 0, 0, 0, 0, ""))
end

--- `state` at once, and again after every change; used as `Endpoint:watch`.
function Kernel:watch(buffer)
  return require("iokernel.subscription").watch(self, 0, buffer)
end

--- Waits until every endpoint opened with `require=true` is up. Raises Unavailable after `seconds` (nil: waits for as
-- long as it takes).
function Kernel:wait_ready(seconds)
  self:until_up(0, seconds or math.huge)
end

--- A counter of whole numbers: `kernel:counter("orders"):inc()`. See `iokernel.cells` for its options, and for `sum`,
-- `gauge` and `histogram`.
function Kernel:counter(name, given)
  return require("iokernel.cells").make(self, "counter", name, given)
end

function Kernel:sum(name, given)
  return require("iokernel.cells").make(self, "sum", name, given)
end

function Kernel:gauge(name, given)
  return require("iokernel.cells").make(self, "gauge", name, given)
end

function Kernel:histogram(name, given)
  return require("iokernel.cells").make(self, "histogram", name, given)
end

--- What the program is doing: `kernel:marker("render invoice", {id = 7}):around(fn)` shows `render invoice id=7` (56
-- bytes at most) to whoever asks meanwhile, and with each request submitted in it. See `iokernel.markers`.
function Kernel:marker(text, fields)
  return require("iokernel.markers").make(self, text, fields)
end

--- A descriptor for the loop of whoever embeds us: readable while `poll` has something to do. It is the kernel's: never
-- read, write or close it. Another one after the kernel was closed, and in a forked child.
function Kernel:fd()
  return self:channel():fd()
end

--- One turn for programs with a loop of their own: submits what is queued, takes what has completed, runs the tasks
-- that can go on. Waits for that at most `seconds` (nil or 0: not at all). Returns how many completions there were.
function Kernel:poll(seconds)
  self:channel():flush()
  return tasks.turn(seconds or 0)
end

--- Closes every endpoint and ends the I/O thread. Requests under way may finish for `drain` seconds (nil: 0); what is
-- left then fails with Closed. Bounded; twice is harmless.
function Kernel:close(drain)
  if generation_of() ~= generation then
    forked()
  end
  if self.is_closed then
    return
  end
  self.is_closed = true
  local handle, channel = self.handle, self.chan
  self.handle, self.chan = nil, nil
  if channel then
    channel:flush()
  end
  if handle and not self.is_joined then
    if self.has_stack then
      core.stack_close(handle)
    end
    core.kernel_close(handle, math.floor((drain or 0) * 1000))
  end
  if channel then
    channel:drain()
    channel:close()
  end
end

--- True after `close`.
function Kernel:closed()
  return self.is_closed == true
end

Kernel.__close = function(self) self:close() end
Kernel.__tostring = function(self)
  return ("iokernel.Kernel %s"):format(self.is_closed and "closed" or "open")
end

return Kernel
