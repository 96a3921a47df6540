# frozen_string_literal: true

module IOKernel
  # A client's request. One of `reply` and `error`, from any thread.
  class Request
    # What the client asked, such as `["GET", "key"]`, as the protocol has it.
    attr_reader :args
    # The number of the client's connection.
    attr_reader :peer

    def initialize(listener, tag, peer, args)
      @listener = listener
      @tag = tag
      @peer = peer
      @args = args
      @gone = false
    end

    # Answers. Raises BadRequest for a value that the protocol cannot carry, Closed after the listener's end. A client
    # that has left meanwhile is no error.
    def reply(value)
      payload = Values.pack(value)
      return if @gone

      @gone = true
      @listener.reply(@tag, payload)
      nil
    end

    # Answers with an error: `error("ERR", "unknown command")`.
    def error(code, reason)
      reply(RemoteError.new(reason, code: code))
    end

    # True if nobody waits for a reply any more: it was given, or the client has left.
    def gone?
      @gone
    end

    def inspect
      "#<IOKernel::Request #{@args.inspect}>"
    end

    # For the listener: the client has left.
    def lose
      @gone = true
    end
  end
end
