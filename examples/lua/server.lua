--- An HTTP server whose handlers wait without holding up one another. With --once it asks itself, and ends.
--
--   $ luajit server.lua &
--   listening at http://127.0.0.1:8080
--   $ curl http://127.0.0.1:8080/
--   Hello, world!
local iokernel = require("iokernel")

local is_once = arg[1] == "--once"
local listener = iokernel.listen(is_once and "http://127.0.0.1:0" or "http://127.0.0.1:8080", { health = "/healthz" })
print("listening at " .. listener:url())

local function handle(request)
  -- { method, target, headers, version, client }, and the body.
  local head = request.args[1]
  if head[2] == "/slow" then
    iokernel.sleep(0.1)
  end
  return { 200, { ["Content-Type"] = "text/plain" }, "Hello, world!\n" }
end

iokernel.run(function()
  iokernel.spawn(listener.serve, listener, handle)
  if is_once then
    local api = iokernel.open(listener:url())
    -- { status, headers, body, ... } each.
    for _, reply in ipairs(api:all({ { "GET", "/slow" }, { "GET", "/" } })) do
      print(reply[1], reply[3])
    end
    listener:close()
  end
end)
