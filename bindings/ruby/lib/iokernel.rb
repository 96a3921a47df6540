# frozen_string_literal: true

require "logger"
require "monitor"

require_relative "iokernel/version"
require_relative "iokernel/errors"
require_relative "iokernel/library"
require_relative "iokernel/records"
require_relative "iokernel/options"
require_relative "iokernel/values"
require_relative "iokernel/future"
require_relative "iokernel/outbox"
require_relative "iokernel/channel"
require_relative "iokernel/loop_channel"
require_relative "iokernel/cells"
require_relative "iokernel/marker"
require_relative "iokernel/stack"
require_relative "iokernel/requests"
require_relative "iokernel/endpoint"
require_relative "iokernel/lease"
require_relative "iokernel/subscription"
require_relative "iokernel/request"
require_relative "iokernel/listener"
require_relative "iokernel/kernel"
require_relative "iokernel/fork"

# All the networking of a program in one I/O thread that its interpreter cannot stall.
#
#   cache = IOKernel.open("redis://cache.internal")   # returns at once
#   cache.call("SET", "greeting", "hello")            # other threads, or fibers, run meanwhile
#   cache.async("GET", "greeting").value              # any number at a time, on one connection
module IOKernel
  @lock = Monitor.new
  @default = nil
  @logger = nil

  class << self
    # Opens a service in the default kernel and returns at once; names, connections, heartbeats live from here on.
    #
    # Options are those of the URL's query: `open("redis://host", heartbeat: "5s", max_inflight: 200)`. Sizes and times
    # carry their unit. With a block, gives the Endpoint to it and closes at its end. Raises ConfigError (with `key`,
    # `value`, `expected`) for a URL or an option that is wrong; that the peer cannot be reached is seen by requests,
    # `wait_ready` and `state`.
    def open(url, **options, &block)
      default_kernel.open(url, **options, &block)
    end

    # Listens in the default kernel: `listen("http://127.0.0.1:0")`. `url` of the result has the port. Raises
    # ConfigError for a URL or option that is wrong, Error if the system refuses the address.
    def listen(url, **options)
      default_kernel.listen(url, **options)
    end

    # A counter of the default kernel; see Kernel#counter. It goes on counting whatever becomes of the kernel.
    def counter(name, **options)
      default_kernel.counter(name, **options)
    end

    # A gauge of the default kernel; see Kernel#gauge.
    def gauge(name, **options)
      default_kernel.gauge(name, **options)
    end

    # A histogram of the default kernel; see Kernel#histogram.
    def histogram(name, **options)
      default_kernel.histogram(name, **options)
    end

    # What the program is doing, shown by the default kernel; see Kernel#marker.
    def marker(text, **fields, &block)
      default_kernel.marker(text, **fields, &block)
    end

    # The kernel of `open` and `listen`, started at their first call. The environment variable IOKERNEL_ADMIN gives it
    # an admin endpoint, as `Kernel.new(admin: ...)` does.
    def default_kernel
      kernel = @default
      return kernel if kernel && !kernel.closed?

      @lock.synchronize do
        @default = nil if @default&.closed?
        @default ||= Kernel.new(name: "iokernel", admin: ENV.fetch("IOKERNEL_ADMIN", nil))
      end
    end

    # From here on, `open` and `listen` are this kernel's.
    def default_kernel=(kernel)
      @default = kernel
    end

    # Where failures go that nobody waits for; the standard error output unless it is set.
    def logger
      @logger ||= Logger.new($stderr, progname: "iokernel")
    end
    attr_writer :logger

    # At exit: what is under way may finish for a moment.
    def close_default
      kernel, @default = @default, nil
      kernel&.close(drain: 0.2)
    rescue Error
      nil
    end

    # In a forked child.
    def forked
      @lock = Monitor.new
    end
  end

  # What is told nobody but the log.
  module Log
    def self.warn(text)
      IOKernel.logger.warn(text)
    end

    def self.error(text)
      IOKernel.logger.error(text)
    end
  end
  private_constant :Log

  at_exit { close_default }
end
