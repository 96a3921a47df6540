--- The programs of `examples/lua`, and those of the README.
local support = require("support")
local check = support.check

local interpreter = support.interpreter
local examples = support.binding .. "/../../examples/lua"

local function run(file, arguments)
  local command = "LUA_PATH='%s' LUA_CPATH='%s' timeout -s KILL 30 %s '%s' %s 2>&1; echo \"status $?\""
  return support.output_of(command:format(package.path, package.cpath, interpreter, file, arguments))
end

local tests = {}

tests[#tests + 1] = { "first.lua", function()
  local said = run(examples .. "/first.lua", support.server.url)
  check(said:find("^hello\n300 tasks, one connection: 300 replies\n") and said:find("status 0"), "%s", said)
end }

tests[#tests + 1] = { "pubsub.lua", function()
  local said = run(examples .. "/pubsub.lua", support.server.url)
  check(said:find("rain\nsun\nsnow\n") and said:find("status 0"), "%s", said)
end }

tests[#tests + 1] = { "server.lua", function()
  local said = run(examples .. "/server.lua", "--once")
  check(said:find("Hello, world!") and said:find("status 0"), "%s", said)
end }

-- Blocks of Lua in the README run as they stand, one after the other, in one state.
tests[#tests + 1] = { "the README's programs", function()
  local parts = { ("local URL = %q\n"):format(support.server.url) }
  for block in support.read_file(support.binding .. "/README.md"):gmatch("```lua\n(.-)```") do
    if not block:find("^%-%- luv") or support.luv then
      parts[#parts + 1] = "do\n" .. block:gsub('"redis://127.0.0.1:6379"', "URL") .. "end\n"
    end
  end
  check(#parts > 3, "the README has no programs")
  local script = os.tmpname()
  local file = assert(io.open(script, "w"))
  file:write(table.concat(parts))
  file:close()
  local said = run(script, "")
  os.remove(script)
  check(said:find("status 0"), "%s", said)
end }

return tests
