rockspec_format = "3.0"
package = "iokernel"
version = "0.1.0-1"
-- Made in the source tree, by `luarocks make`: it needs the header beside it.
source = { url = "." }
description = {
  summary = "All the networking of a program in one I/O thread that its interpreter cannot stall",
  detailed = [[
    A binding of the shared library iokernel: one endpoint for a service, called by the program and by its tasks, with
    connections, heartbeats, names and pipelining in the library's own thread. Redis, PostgreSQL, HTTP, and servers.
    LuaJIT uses its FFI; Lua 5.3 and later a small C module.
  ]],
  license = "MIT OR Apache-2.0",
  labels = { "network", "async", "redis", "http" },
}
supported_platforms = { "linux" }
dependencies = { "lua >= 5.1, < 5.5" }
build = {
  -- The C module needs Lua 5.3; LuaJIT (5.1) needs none. The Makefile knows.
  type = "make",
  build_target = "rock",
  install_pass = true,
  install_target = "install",
  build_variables = { CFLAGS = "$(CFLAGS)", LUA_CFLAGS = "-I$(LUA_INCDIR)" },
  install_variables = { LUA_CFLAGS = "-I$(LUA_INCDIR)", LUADIR = "$(LUADIR)", LIBDIR = "$(LIBDIR)" },
}
