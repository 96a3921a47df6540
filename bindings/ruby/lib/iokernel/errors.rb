# frozen_string_literal: true

module IOKernel
  # Any error of iokernel.
  #
  # status:: its number, negative (`status_name` is its name, such as "TIMEOUT"); 0 inside a reply.
  # fate:: `:not_sent` (sending again is safe), `:maybe_executed`, `:replied`, or nil where no request was.
  # endpoint:: the endpoint's URL, secrets left out, or nil.
  # peer:: the number of the connection, or nil.
  # code:: a word for programs, such as "WRONGTYPE"; may be empty.
  # reason:: the sentence alone; `message` adds what else is known.
  class Error < StandardError
    FATES = [nil, :not_sent, :maybe_executed, :replied].freeze

    attr_reader :status, :fate, :endpoint, :peer, :code, :reason

    def initialize(reason = self.class.name, code: "", status: 0, fate: nil, endpoint: nil, peer: nil)
      super(reason)
      @reason = reason
      @code = code
      @status = status
      @fate = fate
      @endpoint = endpoint
      @peer = peer
    end

    # The name of the status, such as "TIMEOUT".
    def status_name
      Library.iok_status_name(status).delete_prefix("IOK_STATUS_")
    end

    # True if the same request may succeed later; whether it may be sent again, its fate says.
    def retriable?
      Library.iok_status_retriable(status)
    end

    def message
      notes = [endpoint, (fate.to_s.tr("_", " ") unless fate.nil? || fate == :replied)].compact
      notes.empty? ? reason : "#{reason} (#{notes.join(", ")})"
    end
    alias to_s message

    # The error of a status. `said` is a completion's payload, `[code, message]`; `text` stands in for it.
    def self.for(status, fate = 0, endpoint: nil, peer: 0, said: nil, text: "")
      code, reason = "", text
      if said.is_a?(RemoteError)
        code, reason = said.code, said.reason
      elsif said.is_a?(Array) && said.size == 2
        code, reason = said.map(&:to_s)
      end
      reason = Library.iok_status_text(status) if reason.empty?
      KINDS.fetch(status, Error).new(reason, code: code, status: status, fate: FATES[fate], endpoint: endpoint,
                                             peer: peer.zero? ? nil : peer)
    end
  end

  # The peer answered with an error. Inside a reply (a batch, a transaction) it is an element, not raised.
  class RemoteError < Error
    def message
      code.empty? ? reason : "#{code} #{reason}"
    end
    alias to_s message

    def ==(other)
      other.is_a?(RemoteError) && code == other.code && reason == other.reason
    end
    alias eql? ==

    def hash
      [code, reason].hash
    end
  end

  # The deadline passed; the fate says whether the request may have been executed.
  class Timeout < Error; end

  # No connection could be made, or the peer refused it (user, password, database).
  class Unavailable < Error; end

  # The connection was lost before the reply, or its peer broke the protocol.
  class ConnectionLost < Error; end

  # A limit of the endpoint or the channel was reached.
  class Overloaded < Error; end

  # Cancelled by the program.
  class Cancelled < Error; end

  # The request is not one of the endpoint's protocol, or too large.
  class BadRequest < Error
    # A value that MessagePack, or the endpoint's protocol, has no place for.
    def self.cannot_pack(error)
      new("value: #{error.message.lines.first.to_s.chomp}", code: "BADREQUEST", status: -107, fate: :not_sent)
    end
  end

  # A URL or option is wrong: `key`, `value`, and what was `expected`, each nil where the text does not say so.
  class ConfigError < BadRequest
    attr_reader :key, :value, :expected

    def initialize(reason = self.class.name, **fields)
      super
      @key, @value, @expected = /\A([^:]+): (.*?): expected (.*)\z/m.match(reason)&.captures
      @value = @value&.delete_prefix('"')&.delete_suffix('"')
    end
  end

  # The kernel, endpoint, listener or lease is closed.
  class Closed < Error; end

  class Error
    KINDS = {
      -101 => BadRequest, -102 => Closed, -103 => Closed, -104 => Closed, -105 => ConfigError, -106 => BadRequest,
      -107 => BadRequest, -108 => BadRequest, -109 => Closed, -110 => Closed, -111 => Closed,
      -201 => Overloaded, -202 => Timeout, -203 => Cancelled, -204 => Overloaded, -206 => Overloaded,
      -301 => RemoteError, -302 => ConnectionLost, -303 => Unavailable, -304 => ConnectionLost, -305 => Unavailable
    }.freeze
    private_constant :KINDS
  end
end
