--- MessagePack by LuaJIT's FFI: into a buffer that grows, out of the bytes of a ring.
--
-- Debian's MessagePack modules are for other interpreters or make a string of each value first; here a request is
-- written into the batch, and a reply read from the ring, once. Traces cover both.
local bit = require("bit")
local ffi = require("ffi")

local cast, copy, fill, new, text = ffi.cast, ffi.copy, ffi.fill, ffi.new, ffi.string
local band, bswap, lshift, tobit = bit.band, bit.bswap, bit.lshift, bit.tobit
local floor, type = math.floor, type

local DEPTH_MAX = 128
local EXACT = 2 ^ 53

local codec = {}

local number = new("union { double as_double; float as_float; uint32_t half[2]; uint64_t whole; int64_t with_sign; }")
local words = ffi.typeof("uint32_t *")
local buffer = ffi.typeof("uint8_t[?]")

local map_metatable, null, decode_ext, fail

--- See `values.install`.
function codec.setup(given)
  map_metatable, null, decode_ext, fail = given.map, given.null, given.ext, given.fail
end

-- Writing. A writer has `buf`, `room`; positions are passed on and returned.

--- A writer with some room.
function codec.writer(room)
  return { buf = new(buffer, room), room = room }
end

local function grow(writer, at, more)
  local room = writer.room
  while room < at + more do
    room = room * 2
  end
  local bigger = new(buffer, room)
  copy(bigger, writer.buf, at)
  writer.buf, writer.room = bigger, room
end
codec.grow = grow

-- Two bytes, four bytes.
local function put16(buf, at, value)
  buf[at], buf[at + 1] = floor(value / 256), value % 256
end

local function put32(buf, at, value)
  cast(words, buf + at)[0] = bswap(tobit(value))
end

local function put_sized(writer, at, data, count, type8)
  if writer.room < at + count + 5 then
    grow(writer, at, count + 5)
  end
  local buf = writer.buf
  if count < 256 then
    buf[at], buf[at + 1] = type8, count
    at = at + 2
  elseif count < 65536 then
    buf[at] = type8 + 1
    put16(buf, at + 1, count)
    at = at + 3
  else
    buf[at] = type8 + 2
    put32(buf, at + 1, count)
    at = at + 5
  end
  copy(buf + at, data, count)
  return at + count
end

local function put_text(writer, at, value)
  local count = #value
  if count >= 32 then
    return (put_sized(writer, at, value, count, 0xd9))
  end
  if writer.room < at + count + 1 then
    grow(writer, at, count + 1)
  end
  local buf = writer.buf
  buf[at] = 0xa0 + count
  copy(buf + at + 1, value, count)
  return at + 1 + count
end

local function put_double(buf, at, value)
  buf[at] = 0xcb
  number.as_double = value
  cast(words, buf + at + 1)[0] = bswap(tobit(number.half[1]))
  cast(words, buf + at + 5)[0] = bswap(tobit(number.half[0]))
  return at + 9
end

-- A whole number of either sign.
local function put_whole(buf, at, value)
  if value >= 0 then
    if value < 0x80 then
      buf[at] = value
      return at + 1
    elseif value < 0x100 then
      buf[at], buf[at + 1] = 0xcc, value
      return at + 2
    elseif value < 0x10000 then
      buf[at] = 0xcd
      put16(buf, at + 1, value)
      return at + 3
    elseif value < 0x100000000 then
      buf[at] = 0xce
      put32(buf, at + 1, value)
      return at + 5
    end
    buf[at] = 0xcf
  else
    if value >= -32 then
      buf[at] = value + 256
      return at + 1
    elseif value >= -0x80 then
      buf[at], buf[at + 1] = 0xd0, value + 256
      return at + 2
    elseif value >= -0x8000 then
      buf[at] = 0xd1
      put16(buf, at + 1, value + 65536)
      return at + 3
    elseif value >= -0x80000000 then
      buf[at] = 0xd2
      put32(buf, at + 1, value)
      return at + 5
    end
    buf[at] = 0xd3
  end
  put32(buf, at + 1, floor(value / 0x100000000))
  put32(buf, at + 5, value % 0x100000000)
  return at + 9
end

local function put_number(writer, at, value)
  if writer.room < at + 9 then
    grow(writer, at, 9)
  end
  if floor(value) == value and value <= EXACT and value >= -EXACT and (value ~= 0 or 1 / value > 0) then
    return (put_whole(writer.buf, at, value))
  end
  return (put_double(writer.buf, at, value))
end

-- int64_t and uint64_t.
local function put_cdata(writer, at, value)
  local is_signed = ffi.istype("int64_t", value)
  if not is_signed and not ffi.istype("uint64_t", value) then
    fail(("%s: expected int64_t or uint64_t"):format(tostring(ffi.typeof(value))))
  end
  if writer.room < at + 9 then
    grow(writer, at, 9)
  end
  number.whole = cast("uint64_t", value)
  writer.buf[at] = is_signed and value < 0 and 0xd3 or 0xcf
  put32(writer.buf, at + 1, number.half[1])
  put32(writer.buf, at + 5, number.half[0])
  return at + 9
end

local function put_byte(writer, at, value)
  if writer.room < at + 1 then
    grow(writer, at, 1)
  end
  writer.buf[at] = value
  return at + 1
end

local function put_count(writer, at, count, fixed, type16)
  if writer.room < at + 5 then
    grow(writer, at, 5)
  end
  local buf = writer.buf
  if count < 16 then
    buf[at] = fixed + count
    return at + 1
  elseif count < 65536 then
    buf[at] = type16
    put16(buf, at + 1, count)
    return at + 3
  end
  buf[at] = type16 + 1
  put32(buf, at + 1, count)
  return at + 5
end

--- The head of a list of `count` elements.
function codec.put_list_head(writer, at, count)
  return (put_count(writer, at, count, 0x90, 0xdc))
end

local put

local function put_ext(writer, at, kind, data)
  local count = #data
  if writer.room < at + count + 6 then
    grow(writer, at, count + 6)
  end
  local buf = writer.buf
  buf[at] = 0xc9
  put32(buf, at + 1, count)
  buf[at + 5] = band(kind, 255)
  copy(buf + at + 6, data, count)
  return at + 6 + count
end

local function put_map(writer, at, value, count, depth)
  at = put_count(writer, at, count, 0x80, 0xde)
  for key, inner in pairs(value) do
    at = put(writer, at, key, depth)
    at = put(writer, at, inner, depth)
  end
  return at
end

local function count_pairs(value)
  local count = 0
  for _ in pairs(value) do
    count = count + 1
  end
  return count
end

local function put_list_or_map(writer, at, value, depth)
  local count, length = count_pairs(value), #value
  if count > 0 and length == 0 then
    return put_map(writer, at, value, count, depth)
  end
  if length ~= count then
    fail("a table with holes, or with a list's and a map's keys: expected one of them, and null for nil")
  end
  at = put_count(writer, at, length, 0x90, 0xdc)
  for index = 1, length do
    at = put(writer, at, value[index], depth)
  end
  return at
end

local function put_special(writer, at, value, kind, depth)
  if kind == "null" then
    return put_byte(writer, at, 0xc0)
  elseif kind == "map" then
    return put_map(writer, at, value, count_pairs(value), depth)
  elseif kind == "bytes" then
    return put_sized(writer, at, value[1], #value[1], 0xc4)
  end
  return put_ext(writer, at, kind(value))
end

local function put_table(writer, at, value, depth)
  if depth > DEPTH_MAX then
    fail(("nested more than %d deep"):format(DEPTH_MAX))
  end
  local metatable = getmetatable(value)
  local kind = type(metatable) == "table" and metatable.__iokernel
  if kind then
    return (put_special(writer, at, value, kind, depth + 1))
  end
  return (put_list_or_map(writer, at, value, depth + 1))
end

-- cjson's null and its like.
local function put_userdata(writer, at, value)
  if tostring(value) ~= "userdata: NULL" then
    fail("userdata: expected nil, a boolean, number, string or table")
  end
  return put_byte(writer, at, 0xc0)
end

--- Writes a value at `at`. Returns where it ends. Raises an error for what has no such form. Parentheses here and
-- elsewhere: a trace takes but a few tail calls.
function put(writer, at, value, depth)
  local kind = type(value)
  if kind == "string" then
    return (put_text(writer, at, value))
  elseif kind == "number" then
    return (put_number(writer, at, value))
  elseif kind == "table" then
    return (put_table(writer, at, value, depth or 0))
  elseif kind == "boolean" then
    return (put_byte(writer, at, value and 0xc3 or 0xc2))
  elseif kind == "nil" then
    return (put_byte(writer, at, 0xc0))
  elseif kind == "cdata" then
    return (put_cdata(writer, at, value))
  elseif kind == "userdata" then
    return (put_userdata(writer, at, value))
  end
  return fail(kind .. ": expected nil, a boolean, number, string or table")
end
codec.put = put

-- Reading, from `at` to `stop`. What is read too far is seen at the end: the bytes are the kernel's.

local get

local function broken()
  error("expected one value of MessagePack", 0)
end

local function get16(from, at)
  return from[at] * 256 + from[at + 1]
end

local function get32(from, at)
  return (from[at] * 256 + from[at + 1]) * 65536 + from[at + 2] * 256 + from[at + 3]
end

local function get_text(from, at, stop, count)
  if at + count > stop then
    broken()
  end
  return text(from + at, count), at + count
end

local function get_inner(from, at, stop, depth)
  local value
  value, at = get(from, at, stop, depth)
  if value == nil then
    return null, at
  end
  return value, at
end

local function get_list(from, at, stop, count, depth)
  if depth > DEPTH_MAX or at + count > stop then
    broken()
  end
  local list = {}
  for index = 1, count do
    list[index], at = get_inner(from, at, stop, depth + 1)
  end
  return list, at
end

local function get_map(from, at, stop, count, depth)
  if depth > DEPTH_MAX or at + count > stop then
    broken()
  end
  local map = {}
  for _ = 1, count do
    local key, value
    key, at = get_inner(from, at, stop, depth + 1)
    value, at = get_inner(from, at, stop, depth + 1)
    if key == key then
      map[key] = value
    end
  end
  if count == 0 or map[1] ~= nil then
    setmetatable(map, map_metatable)
  end
  return map, at
end

local function get_ext(from, at, stop, count)
  local kind = from[at]
  local data, after = get_text(from, at + 1, stop, count)
  return decode_ext(kind < 128 and kind or kind - 256, data), after
end

local function get_double(from, at)
  number.half[1], number.half[0] = get32(from, at), get32(from, at + 4)
  return number.as_double, at + 8
end

local function get_float(from, at)
  number.half[0] = get32(from, at)
  return tonumber(number.as_float), at + 4
end

local function get_64(from, at, is_signed)
  number.half[1], number.half[0] = get32(from, at), get32(from, at + 4)
  local value = is_signed and number.with_sign or number.whole
  local near = tonumber(value)
  if near < EXACT and near > -EXACT then
    return near, at + 8
  end
  return value, at + 8
end

local readers = {
  [0xc0] = function(_, at) return nil, at end,
  [0xc2] = function(_, at) return false, at end,
  [0xc3] = function(_, at) return true, at end,
  [0xc4] = function(from, at, stop) return get_text(from, at + 1, stop, from[at]) end,
  [0xc5] = function(from, at, stop) return get_text(from, at + 2, stop, get16(from, at)) end,
  [0xc6] = function(from, at, stop) return get_text(from, at + 4, stop, get32(from, at)) end,
  [0xc7] = function(from, at, stop) return get_ext(from, at + 1, stop, from[at]) end,
  [0xc8] = function(from, at, stop) return get_ext(from, at + 2, stop, get16(from, at)) end,
  [0xc9] = function(from, at, stop) return get_ext(from, at + 4, stop, get32(from, at)) end,
  [0xca] = get_float,
  [0xcb] = get_double,
  [0xcc] = function(from, at) return from[at], at + 1 end,
  [0xcd] = function(from, at) return get16(from, at), at + 2 end,
  [0xce] = function(from, at) return get32(from, at), at + 4 end,
  [0xcf] = function(from, at) return get_64(from, at, false) end,
  [0xd0] = function(from, at) return from[at] < 128 and from[at] or from[at] - 256, at + 1 end,
  [0xd1] = function(from, at)
    local value = get16(from, at)
    return value < 32768 and value or value - 65536, at + 2
  end,
  [0xd2] = function(from, at) return tobit(get32(from, at)), at + 4 end,
  [0xd3] = function(from, at) return get_64(from, at, true) end,
  [0xd9] = function(from, at, stop) return get_text(from, at + 1, stop, from[at]) end,
  [0xda] = function(from, at, stop) return get_text(from, at + 2, stop, get16(from, at)) end,
  [0xdb] = function(from, at, stop) return get_text(from, at + 4, stop, get32(from, at)) end,
  [0xdc] = function(from, at, stop, depth) return get_list(from, at + 2, stop, get16(from, at), depth) end,
  [0xdd] = function(from, at, stop, depth) return get_list(from, at + 4, stop, get32(from, at), depth) end,
  [0xde] = function(from, at, stop, depth) return get_map(from, at + 2, stop, get16(from, at), depth) end,
  [0xdf] = function(from, at, stop, depth) return get_map(from, at + 4, stop, get32(from, at), depth) end,
}
for kind = 0xd4, 0xd8 do
  local count = lshift(1, kind - 0xd4)
  readers[kind] = function(from, at, stop) return get_ext(from, at, stop, count) end
end

--- The value at `at`, and where it ends. Raises an error for what is none.
function get(from, at, stop, depth)
  if at >= stop then
    broken()
  end
  local kind = from[at]
  if kind < 0x80 then
    return kind, at + 1
  elseif kind >= 0xe0 then
    return kind - 256, at + 1
  elseif kind >= 0xc0 then
    return (readers[kind] or broken)(from, at + 1, stop, depth)
  elseif kind >= 0xa0 then
    return get_text(from, at + 1, stop, kind - 0xa0)
  elseif kind >= 0x90 then
    return get_list(from, at + 1, stop, kind - 0x90, depth)
  end
  return get_map(from, at + 1, stop, kind - 0x80, depth)
end

--- One value that fills `count` bytes. Raises an error for what is none.
function codec.get_whole(from, count)
  local value, at = get(from, 0, count, 0)
  if at ~= count then
    broken()
  end
  return value
end

--- A value as MessagePack.
function codec.pack(value)
  local writer = codec.writer(256)
  local count = put(writer, 0, value)
  return text(writer.buf, count)
end

--- One value of MessagePack.
function codec.unpack(bytes)
  -- What is read too far, before that is seen, stays within this.
  local room = new(buffer, #bytes + 16)
  copy(room, bytes, #bytes)
  fill(room + #bytes, 16)
  return (codec.get_whole(cast("const uint8_t *", room), #bytes))
end

return codec
