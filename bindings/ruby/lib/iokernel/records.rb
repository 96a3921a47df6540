# frozen_string_literal: true

module IOKernel
  # The numbers and shapes of records, as the ABI has them (version 1).
  module Records
    OP_ECHO, OP_OPEN, OP_LISTEN, OP_CLOSE, OP_REQUEST, OP_STREAM, OP_CANCEL, OP_LEASE, OP_RELEASE, OP_REPLY, OP_STATE,
      OP_PEERS, OP_WATCH = (1..13).to_a

    FLAG_MORE = 1
    FLAG_IDEMPOTENT = 2
    FLAG_QUIET = 4
    FLAG_UNTIL_UP = 8
    FLAG_ROUTE = 16

    KIND_DONE, KIND_PUSH, KIND_REQUEST, KIND_LOST, KIND_ACCEPTED, KIND_GONE, KIND_TICK = (1..7).to_a

    ENCODING_NONE, ENCODING_MSGPACK, ENCODING_BYTES, ENCODING_TEXT, ENCODING_RAW = (0..4).to_a

    SUBMISSION_BYTES = 40
    COMPLETION_BYTES = 72
    TIMEOUT_NONE = 0xffffffff

    # Of a completion: size, kind, flags, endpoint, status, tag, peer, fate, encoding.
    COMPLETION = "LSSLlQLCC"

    # Seconds as a record holds them. nil: the endpoint's default; Float::INFINITY: none. Raises Timeout if the time is
    # over already, BadRequest if it is no time.
    def self.timeout_ms(timeout)
      return 0 if timeout.nil?
      raise BadRequest.new("timeout: #{timeout.inspect}: expected seconds, nil or Float::INFINITY",
                           status: -107, fate: :not_sent) unless timeout.is_a?(Numeric) && timeout == timeout
      raise Timeout.new("the time was over before the request began", status: -202, fate: :not_sent) if timeout <= 0

      timeout >= TIMEOUT_NONE / 1000 ? TIMEOUT_NONE : (timeout * 1000).ceil
    end

    # The 64 bits by which requests of one route go to one peer: an Integer, modulo 2**64; 0, which means "no key" in a
    # record, becomes 2**64 - 1.
    def self.route_key(route)
      raise BadRequest.new("route: #{route.inspect}: expected an Integer", status: -107, fate: :not_sent) unless
        route.is_a?(Integer)

      key = route & 0xffffffffffffffff
      key.zero? ? 0xffffffffffffffff : key
    end

    # A size as options have it (`64KiB`), in bytes; nil if it is none.
    def self.bytes(text)
      match = /\A(\d+)(|KiB|MiB|GiB)\z/.match(text) or return
      match[1].to_i << { "" => 0, "KiB" => 10, "MiB" => 20, "GiB" => 30 }.fetch(match[2])
    end
  end
  private_constant :Records
end
