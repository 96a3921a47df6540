--- What the Lua sources need of the library, for LuaJIT: plain C calls, and memory that no other thread writes.
--
-- Cursors of the ring are never read here: a trace would hoist the load out of its loop. `iokernel.core` is the same
-- for Lua 5.3 and later, in C.
local ffi = require("ffi")
local abi = require("iokernel.abi")
local codec = require("iokernel.codec_ffi")

ffi.cdef([[
typedef struct iok_kernel iok_kernel;
typedef struct iok_channel iok_channel;
typedef struct {
  uint32_t size; uint16_t op, flags; uint32_t endpoint, timeout_ms, tag_low, tag_high; uint64_t key;
  uint32_t bytes_total, marker;
} iok_submission;
typedef struct {
  uint32_t size; uint16_t kind, flags; uint32_t endpoint; int32_t status; uint32_t tag_low, tag_high, peer;
  uint8_t fate, encoding; uint16_t reserved; uint32_t bytes_total, reserved2; uint64_t times[4];
} iok_completion;
typedef struct { uint32_t serial, length; uint8_t text[56]; } iok_marker;
typedef struct { uint32_t tid, current, last, overflows, reserved[12]; iok_marker places[15]; } iok_markers;

uint32_t iok_abi_version(void);
int32_t iok_kernel_open(const char *config, iok_kernel **out);
int32_t iok_kernel_close(iok_kernel *kernel, uint32_t drain_ms);
int32_t iok_channel_open(iok_kernel *kernel, const char *config, iok_channel **out);
int32_t iok_channel_close(iok_channel *channel);
int32_t iok_channel_fd(const iok_channel *channel);
int32_t iok_channel_status(const iok_channel *channel);
int32_t iok_submit_batch(iok_channel *channel, const void *records, size_t bytes, size_t *taken);
int32_t iok_wait(iok_channel *channel, int32_t timeout_ms);
size_t iok_poll(iok_channel *channel, const iok_completion **first, size_t *bytes);
int32_t iok_advance(iok_channel *channel, size_t bytes);
int32_t iok_cells(iok_kernel *kernel, const char *spec, uint64_t **cells, uint32_t *count);
int32_t iok_marker_slot(iok_kernel *kernel, iok_markers **out);
int32_t iok_stack_open(iok_kernel *kernel, int32_t *signal, int32_t *fd);
int32_t iok_stack_arm(iok_kernel *kernel, uint32_t flags);
int32_t iok_stack_close(iok_kernel *kernel, bool *restored);
const char *iok_status_name(int32_t status);
const char *iok_status_text(int32_t status);
const char *iok_last_error(void);

struct iok_pollfd { int fd; short events, revents; };
int poll(struct iok_pollfd *fds, unsigned long count, int timeout_ms);
struct iok_timespec { long seconds, nanoseconds; };
int clock_gettime(int clock, struct iok_timespec *time);
void *mmap(void *at, size_t bytes, int protection, int flags, int fd, long offset);
int madvise(void *at, size_t bytes, int advice);
]])

local C = ffi.C
local cast, new, text = ffi.cast, ffi.new, ffi.string
local put, put_list_head, get_whole = codec.put, codec.put_list_head, codec.get_whole
local select, tonumber = select, tonumber

local SUBMISSION_BYTES, COMPLETION_BYTES = 40, 72
local MORE, TICK, MSGPACK, NONE = abi.FLAG.MORE, abi.KIND.TICK, 1, 0
local OK, TOO_LARGE, CLOSED, PROTOCOL, INTERRUPTED = 0, -108, -103, -304, -205
local OWN_TAG = abi.OWN_TAG
local KEPT_BYTES, FIRST_ROOM, FRONT_BYTES = 1048576, 65536, 32768

local submission = ffi.typeof("iok_submission *")
local completion = ffi.typeof("const iok_completion *")
local bytes_at = ffi.typeof("const uint8_t *")

assert(ffi.sizeof("iok_submission") == SUBMISSION_BYTES and ffi.sizeof("iok_completion") == COMPLETION_BYTES)

local core = { name = "ffi", pack = codec.pack, unpack = codec.unpack, setup = codec.setup }
local lib

--- Finds the functions in the library. Raises an error if it is none of this ABI.
function core.load(path)
  if lib then
    return
  end
  local loaded = ffi.load(path)
  local version = loaded.iok_abi_version()
  if version ~= 1 then
    error(("%s: ABI version %d: expected 1"):format(path, version), 0)
  end
  lib = loaded
end

-- Kernels

local Kernel = {}
Kernel.__index = Kernel

-- Nobody holds it any more, or the state ends: what is under way may finish for a moment.
local function end_kernel(handle)
  lib.iok_kernel_close(handle, 200)
end

--- A kernel, or nil and a status.
function core.kernel_open(config)
  local out = new("iok_kernel *[1]")
  local status = lib.iok_kernel_open(config, out)
  if status ~= OK then
    return nil, status
  end
  return setmetatable({ handle = ffi.gc(out[0], end_kernel) }, Kernel)
end

--- The kernel that another state of this process told of by `kernel_token`.
function core.kernel_join(token)
  return setmetatable({ handle = cast("iok_kernel *", tonumber(token, 16)) }, Kernel)
end

--- A word by which other states of this process find the kernel.
function core.kernel_token(kernel)
  return ("%x"):format(tonumber(cast("uintptr_t", kernel.handle)))
end

--- A status.
function core.kernel_close(kernel, drain_ms)
  ffi.gc(kernel.handle, nil)
  return lib.iok_kernel_close(kernel.handle, drain_ms)
end

function core.status_name(status)
  return text(lib.iok_status_name(status))
end

function core.status_text(status)
  return text(lib.iok_status_text(status))
end

function core.last_error()
  return text(lib.iok_last_error())
end

-- Time, forks, waiting for several descriptors

local MONOTONIC, THREAD_CPU = 1, 3
local time = new("struct iok_timespec[1]")

local function seconds(clock)
  C.clock_gettime(clock, time)
  return tonumber(time[0].seconds) + tonumber(time[0].nanoseconds) / 1e9
end

--- Seconds of a clock that only goes forward.
function core.now()
  return seconds(MONOTONIC)
end

--- Seconds of CPU time that this thread has used.
function core.thread_cpu()
  return seconds(THREAD_CPU)
end

-- A page that reads as 0 in a forked child. A fork is a call, so no trace keeps its value over one.
local PAGE_BYTES, READ_AND_WRITE, PRIVATE_ANONYMOUS, WIPE_ON_FORK = 4096, 3, 0x22, 18
local page = cast("uint32_t *", C.mmap(nil, PAGE_BYTES, READ_AND_WRITE, PRIVATE_ANONYMOUS, -1, 0))
assert(cast("intptr_t", page) ~= -1 and C.madvise(page, PAGE_BYTES, WIPE_ON_FORK) == 0, "no memory for a page")
local forks = 0
page[0] = 1

--- Another number in a forked child.
function core.generation()
  if page[0] == 0 then
    page[0], forks = 1, forks + 1
  end
  return forks
end

--- How many of the descriptors are readable; -1 if a signal came.
function core.poll_fds(fds, timeout_ms)
  local set = new("struct iok_pollfd[?]", #fds)
  for at = 1, #fds do
    set[at - 1].fd, set[at - 1].events = fds[at], 1
  end
  return C.poll(set, #fds, timeout_ms)
end

-- Channels

local Channel = {}
Channel.__index = Channel

--- A channel, or nil and a status.
function core.channel_open(kernel, config, record_max)
  local out = new("iok_channel *[1]")
  local status = lib.iok_channel_open(kernel.handle, config, out)
  if status ~= OK then
    return nil, status
  end
  return setmetatable({
    handle = ffi.gc(out[0], lib.iok_channel_close),
    writer = codec.writer(FIRST_ROOM),
    queued = 0,
    taken = 0,
    record_max = record_max,
    marker = 0,
    first = new("const iok_completion *[1]"),
    bytes = new("size_t[1]"),
    run = false,
    run_at = 0,
    run_bytes = 0,
    last_at = 0,
    assemblies = {},
    assembling = 0,
  }, Channel)
end

-- Submitting

-- Room for a head at the end of what is queued. Where the payload begins.
local function begin(self)
  local at = self.queued + SUBMISSION_BYTES
  local writer = self.writer
  if writer.room < at then
    codec.grow(writer, at - SUBMISSION_BYTES, SUBMISSION_BYTES)
  end
  return writer, at
end

local function put_head(place, size, op, flags, endpoint, timeout_ms, high, low, key, total, marker)
  local head = cast(submission, place)
  head.size, head.op, head.flags, head.endpoint, head.timeout_ms = size, op, flags, endpoint, timeout_ms
  head.tag_low, head.tag_high, head.key, head.bytes_total, head.marker = low, high, key, total, marker
end

-- Cuts a message that is larger than a record into several, the last piece first, so that nothing is overwritten.
local function cut(self, stop, op, flags, endpoint, timeout_ms, high, low, key)
  local start, writer, step = self.queued, self.writer, self.record_max - SUBMISSION_BYTES
  local payload = stop - start - SUBMISSION_BYTES
  local pieces = math.ceil(payload / step)
  codec.grow(writer, stop, pieces * SUBMISSION_BYTES + 8)
  local first = writer.buf + start
  for piece = pieces - 1, 0, -1 do
    local bytes = piece < pieces - 1 and step or payload - piece * step
    local place = first + piece * self.record_max
    -- Pieces move towards the end by less than their size, and overlap themselves.
    ffi.C.memmove(place + SUBMISSION_BYTES, first + SUBMISSION_BYTES + piece * step, bytes)
    local total, marked = piece == 0 and payload or 0, flags + (piece < pieces - 1 and MORE or 0)
    put_head(place, SUBMISSION_BYTES + bytes, op, marked, endpoint, timeout_ms, high, low, key, total, self.marker)
  end
  return stop + (pieces - 1) * SUBMISSION_BYTES
end
ffi.cdef("void *memmove(void *to, const void *from, size_t count);")

-- The message is written up to `stop`: it is queued. An error before leaves nothing behind.
local function finish(self, stop, op, flags, endpoint, timeout_ms, high, low, key)
  local start = self.queued
  local size = stop - start
  if size <= self.record_max then
    put_head(self.writer.buf + start, size, op, flags, endpoint, timeout_ms, high, low, key, 0, self.marker)
  else
    stop = cut(self, stop, op, flags, endpoint, timeout_ms, high, low, key)
  end
  local queued = stop + -stop % 8
  self.queued = queued
  return queued - self.taken
end

-- More arguments than a trace passes on one by one.
local function put_all(writer, at, count, ...)
  local values = { ... }
  for index = 1, count do
    at = put(writer, at, values[index])
  end
  return at
end

--- Queues a request of these arguments. Returns how many bytes are queued. Raises an error for what cannot be packed.
function Channel:put(op, flags, endpoint, timeout_ms, high, low, key, ...)
  local writer, at = begin(self)
  local count = select("#", ...)
  at = put_list_head(writer, at, count)
  if count <= 4 then
    local first, second, third, fourth = ...
    if count > 0 then
      at = put(writer, at, first)
    end
    if count > 1 then
      at = put(writer, at, second)
    end
    if count > 2 then
      at = put(writer, at, third)
    end
    if count > 3 then
      at = put(writer, at, fourth)
    end
  else
    at = put_all(writer, at, count, ...)
  end
  return (finish(self, at, op, flags, endpoint, timeout_ms, high, low, key))
end

--- Its payload is one value.
function Channel:put_value(op, flags, endpoint, timeout_ms, high, low, key, value)
  local writer, at = begin(self)
  at = put(writer, at, value)
  return (finish(self, at, op, flags, endpoint, timeout_ms, high, low, key))
end

--- Its payload are these bytes.
function Channel:put_bytes(op, flags, endpoint, timeout_ms, high, low, key, payload)
  local writer, at = begin(self)
  if writer.room < at + #payload then
    codec.grow(writer, at, #payload)
  end
  ffi.copy(writer.buf + at, payload, #payload)
  return (finish(self, at + #payload, op, flags, endpoint, timeout_ms, high, low, key))
end

local function aligned(size)
  return size + -size % 8
end

-- Passes over the message that was not taken. Its tag's halves and its endpoint.
local function refused(self)
  local head = cast(submission, self.writer.buf + self.taken)
  local high, low, endpoint = head.tag_high, head.tag_low, head.endpoint
  repeat
    head = cast(submission, self.writer.buf + self.taken)
    self.taken = self.taken + aligned(head.size)
  until head.flags % 2 == 0 or self.taken >= self.queued
  return TOO_LARGE, high, low, endpoint
end

-- Everything is taken: begins at the front of the buffer again. Not after each flush, for a trace that knows the
-- position to be 0 in its next round would find types that differ.
local function to_the_front(self)
  self.taken, self.queued = 0, 0
  if self.writer.room > KEPT_BYTES then
    self.writer = codec.writer(FIRST_ROOM)
  end
end

--- Submits what is queued, as much as fits. A status; where a message is too large, also what it was: its tag's halves
-- and its endpoint. What follows it is submitted by the next call.
function Channel:flush()
  local taken, queued = self.taken, self.queued
  if taken == queued then
    return OK
  end
  local bytes = self.bytes
  local status = lib.iok_submit_batch(self.handle, self.writer.buf + taken, queued - taken, bytes)
  if status == OK then
    self.taken = queued
    if queued > FRONT_BYTES then
      to_the_front(self)
    end
    return OK
  end
  self.taken = taken + tonumber(bytes[0])
  if status == TOO_LARGE then
    return refused(self)
  end
  return status
end

--- Bytes that are queued.
function Channel:unsent()
  return self.queued - self.taken
end

-- Completing

-- A signal's hook runs where the interpreter looks for one; traces never look.
local function let_hooks_run()
  return INTERRUPTED
end
jit.off(let_hooks_run)

--- Sleeps until something has completed. A status.
function Channel:wait(timeout_ms)
  local status = lib.iok_wait(self.handle, timeout_ms)
  if status == INTERRUPTED then
    return let_hooks_run()
  end
  return status
end

-- The next run of completions. False if there is none.
local function next_run(self)
  if not self.handle then
    return false
  end
  if self.run then
    lib.iok_advance(self.handle, self.run_bytes)
  end
  self.run_at = 0
  if lib.iok_poll(self.handle, self.first, self.bytes) == 0 then
    self.run, self.run_bytes = false, 0
    return false
  end
  self.run, self.run_bytes = cast(bytes_at, self.first[0]), tonumber(self.bytes[0])
  return true
end

-- The status and the value of a payload.
local function decoded(status, encoding, payload, bytes)
  if encoding == MSGPACK then
    local good, value = pcall(get_whole, payload, bytes)
    if good then
      return status, value
    end
    return PROTOCOL, nil
  elseif encoding == NONE then
    return status, nil
  end
  return status, text(payload, bytes)
end

-- Keeps a fragment. The whole message, if it was the last one.
local function assemble(self, record, payload, bytes, is_last)
  local tag = record.tag_high * 4294967296 + record.tag_low
  local whole = self.assemblies[tag]
  if not whole then
    whole = { data = new("uint8_t[?]", record.bytes_total), count = 0 }
    self.assemblies[tag] = whole
    self.assembling = self.assembling + 1
  end
  assert(whole.count + bytes <= ffi.sizeof(whole.data), "fragments are larger than their message")
  ffi.copy(whole.data + whole.count, payload, bytes)
  whole.count = whole.count + bytes
  if is_last then
    self.assemblies[tag] = nil
    self.assembling = self.assembling - 1
    return whole
  end
end

local function next_of_fragments(self, record, payload, bytes)
  local tag = record.tag_high * 4294967296 + record.tag_low
  local is_last = record.flags % 2 == 0
  local status, value
  if is_last and not self.assemblies[tag] then
    status, value = decoded(record.status, record.encoding, payload, bytes)
  else
    local whole = assemble(self, record, payload, bytes, is_last)
    if not whole then
      return self:next()
    end
    status, value = decoded(record.status, record.encoding, cast(bytes_at, whole.data), whole.count)
  end
  return record.tag_high == OWN_TAG and record.kind or -record.kind, record.tag_low, status, value
end

--- The next completion: its kind (negative where the tag is the kernel's own), the lower half of its tag, its status,
-- its value. Nothing if there is none.
function Channel:next()
  if self.run_at == self.run_bytes and not next_run(self) then
    return nil
  end
  local at = self.run_at
  local place = self.run + at
  local record = cast(completion, place)
  local size = record.size
  self.run_at, self.last_at = at + size + -size % 8, at
  local kind, payload, bytes = record.kind, place + COMPLETION_BYTES, size - COMPLETION_BYTES
  if kind == TICK then
    return self:next()
  end
  if self.assembling ~= 0 or record.flags % 2 ~= 0 then
    return next_of_fragments(self, record, payload, bytes)
  end
  local status, value = record.status, nil
  local encoding = record.encoding
  if encoding > MSGPACK then
    value = text(payload, bytes)
  elseif encoding == MSGPACK then
    status, value = decoded(status, encoding, payload, bytes)
  end
  return record.tag_high == OWN_TAG and kind or -kind, record.tag_low, status, value
end

--- Of the last completion: the upper half of its tag, its endpoint, peer, fate and payload bytes.
function Channel:detail()
  if not self.run then
    return 0, 0, 0, 0, 0
  end
  local last = cast(completion, self.run + self.last_at)
  local bytes = last.bytes_total ~= 0 and last.bytes_total or last.size - COMPLETION_BYTES
  return last.tag_high, last.endpoint, last.peer, last.fate, bytes
end

function Channel:fd()
  return self.handle and lib.iok_channel_fd(self.handle) or -1
end

--- What ended it, or 0 while it lives.
function Channel:status()
  return self.handle and lib.iok_channel_status(self.handle) or CLOSED
end

--- The number of the marker that submissions carry from here on.
function Channel:set_marker(serial)
  self.marker = serial
end

--- Closes it. Twice is harmless.
function Channel:close()
  local handle = self.handle
  if handle then
    self.handle, self.run, self.run_at, self.run_bytes = false, false, 0, 0
    lib.iok_channel_close(ffi.gc(handle, nil))
  end
end

--- Two halves as a key of a submission.
function core.word(high, low)
  return cast("uint64_t", high) * cast("uint64_t", 4294967296) + low
end

-- Cells

local Cells = {}
Cells.__index = Cells

--- The cells of a series, or nil and a status.
function core.cells(kernel, spec)
  local at, count = new("uint64_t *[1]"), new("uint32_t[1]")
  local status = lib.iok_cells(kernel.handle, spec, at, count)
  if status ~= OK then
    return nil, status
  end
  return setmetatable({ whole = at[0], float = cast("double *", at[0]), count = count[0] }, Cells)
end

-- 0 is the first, below 0 counts from the end.
local function index(self, at)
  if at < 0 then
    at = at + self.count
  end
  assert(at >= 0 and at < self.count, "there is no such cell")
  return at
end

function Cells:add(at, more)
  at = index(self, at)
  self.whole[at] = self.whole[at] + more
end

function Cells:add_float(at, more)
  at = index(self, at)
  self.float[at] = self.float[at] + more
end

function Cells:set_float(at, value)
  self.float[index(self, at)] = value
end

function Cells:get(at)
  return tonumber(self.whole[index(self, at)])
end

function Cells:get_float(at)
  return self.float[index(self, at)]
end

-- Markers

local Markers = {}
Markers.__index = Markers

local PLACES, ACTIVE, COUNTS = 15, 0x80000000, 0x4000000

--- This thread's slot, or nil and a status.
function core.markers(kernel)
  local out = new("iok_markers *[1]")
  local status = lib.iok_marker_slot(kernel.handle, out)
  if status ~= OK then
    return nil, status
  end
  return setmetatable({ slot = out[0] }, Markers)
end

--- The place (from 0) and the serial of a marker; -1 and 0 if no place is left.
function Markers:enter(label)
  local slot = self.slot
  local serial = (slot.last + 1) % COUNTS
  serial = serial == 0 and 1 or serial
  for tried = 0, PLACES - 1 do
    local at = (serial + tried) % PLACES
    local place = slot.places[at]
    if place.length < ACTIVE then
      serial = slot.last - slot.last % COUNTS + serial
      slot.last = serial
      place.serial = 0
      -- A copy is a barrier to the compiler of traces.
      ffi.copy(place.text, label, #label)
      cast("uint64_t *", place)[0] = core.word(#label + ACTIVE, serial)
      return at, serial
    end
  end
  slot.overflows = slot.overflows + 1
  return -1, 0
end

function Markers:leave(at, serial)
  local place = at >= 0 and self.slot.places[at]
  if place and place.serial == serial and place.length >= ACTIVE then
    place.length = place.length - ACTIVE
  end
end

--- What this thread is doing from here on; 0: nothing.
function Markers:set_current(serial)
  self.slot.current = serial
end

-- Stacks: native frames alone. A handler would have to be C, and a hook runs in the interpreter only.

--- Lets the admin endpoint ask this process's threads where they are. A status.
function core.stack_open(kernel)
  local signal, fd = new("int32_t[1]"), new("int32_t[1]")
  local status = lib.iok_stack_open(kernel.handle, signal, fd)
  return status == OK and lib.iok_stack_arm(kernel.handle, 0) or status
end

--- Ends what `stack_open` began.
function core.stack_close(kernel)
  lib.iok_stack_close(kernel.handle, new("bool[1]"))
end

function core.stack_forget() end

core.stack_running = false

return core
