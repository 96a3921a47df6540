# frozen_string_literal: true

# The same endpoint in fibers: where the thread has a scheduler (here, async's), a call lets other fibers run.
#
#   $ ruby fibers.rb redis://127.0.0.1:6379
#   500 fibers: 500 replies
#   news: rain, sun

require "async"
require "iokernel"

cache = IOKernel.open(ARGV.fetch(0, "redis://127.0.0.1:6379"))

Async do |task|
  fibers = Array.new(500) { |number| task.async { cache.call("ECHO", number.to_s) } }
  puts "500 fibers: #{fibers.each_with_index.count { |fiber, number| fiber.wait == number.to_s }} replies"

  cache.subscribe("SUBSCRIBE", "news") do |news|
    reader = task.async { news.first(2).map(&:last) }
    %w[rain sun].each { |weather| cache.call("PUBLISH", "news", weather) }
    puts "news: #{reader.wait.join(", ")}"
  end
end
