# frozen_string_literal: true

module IOKernel
  # What endpoints and leases have in common: requests.
  #
  # Arguments are nil, true, false, Integer, Float, String, Symbol, and arrays or hashes of them, as the protocol takes
  # them. A String in ASCII-8BIT is bytes, any other is text. Arrays as arguments are a batch, sent at once and answered
  # by one array: `call(["SET", "a", 1], ["GET", "a"])`; errors in it are RemoteError elements.
  #
  # `timeout` is in seconds; nil means the endpoint's own (`timeout=30s`), Float::INFINITY none. `idempotent` says that
  # the request may be sent again when its fate is in doubt. `route` (an Integer): requests of one route go to one peer,
  # for as long as the peers stay the same.
  module Requests
    include Records

    # What a record says of a request.
    REQUEST = OP_REQUEST << 32
    private_constant :REQUEST

    # One request, waiting for its reply: `call("GET", "key")`. Other threads run meanwhile, or, in a fiber of a
    # scheduler, other fibers. Raises an IOKernel::Error with its `fate`. What interrupts it (Timeout.timeout,
    # Thread#raise, Ctrl-C) cancels the request.
    def call(*request, timeout: nil, idempotent: false, route: nil)
      number = @number || number!
      channel = @kernel.channel
      what, where, key = REQUEST, number, @key
      what |= FLAG_IDEMPOTENT << 48 if idempotent
      where |= Records.timeout_ms(timeout) << 32 if timeout
      what, key = what | FLAG_ROUTE << 48, routed(route) if route
      future = channel.request(request, what, where, key)
      channel.wait(future)
      future.value
    ensure
      future.cancel unless future.nil? || future.done?
    end

    # One request; gives its Future at once, whose `value` waits.
    def async(*request, timeout: nil, idempotent: false, route: nil)
      number = @number || number!
      channel = @kernel.channel
      what, where, key = REQUEST, number, @key
      what |= FLAG_IDEMPOTENT << 48 if idempotent
      where |= Records.timeout_ms(timeout) << 32 if timeout
      what, key = what | FLAG_ROUTE << 48, routed(route) if route
      future = channel.request(request, what, where, key)
      channel.submitted
      future
    end

    # One request whose reply nobody waits for. A failure is a warning of IOKernel.logger.
    def tell(*request, route: nil)
      number = @number || number!
      channel = @kernel.channel
      flags, key = route ? [FLAG_ROUTE, routed(route)] : [0, @key]
      channel.submit(OP_REQUEST, flags | FLAG_QUIET, number, 0, key, Values.pack(request))
      channel.submitted
      nil
    end

    private

    def routed(route)
      Records.route_key(route)
    end
  end
  private_constant :Requests
end
