# frozen_string_literal: true

require_relative "scheduler"

# Runs fibers in a loop: of the scheduler beside this file, or, with IOK_LOOP=async, of the gem async.
module Loop
  Timer = Struct.new(:stopped) do
    def stop
      self.stopped = true
    end
  end

  module_function

  # Runs the block, and what it starts, to its end, in this thread. Gives what the block gives, raises what it raises.
  def run(kind = ENV.fetch("IOK_LOOP", "select"), &block)
    found, error = nil
    body = lambda do
      found = block.call
    rescue StandardError => error
      nil
    end
    kind == "async" ? run_async(&body) : run_select(&body)
    raise error if error

    found
  end

  def run_select(&body)
    Fiber.set_scheduler(SelectScheduler.new)
    Fiber.schedule(&body)
  ensure
    Fiber.set_scheduler(nil)
  end

  def run_async(&body)
    require "async"
    Async { body.call }
  end

  def fiber(&block)
    Fiber.schedule(&block)
  end

  # Runs the block with 0 to count - 1, each in a fiber of its own, and waits for all. Raises what the first raised.
  def all(count)
    done, error = Thread::Queue.new, nil
    count.times do |number|
      fiber do
        yield number
      rescue StandardError => error
        nil
      ensure
        done << number
      end
    end
    count.times { done.pop }
    raise error if error
  end

  def every(seconds)
    timer = Timer.new(false)
    fiber do
      until timer.stopped
        sleep seconds
        yield unless timer.stopped
      end
    end
    timer
  end
end
