# frozen_string_literal: true

module IOKernel
  # Where clients connect; made by IOKernel.listen. `serve` it in one thread, or in a fiber of a scheduler. It has a
  # channel of its own, so slow handlers hold up nobody else's replies.
  class Listener
    include Records

    # How soon who waits for requests sees that another thread closed the listener.
    LOOK_S = 0.25
    private_constant :LOOK_S

    # Where it listens, with the port that the system chose.
    attr_reader :url

    def initialize(kernel, url)
      @kernel = kernel
      @queue = []
      @live = {}
      @closed = false
      @serving = nil
      take_channel(kernel.open_channel)
      done = kernel.block(OP_LISTEN, 0, url, @channel)
      @number = done.endpoint
      @url = kernel.urls[@number] = done.value
    ensure
      @channel&.close unless @url
    end

    # Gives every request to the block, until the listener is closed. What it returns is the reply; a RemoteError that
    # it raises is the client's error, any other StandardError is logged and becomes `ERR`. It may also call
    # Request#reply or Request#error itself. In a fiber of a scheduler each request has a fiber of its own.
    def serve
      each do |request|
        scheduler = Fiber.current_scheduler
        scheduler ? scheduler.fiber { answer(request) { yield request } } : answer(request) { yield request }
      end
    end

    # Gives every request to the block, to be answered there or later, until the listener is closed.
    def each
      raise ThreadError, "#{inspect} is served already" if @serving

      @serving = Thread.current
      take_channel(@channel.detach) unless @channel.here?
      until @queue.empty? && @closed
        @queue.empty? ? @channel.wait(self, LOOK_S) : yield(@queue.shift)
      end
      self
    ensure
      leave if @serving == Thread.current && @closed
      @serving = nil if @serving == Thread.current
    end

    # Stops listening and drops its clients. Any thread. Twice is harmless.
    #
    # With `drain` it leaves as politely as its protocol can: whoever asks about its health is told that it leaves;
    # `delay` seconds later nobody is let in any more; what is under way has `drain` seconds to finish. This waits till
    # then, except in the thread that serves it.
    def close(drain: nil, delay: 0)
      return if @closed || @kernel.closed?
      return drain_clients(drain, delay) if drain

      lose_all
      @kernel.block(OP_CLOSE, @number, "")
      leave unless @serving
      nil
    rescue Closed
      nil
    end

    # How it is: a Hash with `"state"` ("up", "leaving"), `"address"`, `"conns"`, `"requests"` and more.
    def state
      @kernel.block(OP_STATE, @number, "").value
    end

    # True after `close`, or when its kernel has ended.
    def closed?
      @closed
    end

    def inspect
      "#<IOKernel::Listener #{@url}#{" closed" if @closed}>"
    end

    # For the channel.
    def done?
      @closed || !@queue.empty?
    end

    # For the channel.
    def completion(done)
      case done.kind
      when KIND_REQUEST
        @queue << (@live[done.tag] = Request.new(self, done.tag, done.peer, done.value))
      when KIND_GONE then @live.delete(done.tag)&.lose
      when KIND_DONE
        return lose_all unless @channel.ended.zero?

        Log.warn("a reply was not sent: #{done.error(@kernel.urls).message}") unless done.status.zero?
      end
      @channel.wake(self)
    end

    # For requests.
    def reply(tag, payload)
      raise Closed.new("the listener is closed", status: -103, fate: :not_sent, endpoint: @url) if @closed

      @live.delete(tag)
      channel = @channel.here? && @channel.free? ? @channel : @kernel.channel
      channel.submit(OP_REPLY, FLAG_QUIET, @number, 0, 0, payload, tag: tag)
      channel.submitted
    end

    # For the end of a drain.
    def lose_all
      @closed = true
      @live.each_value(&:lose)
      @live.clear
      @channel.wake(self)
    end

    private

    def take_channel(handle)
      @channel = @kernel.channel_over(handle)
      @channel.listener = self
    end

    def answer(request)
      value = yield
      request.reply(value) unless request.gone?
    rescue RemoteError => error
      refuse(request, error.code.empty? ? "ERR" : error.code, error.reason)
    rescue Closed
      nil
    rescue StandardError => error
      Log.error("a request's handler failed: #{request.inspect}: #{error.full_message(highlight: false)}")
      refuse(request, "ERR", "the handler failed")
    end

    def refuse(request, code, reason)
      request.error(code, reason)
    rescue Closed
      nil
    end

    def drain_clients(drain, delay)
      channel = @kernel.channel
      left = Left.new(self, channel)
      drain_ms, delay_ms = Records.timeout_ms([drain, 0.001].max), (delay * 1000).to_i
      channel.submit(OP_CLOSE, 0, @number, drain_ms, delay_ms, "", sink: left)
      channel.submitted
      channel.wait(left) unless @serving == Thread.current && !Fiber.current_scheduler
      nil
    end

    def leave
      @channel.close if @channel.here?
    end
  end

  # Waits for everyone to have left a listener.
  class Left
    def initialize(listener, channel)
      @listener = listener
      @channel = channel
      @done = false
    end

    def completion(_done)
      @done = true
      @listener.lose_all
      @channel.wake(self)
    end

    def done?
      @done
    end
  end
  private_constant :Left
end
