# frozen_string_literal: true

# An application that is loaded before its server forks: each answer tells the worker and how many it has counted.
require "iokernel"

CACHE = IOKernel.open(ENV.fetch("IOK_REDIS"))
CACHE.call("SET", "app:loaded", Process.pid)
ANSWERS = IOKernel.counter("answers")

run(lambda do |env|
  ANSWERS.increment
  name = env["PATH_INFO"].delete_prefix("/")
  echoed, loaded, count = CACHE.gather do
    [CACHE.async("ECHO", name), CACHE.async("GET", "app:loaded"), CACHE.async("INCR", "app:count")]
  end.map(&:value)
  [200, {"Content-Type" => "text/plain"}, ["#{Process.pid} #{echoed} #{loaded} #{count}"]]
end)
