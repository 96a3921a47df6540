--- Where the library is: `IOKERNEL_LIBRARY`, in the source tree that this file is in, or where the system looks.
local NAME = "libiokernel.so"

local function exists(path)
  local file = io.open(path, "rb")
  if file then
    file:close()
  end
  return file ~= nil
end

--- The path of the library. Raises an error for a wrong `IOKERNEL_LIBRARY`.
return function()
  local given = os.getenv("IOKERNEL_LIBRARY")
  if given and given ~= "" then
    if not exists(given) then
      error(("IOKERNEL_LIBRARY: %q: expected the path of %s"):format(given, NAME), 0)
    end
    return given
  end
  local here = debug.getinfo(1, "S").source:match("^@(.*)/[^/]*$") or "."
  local target = os.getenv("CARGO_TARGET_DIR") or here .. "/../../../target"
  local built = target .. "/release/" .. NAME
  return exists(built) and built or NAME .. ".0"
end
