--- Values between Lua and MessagePack.
local support = require("support")
local iokernel = require("iokernel")
local core = require("iokernel.core_of_runtime")
local check, same, shown = support.check, support.same, support.shown

local function hex(text)
  return (text:gsub(".", function(byte) return ("%02x"):format(byte:byte()) end))
end

local function bytes(text)
  return (text:gsub("%x%x", function(pair) return string.char(tonumber(pair, 16)) end))
end

-- Written and read as the specification has it.
local EXACT = {
  { 0, "00" }, { 127, "7f" }, { 128, "cc80" }, { 255, "ccff" }, { 256, "cd0100" }, { 65535, "cdffff" },
  { 65536, "ce00010000" }, { 4294967295, "ceffffffff" }, { 4294967296, "cf0000000100000000" },
  { 9007199254740991, "cf001fffffffffffff" },
  { -1, "ff" }, { -32, "e0" }, { -33, "d0df" }, { -128, "d080" }, { -129, "d1ff7f" }, { -32768, "d18000" },
  { -32769, "d2ffff7fff" }, { -2147483648, "d280000000" }, { -2147483649, "d3ffffffff7fffffff" },
  { -9007199254740991, "d3ffe0000000000001" },
  { 0.5, "cb3fe0000000000000" }, { -1.25e100, "cbd4b6dc186ef9f45c" }, { math.huge, "cb7ff0000000000000" },
  { true, "c3" }, { false, "c2" }, { "", "a0" }, { "abc", "a3616263" },
  { {}, "90" }, { { 1, { 2 } }, "92019102" }, { { a = 1 }, "81a16101" },
}

local tests = {}

tests[#tests + 1] = { "numbers, text and lists are written as the specification has them", function()
  for _, one in ipairs(EXACT) do
    local found = hex(core.pack(one[1]))
    check(found == one[2], "%s: %s: expected %s", shown(one[1]), found, one[2])
    check(same(core.unpack(core.pack(one[1])), one[1]), "%s came back as another value", shown(one[1]))
  end
end }

tests[#tests + 1] = { "strings of every length class", function()
  for _, length in ipairs({ 31, 32, 255, 256, 65535, 65536, 100000 }) do
    local text = ("ö"):rep(length):sub(1, length)
    check(core.unpack(core.pack(text)) == text, "text of %d bytes", length)
    check(core.unpack(core.pack(iokernel.bytes(text))) == text, "%d bytes", length)
  end
  check(hex(core.pack(iokernel.bytes("a"))) == "c40161", "bytes are bin")
end }

tests[#tests + 1] = { "lists and maps of every length class", function()
  for _, length in ipairs({ 15, 16, 65535, 65536 }) do
    local list, map = {}, {}
    for at = 1, length do
      list[at], map["k" .. at] = at, at
    end
    check(same(core.unpack(core.pack(list)), list), "a list of %d", length)
    check(same(core.unpack(core.pack(map)), map), "a map of %d", length)
  end
end }

tests[#tests + 1] = { "what other encoders write is read too", function()
  local wider = {
    ["d00a"] = 10, ["d1000a"] = 10, ["d20000000a"] = 10, ["d3000000000000000a"] = 10, ["cc0a"] = 10, ["cd000a"] = 10,
    ["cf000000000000000a"] = 10, ["d3fffffffffffffff6"] = -10, ["d2fffffff6"] = -10, ["d1fff6"] = -10, ["d0f6"] = -10,
    ["ca3fc00000"] = 1.5, ["d90161"] = "a", ["da000161"] = "a", ["db0000000161"] = "a", ["c50001ff"] = "\255",
    ["c600000001ff"] = "\255",
  }
  for text, value in pairs(wider) do
    check(core.unpack(bytes(text)) == value, "%s: expected %s", text, tostring(value))
  end
  check(same(core.unpack(bytes("dd0000000101")), { 1 }) and same(core.unpack(bytes("dc000101")), { 1 }), "lists")
  check(same(core.unpack(bytes("df00000001a16101")), { a = 1 }), "maps")
end }

tests[#tests + 1] = { "nil inside of others is null, and goes back as nil", function()
  local found = core.unpack(bytes("9301c003"))
  check(#found == 3 and found[2] == iokernel.null, "a list with nil")
  check(hex(core.pack(found)) == "9301c003", "it goes back as it came")
  check(core.unpack(bytes("81a161c0")).a == iokernel.null, "a map with nil")
  check(tostring(iokernel.null) == "null" and core.unpack(bytes("c0")) == nil, "nil by itself")
  local has_cjson, cjson = pcall(require, "cjson")
  check(not has_cjson or hex(core.pack({ cjson.null })) == "91c0", "cjson's null")
end }

tests[#tests + 1] = { "maps that look like lists go back as maps", function()
  for _, text in ipairs({ "80", "8101a161", "920180" }) do
    local found = hex(core.pack(core.unpack(bytes(text))))
    check(found == text, "%s became %s", text, found)
  end
  check(hex(core.pack(iokernel.map({ "a" }))) == "8101a161", "marked")
end }

tests[#tests + 1] = { "whole numbers of any size", function()
  local large = core.unpack(bytes("cfffffffffffffffff"))
  check(tostring(large):match("^18446744073709551615"), tostring(large))
  check(tostring(core.unpack(bytes("d38000000000000000"))):match("^%-9223372036854775808"), "the least int64")
  check(hex(core.pack(core.unpack(bytes("d38000000000000000")))) == "d38000000000000000", "it goes back")
  check(hex(core.pack(core.unpack(bytes("cf7fffffffffffffff")))) == "cf7fffffffffffffff", "the largest int64")
  local big = iokernel.big("-123456789012345678901234567890")
  check(core.unpack(core.pack(big)) == big and tostring(big) == "-123456789012345678901234567890", "an ext")
end }

tests[#tests + 1] = { "errors, sets, attributes, verbatim text, other exts", function()
  local problem = core.unpack(core.pack({ iokernel.remote("WRONGTYPE", "no list") }))[1]
  check(iokernel.is(problem, iokernel.RemoteError) and problem.code == "WRONGTYPE", problem)
  check(tostring(problem) == "WRONGTYPE no list" and problem == iokernel.remote("WRONGTYPE", "no list"), "as text")
  local set = core.unpack(core.pack(iokernel.set({ 1, 2 })))
  check(#set == 2 and core.pack(set) == core.pack(iokernel.set({ 1, 2 })), "a set")
  local attributed = core.unpack(core.pack(iokernel.attributed(7, { ttl = 3 })))
  check(attributed.value == 7 and attributed.attributes.ttl == 3, "attributes")
  check(core.unpack(bytes("c70703") .. "txt:abc") == "abc", "verbatim text")
  local ext = core.unpack(bytes("d4ff2a"))
  check(ext.type == -1 and ext.data == "*" and core.unpack(core.pack(ext)).type == -1, "an ext of another kind")
  local broken = core.unpack(bytes("c70101c1"))
  check(broken.type == 1 and broken.data == "\193", "an error that is none is an ext")
end }

tests[#tests + 1] = { "what is no MessagePack is refused", function()
  for _, text in ipairs({
    "", "c1", "a2", "92", "9201", "81a161", "dcffff", "ddffffffff", "dbffffffff61", "cf00", "cb", "0101", "c7", "c705",
    "c9ffffffff", "dfffffffff",
  }) do
    local good, found = pcall(core.unpack, bytes(text))
    check(not good and tostring(found):find("expected one value of MessagePack"), "%s: %s", text, tostring(found))
  end
  check(not pcall(core.unpack, ("\145"):rep(1000) .. "\1"), "a thousand lists in one another")
end }

tests[#tests + 1] = { "every cut of a message is refused, whatever its end", function()
  local message = core.pack({ 1, "text", { a = { 0.5, -300, iokernel.null } }, iokernel.bytes(("x"):rep(300)), 2 ^ 40 })
  for length = 0, #message - 1 do
    check(not pcall(core.unpack, message:sub(1, length)), "its first %d bytes", length)
  end
  check(pcall(core.unpack, message), "all of it")
end }

tests[#tests + 1] = { "what cannot be packed is a BadRequest that says why", function()
  local loop = {}
  loop[1] = loop
  local wrong = { [print] = "function", [io.stdout] = "userdata", [loop] = "nested" }
  wrong[coroutine.create(print)] = "thread"
  wrong[{ 1, nil, 3 }], wrong[{ 1, a = 2 }] = "holes", "a list's and a map's keys"
  for value, why in pairs(wrong) do
    local good, problem = pcall(core.pack, value)
    check(not good and iokernel.is(problem, iokernel.BadRequest), "%s: %s", why, tostring(problem))
    check(tostring(problem):find(why, 1, true) and problem.fate == "not_sent", "%s: %s", why, tostring(problem))
  end
end }

tests[#tests + 1] = { "a value that cannot be packed leaves nothing of it behind", function()
  local kernel = iokernel.Kernel()
  for _ = 1, 100 do
    check(not pcall(kernel.echo, kernel, { "a", { "b", print } }), "it was packed")
    check(same(kernel:echo({ "c" }):result(), { "c" }), "the next one is another's")
  end
  check(kernel:channel().under_way == 0, "slots are left")
  kernel:close()
end }

tests[#tests + 1] = { "random values come back as they went", function()
  math.randomseed(7)
  local function any(depth)
    local kind = math.random(depth > 3 and 5 or 7)
    if kind == 1 then
      return math.random(0, 1) == 1
    elseif kind == 2 then
      return math.random(-2 ^ 31, 2 ^ 31 - 1)
    elseif kind == 3 then
      return (math.random() - 0.5) * 10 ^ math.random(-30, 30)
    elseif kind == 4 then
      return (("."):rep(math.random(0, 60)):gsub(".", function() return string.char(math.random(0, 255)) end))
    elseif kind == 5 then
      return iokernel.null
    end
    local made = kind == 7 and iokernel.map() or {}
    for at = 1, math.random(0, 20) do
      made[kind == 7 and "k" .. at or at] = any(depth + 1)
    end
    return made
  end
  for _ = 1, 2000 do
    local value = any(0)
    local found = core.unpack(core.pack(value))
    check(value == iokernel.null and found == nil or same(found, value), "%s: expected %s", shown(found), shown(value))
  end
end }

return tests
