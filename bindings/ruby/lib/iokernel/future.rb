# frozen_string_literal: true

module IOKernel
  # A reply under way, for the thread (or the fibers of the scheduler) that asked: `cache.async("GET", "key")`.
  class Future
    # What stands in the place of a reply: an error, or, without one, that there is none yet.
    NoReply = Struct.new(:error)
    PENDING = NoReply.new.freeze
    private_constant :NoReply, :PENDING

    # The number of the request. For the channel.
    attr_reader :tag

    def initialize(channel, tag)
      @channel = channel
      @tag = tag
      @outcome = PENDING
    end

    # The reply, waiting for it. Raises what the request failed with. `timeout`: seconds to wait here; when they are
    # over, Timeout is raised and the request goes on.
    def value(timeout = nil)
      return @outcome unless NoReply === @outcome

      error = error(timeout)
      raise error if error

      @outcome
    end

    # What the request failed with, or nil; waits as `value` does.
    def error(timeout = nil)
      wait(timeout) if PENDING.equal?(@outcome)
      @outcome.error if NoReply === @outcome
    end

    # True once `value` would not wait.
    def done?
      !PENDING.equal?(@outcome)
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
      NoReply === @outcome && @outcome.error.is_a?(Cancelled)
    end

    # For the channel: the reply is there.
    def resolve(value)
      @outcome = value
    end

    # For the channel: there will be no reply.
    def fail(error)
      @outcome = NoReply.new(error)
    end

    def inspect
      state = NoReply === @outcome ? "failed" : "done"
      "#<IOKernel::Future #{done? ? state : "pending"}>"
    end

    private

    def wait(timeout)
      return if @channel.wait(self, timeout)

      raise Timeout.new("no reply within #{timeout} s; the request goes on", status: -202)
    end
  end
end
