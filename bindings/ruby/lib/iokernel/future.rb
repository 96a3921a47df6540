# frozen_string_literal: true

module IOKernel
  # A reply under way, for the thread (or the fibers of the scheduler) that asked: `cache.async("GET", "key")`.
  class Future
    # The number of the request, for the channel; nil once its reply is there. (Ruby 3.1 keeps three variables in an
    # object itself; a fourth would be another piece of memory.)
    attr_reader :tag

    def initialize(channel, tag)
      @channel = channel
      @tag = tag
      # The reply. As long as there is none, what the request failed with, or nil.
      @outcome = nil
    end

    # The reply, waiting for it. Raises what the request failed with. `timeout`: seconds to wait here; when they are
    # over, Timeout is raised and the request goes on.
    def value(timeout = nil)
      return @outcome unless @tag

      error = error(timeout)
      raise error if error

      @outcome
    end

    # What the request failed with, or nil; waits as `value` does.
    def error(timeout = nil)
      wait(timeout) unless done?
      @outcome if @tag
    end

    # True once `value` would not wait.
    def done?
      @tag.nil? || !@outcome.nil?
    end

    # Takes what has completed, without waiting. True once `value` would not wait.
    def ready?
      @channel.poll unless done?
      done?
    end

    # Ends the request. False if it had ended.
    def cancel
      return false if done? || !@channel.cancel(@tag)

      fail(Cancelled.new("cancelled by the program", status: -203, fate: :maybe_executed))
      true
    end

    # True after `cancel`.
    def cancelled?
      !@tag.nil? && @outcome.is_a?(Cancelled)
    end

    # For the channel: the reply is there.
    def resolve(value)
      @outcome = value
      @tag = nil
    end

    # For the channel: there will be no reply.
    def fail(error)
      @outcome = error if @tag
    end

    def inspect
      ended = @tag ? "failed" : "done"
      "#<IOKernel::Future #{done? ? ended : "pending"}>"
    end

    private

    def wait(timeout)
      return if @channel.wait(self, timeout)

      raise Timeout.new("no reply within #{timeout} s; the request goes on", status: -202)
    end
  end
end
