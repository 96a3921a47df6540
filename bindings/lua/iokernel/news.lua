--- Waiting for something to be so, of which completions of a channel bring the news: in a task others run meanwhile,
-- elsewhere it blocks.
local tasks = require("iokernel.tasks")

local News = {}
News.__index = News

--- The news of one object.
function News.of(channel)
  return setmetatable({ channel = channel, signal = tasks.signal(), settled = false }, News)
end

--- Something is other than it was: who waits looks again.
function News:fire()
  self.settled = true
  self.signal:fire()
end

--- Waits until `is_so(owner)`. False if `seconds` (nil: no limit) were over before.
function News:wait(owner, is_so, seconds)
  local here = not is_so(owner) and tasks.current()
  while not is_so(owner) do
    if here then
      if not self.signal:wait(here, seconds) then
        return is_so(owner)
      end
    else
      self.settled = false
      if not self.channel:block(self, seconds) then
        return is_so(owner)
      end
    end
  end
  return true
end

return News
