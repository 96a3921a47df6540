--- A call at the time when an object is collected, in both runtimes: LuaJIT's tables have no finalizers of their own.

--- `call` runs when nobody holds the result any more; it may only remember what to do. Keep the result in the object.
return function(call)
  if type(jit) == "table" then
    local sentinel = newproxy(true)
    getmetatable(sentinel).__gc = call
    return sentinel
  end
  return setmetatable({}, { __gc = call })
end
