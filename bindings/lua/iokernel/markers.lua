--- Markers: what the program is doing, for those who ask while it does.
--
-- A thread has one slot of shared memory; tasks take turns on it, each with markers of its own: what a task has entered
-- is `current` while it runs.
local core = require("iokernel.core_of_runtime")
local tasks = require("iokernel.tasks")

local unpack = table.unpack or unpack
local TEXT_BYTES = 56

local markers = {}

-- What each coroutine has entered, by kernels: lists of `{marker, place, serial}`. `main` stands for no task.
local main = {}
local entered = setmetatable({}, { __mode = "k" })
local here = main

local Marker = {}
Marker.__index = Marker

-- Cut at the start of a character.
local function cut(text)
  if #text <= TEXT_BYTES then
    return text
  end
  local stop = TEXT_BYTES
  while stop > 0 and text:byte(stop + 1) >= 0x80 and text:byte(stop + 1) < 0xC0 do
    stop = stop - 1
  end
  return text:sub(1, stop)
end

--- See `Kernel:marker`. Fields are shown in the order of their names.
function markers.make(kernel, text, fields)
  local parts = {}
  for name, value in pairs(fields or {}) do
    parts[#parts + 1] = (" %s=%s"):format(tostring(name), tostring(value))
  end
  table.sort(parts)
  return setmetatable({ kernel = kernel, text = cut((text .. table.concat(parts)):gsub("%z", " ")) }, Marker)
end

-- This thread's slot of a kernel; false if none is left: then nothing is shown.
local function slot_of(kernel)
  kernel:channel()
  if kernel.markers == nil then
    kernel.markers = core.markers(kernel.handle) or false
  end
  return kernel.markers
end

local function list_of(coroutine, kernel)
  local by_kernel = entered[coroutine]
  if not by_kernel then
    by_kernel = setmetatable({}, { __mode = "k" })
    entered[coroutine] = by_kernel
  end
  by_kernel[kernel] = by_kernel[kernel] or {}
  return by_kernel[kernel]
end

-- What runs here from now on is in the innermost of these.
local function show(kernel, list)
  local serial = 0
  for at = #list, 1, -1 do
    if list[at][3] ~= 0 then
      serial = list[at][3]
      break
    end
  end
  local slot = kernel.markers
  if slot and kernel.chan then
    slot:set_current(serial)
    kernel.chan.core:set_marker(serial)
  end
end

local is_following = false

-- Follows the scheduler, from the first marker on.
local function follow()
  is_following = true
  tasks.follow(function(coroutine)
    local last, next_one = entered[here], entered[coroutine or main]
    here = coroutine or main
    for kernel in pairs(last or {}) do
      show(kernel, next_one and next_one[kernel] or {})
    end
    for kernel, list in pairs(next_one or {}) do
      show(kernel, list)
    end
  end)
end

--- It is shown from here on, until `leave`. May be nested, and entered again. In Lua 5.4: `local _ <close> =
-- marker:enter()`.
function Marker:enter()
  if not is_following then
    follow()
  end
  here = tasks.current() or tasks.scheduled() or main
  local kernel = self.kernel
  local slot, list = slot_of(kernel), list_of(here, kernel)
  local place, serial = -1, 0
  if slot then
    place, serial = slot:enter(self.text)
  end
  list[#list + 1] = { self, place, serial }
  show(kernel, list)
  return self
end

--- It is over: the innermost of its kind that was entered here.
function Marker:leave()
  here = tasks.current() or tasks.scheduled() or main
  local kernel = self.kernel
  local list = list_of(here, kernel)
  for at = #list, 1, -1 do
    if list[at][1] == self then
      local _, place, serial = unpack(table.remove(list, at))
      if kernel.markers then
        kernel.markers:leave(place, serial)
      end
      return show(kernel, list)
    end
  end
end

local function finish(self, good, ...)
  self:leave()
  if not good then
    error((...), 0)
  end
  return ...
end

--- Calls a function inside of it. Returns what that returns.
function Marker:around(fn, ...)
  self:enter()
  return finish(self, pcall(fn, ...))
end

Marker.__close = Marker.leave

return markers
