--- Other clients of Redis: redis-lua in either runtime, and hiredis by LuaJIT's FFI. What is not installed is left out.
local peers = {}

local function redis_lua(host, port)
  local good, client = pcall(require, "redis")
  if not good then
    -- Debian has it for 5.3; in 5.4 its plain calls run as they are.
    local loader = loadfile("/usr/share/lua/5.3/redis.lua")
    good, client = pcall(function() return loader() end)
  end
  if not good then
    return nil
  end
  local connection
  good, connection = pcall(client.connect, host, port)
  if not good then
    return nil
  end
  local function pipeline(depth)
    local replies = connection:pipeline(function(pipe)
      for _ = 1, depth do
        pipe:get("key")
      end
    end)
    assert(#replies[depth] == 100)
  end
  return {
    name = "redis-lua",
    get = function() assert(#connection:get("key") == 100) end,
    -- In 5.4 it calls table.insert as that does not allow any more.
    pipeline = pcall(pipeline, 2) and pipeline or nil,
  }
end

local function hiredis(host, port)
  if type(jit) ~= "table" then
    return nil
  end
  local ffi = require("ffi")
  -- A reply has had a double before its length since version 1.
  local good, lib = pcall(ffi.load, "libhiredis.so.0.14")
  local double = ""
  if not good then
    good, lib = pcall(ffi.load, "hiredis")
    double = "double dval;"
  end
  if not good then
    return nil
  end
  ffi.cdef(([[
    typedef struct redisContext redisContext;
    typedef struct { int type; long long integer; %s size_t len; char *str; } redisReply;
    redisContext *redisConnect(const char *host, int port);
    int redisAppendCommandArgv(redisContext *context, int count, const char **words, const size_t *sizes);
    int redisGetReply(redisContext *context, void **reply);
    void freeReplyObject(void *reply);
  ]]):format(double))
  local context = lib.redisConnect(host, port)
  local words, sizes, out = ffi.new("const char *[2]"), ffi.new("size_t[2]"), ffi.new("void *[1]")

  -- From Lua's strings, and into one, as any client of Lua has to.
  local function append(command, key)
    words[0], words[1], sizes[0], sizes[1] = command, key, #command, #key
    lib.redisAppendCommandArgv(context, 2, words, sizes)
  end

  local function take()
    assert(lib.redisGetReply(context, out) == 0)
    local reply = ffi.cast("redisReply *", out[0])
    local value = ffi.string(reply.str, reply.len)
    lib.freeReplyObject(reply)
    return value
  end

  return {
    name = "hiredis by FFI",
    get = function()
      append("GET", "key")
      assert(#take() == 100)
    end,
    pipeline = function(depth)
      local replies = {}
      for _ = 1, depth do
        append("GET", "key")
      end
      for at = 1, depth do
        replies[at] = take()
      end
      assert(#replies[depth] == 100)
    end,
  }
end

--- Those that are installed, connected.
function peers.open(url)
  local host, port = url:match("^redis://([^:/]+):(%d+)")
  assert(host, "IOK_REDIS: expected redis://host:port")
  local found = {}
  found[#found + 1] = redis_lua(host, tonumber(port))
  found[#found + 1] = hiredis(host, tonumber(port))
  return found
end

return peers
