--- A subscription in one task, what is published in another.
--
--   $ lua5.4 pubsub.lua redis://127.0.0.1:6379
--   rain
--   sun
--   snow
local iokernel = require("iokernel")

local cache = iokernel.open(arg[1] or "redis://127.0.0.1:6379")

iokernel.run(function()
  -- It stands when this returns, and outlives lost connections.
  local news = cache:subscribe("SUBSCRIBE", "weather")

  iokernel.spawn(function()
    for _, word in ipairs({ "rain", "sun", "snow" }) do
      iokernel.sleep(0.01)
      cache:call("PUBLISH", "weather", word)
    end
  end)

  for message in news do
    print(message[3])
    if message[3] == "snow" then
      news:close()
    end
  end
end)
