--- Values that Lua has no type for.
--
-- | MessagePack       | Lua                                                                                  |
-- |-------------------|--------------------------------------------------------------------------------------|
-- | nil               | nil; inside of lists and maps `null`                                                 |
-- | boolean           | boolean                                                                              |
-- | int               | a number; beyond 2^53 in LuaJIT: an int64_t or uint64_t; beyond int64 in Lua: Big    |
-- | float             | a number                                                                             |
-- | str, bin          | a string; given: `bytes(s)` is bin, any other string is str                          |
-- | array             | a table with elements from 1 on                                                      |
-- | map               | a table; one that is empty or has a key 1 is marked by `map`                         |
-- | ext 1, error      | RemoteError                                                                          |
-- | ext 2, big number | Big: `tostring(big)` are its digits                                                  |
-- | ext 3, verbatim   | a string, without its format                                                         |
-- | ext 4, set        | a table with elements from 1 on, marked by `set`                                     |
-- | ext 5, attributed | Attributed: `value` and `attributes`                                                 |
-- | any other ext     | Ext: `type` and `data`                                                               |
local abi = require("iokernel.abi")

local values = {}

local Null = { __iokernel = "null", __tostring = function() return "null" end }
local Map = { __iokernel = "map" }
local Bytes = { __iokernel = "bytes", __tostring = function(self) return self[1] end }

--- What stands for nil inside of lists and maps. `cjson.null` is taken for it too.
values.null = setmetatable({}, Null)

--- Marks a table as a map, also if it is empty or has a key 1. Returns it.
function values.map(table)
  return setmetatable(table or {}, Map)
end

--- A string that is sent as bytes (`bin`), where the protocol tells them from text.
function values.bytes(string)
  return setmetatable({ string }, Bytes)
end

--- The classes of ext values, and sets: filled in by `install`, which knows the codec.
local Big, Set, Attributed, Ext = {}, {}, {}, {}
values.Big, values.Set, values.Attributed, values.Ext = Big, Set, Attributed, Ext

--- Marks a list as a set. Returns it.
function values.set(list)
  return setmetatable(list, Set)
end

--- An integer of any size, given as its digits.
function values.big(digits)
  return setmetatable({ digits = digits }, Big)
end

--- A value that came with attributes (`attributes=true`).
function values.attributed(value, attributes)
  return setmetatable({ value = value, attributes = attributes }, Attributed)
end

--- A MessagePack ext: its number (-128 to 127) and its bytes.
function values.ext(type, data)
  return setmetatable({ type = type, data = data }, Ext)
end

--- Tells the codec of a core about them. `remote_error(code, message)` makes an error that stands inside of a reply,
-- `bad_request(text)` one for a value that cannot be packed.
function values.install(core, remote_error, bad_request)
  local EXT = abi.EXT
  Big.__tostring = function(self) return self.digits end
  Big.__eq = function(one, other) return one.digits == other.digits end
  Big.__iokernel = function(self) return EXT.BIG_NUMBER, self.digits end
  Attributed.__iokernel = function(self)
    return EXT.ATTRIBUTED, core.pack({ self.attributes, self.value == nil and values.null or self.value })
  end
  Ext.__iokernel = function(self) return self.type, self.data end
  Set.__iokernel = function(self)
    local list = {}
    for at = 1, #self do
      list[at] = self[at]
    end
    return EXT.SET, core.pack(list)
  end

  local decode = {
    [EXT.ERROR] = function(data)
      local said = core.unpack(data)
      return remote_error(said[1], said[2])
    end,
    [EXT.BIG_NUMBER] = values.big,
    [EXT.VERBATIM] = function(data) return data:sub(5) end,
    [EXT.SET] = function(data) return values.set(core.unpack(data)) end,
    [EXT.ATTRIBUTED] = function(data)
      local both = core.unpack(data)
      return values.attributed(both[2], both[1])
    end,
  }
  core.setup({
    map = Map,
    null = values.null,
    fail = function(why) error(bad_request("value: " .. why), 0) end,
    ext = function(type, data)
      local known = decode[type]
      if known then
        local good, value = pcall(known, data)
        if good then
          return value
        end
      end
      return values.ext(type, data)
    end,
  })
end

return values
