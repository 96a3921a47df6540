# frozen_string_literal: true

module IOKernel
  # A service, alive in the background from IOKernel.open until `close`. Any thread, any fiber. In a forked child it
  # opens itself again at its first use.
  class Endpoint
    include Requests

    # The kernel that it lives in.
    attr_reader :kernel

    def initialize(kernel, url)
      @kernel = kernel
      @url = url
      @key = 0
      @closed = false
      @peers = nil
      @number = kernel.open_number(url)
      kernel.mark_mortal(self)
    end

    # The URL, without password and options.
    def url
      Options.shown(@url)
    end

    # A request that keeps giving: `subscribe("SUBSCRIBE", "news") { |news| news.each { |message| ... } }`. Waits until
    # the peer has accepted it. With a block, gives the Subscription to it and closes at its end.
    #
    # `timeout` is in seconds, for being accepted; `buffer` is how many messages may wait in it unread before more are
    # dropped and counted.
    def subscribe(*request, timeout: nil, buffer: 65_536, &block)
      ms, payload = Records.timeout_ms(timeout), Values.pack(request)
      Subscription.begin(Subscription.new(@kernel, OP_STREAM, number, ms, payload, buffer), &block)
    end

    # How it is, as `state` has it: at once, and again after every change of its state, its peers or their roles. A
    # Watch is used as a Subscription is. When more than `buffer` states wait in it unread, the oldest are dropped and
    # counted.
    def watch(buffer: 1024, &block)
      Subscription.begin(Watch.new(@kernel, number, buffer), &block)
    end

    # A connection of one's own: `lease { |conn| conn.call("WATCH", "key") ... }`, given back at the block's end;
    # without a block, a Lease to be released. `timeout` is in seconds, for getting it. `route`: to the peer that
    # requests of that route go to.
    def lease(timeout: nil, route: nil)
      return Lease.new(self, timeout, route) unless block_given?

      Thread.handle_interrupt(Object => :on_blocking) do
        lease = Lease.new(self, timeout, route)
        Thread.handle_interrupt(Object => :immediate) { yield lease }
      ensure
        lease&.release
      end
    end

    # Tells the peers of an endpoint opened as `scheme+app://label`: the whole set, each time. Each is `"host:port"`, or
    # a Hash with `address` and, where wanted, `weight`, `priority` and `role`. Raises BadRequest, and changes nothing,
    # if one of them is wrong or the endpoint finds its peers by itself.
    def peers=(peers)
      told = Values.pack(peers.map { |peer| peer.is_a?(Hash) ? peer.transform_keys(&:to_s) : peer })
      @kernel.block(OP_PEERS, number, told)
      @peers = told
    end

    # What the block asks for (`async`) goes to the kernel in one call. Gives what the block gives:
    # `cache.gather { keys.map { |key| cache.async("GET", key) } }.map(&:value)`.
    def gather(&block)
      @kernel.gather(&block)
    end

    # Waits until the endpoint is up. Raises Unavailable after `timeout` seconds (nil: the endpoint's own).
    def wait_ready(timeout = nil)
      @kernel.wait_until_up(number, timeout)
    end

    # How it is: a Hash with `"state"` ("up", "degraded", "connecting", "down"), `"description"`, `"conns"`, `"queued"`,
    # `"inflight"`, `"last_error"` and more; `"peers"` has a Hash of each.
    def state
      @kernel.block(OP_STATE, number, "").value
    end

    # Its number in the kernel.
    def number
      @number || number!
    end

    # Closes it; what is under way fails with Closed. Closing twice is harmless.
    def close
      @closed = true
      number, @number = @number, nil
      @kernel.block(OP_CLOSE, number, "") unless number.nil? || @kernel.closed?
      nil
    rescue Closed
      nil
    end

    # True after `close`.
    def closed?
      @closed
    end

    def inspect
      "#<IOKernel::Endpoint #{url}#{" closed" if @closed}>"
    end

    # For the kernel: this is a forked child.
    def forked
      @number = nil
    end

    private

    def number!
      raise Closed.new("the endpoint is closed", status: -103, fate: :not_sent, endpoint: url) if @closed

      number = @kernel.open_number(@url)
      @kernel.block(OP_PEERS, number, @peers) if @peers
      @number = number
    end
  end
end
