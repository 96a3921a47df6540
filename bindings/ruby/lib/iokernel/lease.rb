# frozen_string_literal: true

module IOKernel
  # A connection of one's own; see Endpoint#lease. `call`, `async` and `tell` as an endpoint's. Given back clean: what
  # it had under way is cancelled.
  class Lease
    include Requests

    # Whose connection it is.
    attr_reader :endpoint

    def initialize(endpoint, timeout, route)
      @endpoint = endpoint
      @kernel = endpoint.kernel
      @number = nil
      # Interrupted while it waits, if at all, so that no lease is lost.
      Thread.handle_interrupt(Object => :on_blocking) { acquire(timeout, route) }
      @kernel.mark_mortal(self)
    end

    # Gives the connection back. Twice is harmless.
    def release
      number, @number = @number, nil
      give_back(number, @key) if number
      nil
    end

    # True until `release`.
    def held?
      !@number.nil?
    end

    def inspect
      "#<IOKernel::Lease of #{@endpoint.url}#{", not held" unless held?}>"
    end

    # For the kernel: this is a forked child.
    def forked
      @number = nil
    end

    private

    def acquire(timeout, route)
      number = @endpoint.number
      channel = @kernel.channel
      flags, key = route ? [FLAG_ROUTE, Records.route_key(route)] : [0, 0]
      future = channel.submit(OP_LEASE, flags, number, Records.timeout_ms(timeout), key, "", channel.new_future)
      @key = future.value
      @number = number
    ensure
      abandon(channel, future, number) unless @number || future.nil?
    end

    # A lease that comes after its asker was interrupted is given back.
    def abandon(channel, future, number)
      return give_back(number, future.value) if future.done? && future.error.nil?

      channel.cancel(future.tag, GiveBack.new(->(lease) { give_back(number, lease) }))
    end

    def give_back(number, lease)
      return if @kernel.closed?

      channel = @kernel.channel
      channel.submit(OP_RELEASE, FLAG_QUIET, number, 0, lease, "")
      channel.submitted
    rescue Closed
      nil
    end

    def routed(_route)
      raise BadRequest.new("route: a lease is bound to its peer: expected none", code: "BADREQUEST", status: -107,
                                                                                 fate: :not_sent)
    end

    def number!
      raise Error.for(-110, 1, endpoint: @endpoint.url, text: "the lease is not held: it was released")
    end
  end

  # Takes what nobody waits for any more.
  class GiveBack
    def initialize(taker)
      @taker = taker
    end

    def resolve(value)
      @taker.call(value)
    end

    def fail(_error); end
  end
  private_constant :GiveBack
end
