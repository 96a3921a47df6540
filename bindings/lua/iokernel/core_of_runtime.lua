--- The core of the interpreter that runs us, with the library loaded: FFI in LuaJIT, the C module elsewhere.
local core = require(type(jit) == "table" and "iokernel.core_ffi" or "iokernel.core")
local errors = require("iokernel.errors")

local good, why = pcall(core.load, require("iokernel.library")())
if not good then
  error(("%s: build it with `cargo build --release`, or set IOKERNEL_LIBRARY to its path"):format(why), 0)
end
errors.install(core)
require("iokernel.values").install(core, errors.remote, errors.bad_request)

return core
