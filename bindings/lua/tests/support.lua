--- What the tests have in common: where the modules are, processes, files, a redis-server of their own.
-- Absolute, for make and other programs run in folders of their own.
local function absolute(folder)
  local pipe = assert(io.popen(("cd '%s' && pwd -P"):format(folder)))
  local path = pipe:read("*l")
  pipe:close()
  return path
end

local here = absolute(debug.getinfo(1, "S").source:match("^@(.*)/[^/]*$") or ".")
local binding = absolute(here .. "/..")
local built = os.getenv("IOK_LUA_BUILD") or absolute(binding .. "/../..") .. "/build/lua"

package.path = ("%s/?.lua;%s/?/init.lua;%s/?.lua;%s"):format(binding, binding, here, package.path)
package.cpath = ("%s/?.so;%s"):format(built, package.cpath)

local is_jit = type(jit) == "table"

local support = { is_jit = is_jit, binding = binding, interpreter = arg and arg[-1] or is_jit and "luajit" or "lua5.4" }

local function succeeded(status)
  return status == true or status == 0
end

if not is_jit then
  assert(succeeded(os.execute(("make -s -C '%s' OUT='%s' >&2"):format(binding, built))), "iokernel.core was not built")
end

-- Processes

local function process_by_ffi()
  local ffi = require("ffi")
  ffi.cdef([[
    int fork(void);
    int getpid(void);
    int kill(int pid, int signal);
    int waitpid(int pid, int *status, int options);
    void _exit(int status);
    int usleep(unsigned microseconds);
  ]])
  local C, process = ffi.C, {}
  process.fork, process.getpid, process.kill, process.exit = C.fork, C.getpid, C.kill, C._exit

  function process.waitpid(pid)
    local status = ffi.new("int[1]")
    repeat
      local found = C.waitpid(pid, status, 0)
    until found == pid or ffi.errno() ~= 4
    local word = status[0]
    return word % 128 == 0 and math.floor(word / 256) % 256 or 128 + word % 128
  end

  function process.sleep(seconds)
    local core = require("iokernel.core_ffi")
    local over = core.now() + seconds
    while core.now() < over do
      C.usleep(math.min(500000, math.max(1, (over - core.now()) * 1e6)))
    end
  end
  return process
end

--- `fork`, `getpid`, `kill`, `waitpid` (an exit status), `exit` (at once), `sleep`.
support.process = is_jit and process_by_ffi() or require("process")

--- luv, or nil where it is not installed.
local has_luv, luv = pcall(require, "luv")
support.luv = has_luv and luv or nil

-- Files

--- The whole of a file, or nil.
function support.read_file(path)
  local file = io.open(path, "rb")
  if not file then
    return nil
  end
  local text = file:read("*a")
  file:close()
  return text
end

--- What a command prints.
function support.output_of(command)
  local pipe = assert(io.popen(command))
  local text = pipe:read("*a")
  pipe:close()
  return text
end

--- A folder of one's own; `remove_folder` takes it away.
function support.make_folder()
  return (support.output_of("mktemp -d -t iok-lua-XXXXXX"):gsub("\n", ""))
end

function support.remove_folder(folder)
  assert(folder:find("iok%-lua%-"))
  os.execute(("rm -rf '%s'"):format(folder))
end

--- How many descriptors this process has open.
function support.open_files()
  collectgarbage()
  collectgarbage()
  return tonumber(support.output_of(("ls /proc/%d/fd | wc -l"):format(support.process.getpid())))
end

-- Servers

--- A redis-server of one's own, at a unix socket: `url`, `pid`, `stop()`.
function support.redis()
  local folder = support.make_folder()
  local socket = folder .. "/redis.sock"
  os.execute(("cd '%s' && exec redis-server --port 0 --unixsocket redis.sock --save '' --appendonly no --daemonize yes "
    .. "--pidfile '%s/pid' --enable-debug-command yes --logfile log >/dev/null"):format(folder, folder))
  for _ = 1, 200 do
    if support.output_of(("redis-cli -s '%s' ping 2>&1"):format(socket)):find("PONG") then
      break
    end
    support.process.sleep(0.05)
  end
  local pid = assert(tonumber(support.read_file(folder .. "/pid")), "redis-server does not start")
  local server = { url = "unix://" .. socket, socket = socket, pid = pid }
  function server.stop()
    os.execute(("kill -9 %d"):format(pid))
    support.remove_folder(folder)
  end
  return server
end

-- Values

--- Equal, and of the same types all the way down.
function support.same(found, wanted)
  if type(found) ~= "table" or type(wanted) ~= "table" then
    return found == wanted
  end
  for key, value in pairs(found) do
    if not support.same(value, wanted[key]) then
      return false
    end
  end
  for key in pairs(wanted) do
    if found[key] == nil then
      return false
    end
  end
  return true
end

--- A value in words.
function support.shown(value)
  if type(value) ~= "table" or getmetatable(value) and getmetatable(value).__tostring then
    return type(value) == "string" and ("%q"):format(value) or tostring(value)
  end
  local parts = {}
  for key, inner in pairs(value) do
    parts[#parts + 1] = ("%s=%s"):format(tostring(key), support.shown(inner))
  end
  table.sort(parts)
  return "{" .. table.concat(parts, ", ") .. "}"
end

--- Raises an error unless it is so.
function support.check(is_so, why, ...)
  if not is_so then
    error(select("#", ...) > 0 and why:format(...) or support.shown(why), 2)
  end
  return is_so
end

-- Loops

--- Runs a function in a task of our own loop, then in a coroutine of luv's loop, where there is luv.
function support.in_each_loop(fn, ...)
  local iokernel = require("iokernel")
  iokernel.run(fn, ...)
  support.in_luv(fn, ...)
end

--- Runs a function in a task of luv's loop. Raises what it failed with. False where there is no luv.
function support.in_luv(fn, ...)
  local iokernel = require("iokernel")
  if not support.luv then
    return false
  end
  local bridge = require("iokernel.luv")
  local task = iokernel.spawn(fn, ...)
  local good, problem = pcall(support.luv.run)
  bridge.close()
  if not good then
    error(problem, 0)
  end
  support.check(task:done(), "luv's loop ended before the task")
  task:result()
  return true
end

return support
