# frozen_string_literal: true

# First steps: one service, called by a thread, with any number of requests at a time.
#
#   $ ruby first.rb redis://127.0.0.1:6379
#   hello
#   300 requests, one connection: 300 replies
#   WRONGTYPE, replied

require "iokernel"

# Returns at once. Names, the connection, its heartbeats: all of that lives in the I/O thread from here on.
cache = IOKernel.open(ARGV.fetch(0, "redis://127.0.0.1:6379"))

cache.call("SET", "greeting", "hello", timeout: 5)
puts cache.call("GET", "greeting")

# All at a time, in one call to the kernel. Every thread of the process shares the connection.
futures = cache.gather { Array.new(300) { cache.async("GET", "greeting") } }
puts "300 requests, one connection: #{futures.map(&:value).count("hello")} replies"

begin
  cache.call("LPUSH", "greeting", "x")
rescue IOKernel::RemoteError => error
  puts "#{error.code}, #{error.fate}"
end

cache.call("DEL", "greeting")
cache.close
