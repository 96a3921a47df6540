# frozen_string_literal: true

require "redis_client/connection_mixin"

module IOKernel
  module RedisDriver
    # What redis-client takes for a connection. Nothing of it is a socket: ordinary commands go to the shared endpoint,
    # what changes a connection (WATCH, MULTI, SELECT) to a lease, subscriptions to streams.
    class Connection
      include ::RedisClient::ConnectionMixin

      # Commands that the endpoint's own handshake has done already.
      HANDSHAKE = %w[HELLO AUTH SELECT CLIENT].freeze
      # Commands after which a connection is not like the others, and those that end that.
      OPENING = %w[WATCH MULTI SELECT].freeze
      CLOSING = %w[EXEC DISCARD UNWATCH].freeze

      # Its configuration, and, for redis-client, which attempt this is.
      attr_reader :config
      attr_accessor :retry_attempt

      # What stands for a context of OpenSSL: options of the endpoint.
      def self.ssl_context(params)
        Address.tls_options(params)
      end

      def initialize(config, connect_timeout:, read_timeout:, write_timeout:)
        @config = config
        ::RedisClient::ConnectionMixin.instance_method(:initialize).arity.zero? ? super() : super(config)
        @connect_timeout = connect_timeout
        @read_timeout = read_timeout
        @write_timeout = write_timeout
        @endpoint = Address.endpoint(config)
        connect
      end

      attr_writer :read_timeout, :write_timeout

      def connected?
        @connected
      end

      # Nothing of an earlier request is left over here, whatever became of it.
      def revalidate
        @pending_reads = 0
        connected?
      end

      def reconnect
        close
        connect
      end

      def close
        @connected = false
        @lease&.release
        @topics&.close
        @lease = @topics = nil
        @written = []
        super
      end

      # One command; `timeout` as redis-client has it: nil is the read timeout, 0 none, else what the command itself may
      # wait.
      def call(command, timeout = nil)
        return prelude(command) if prelude?(command)

        name = command.first.upcase
        lease if OPENING.include?(name)
        guard { Replies.reply((@lease || @endpoint).call(*command, timeout: seconds(timeout))) }
      rescue ::RedisClient::Error => error
        raise told(error, command)
      ensure
        end_lease if @lease && CLOSING.include?(name)
      end

      # All at once, in their order. Raises the first error, unless `exception` is false.
      def call_pipelined(commands, timeouts, exception: true)
        results = guard { batch?(commands, timeouts) ? batch(commands) : in_order(commands, timeouts) }
        failed = results.each_index.select { |at| results[at].is_a?(::RedisClient::Error) }
        failed.each { |at| told(results[at], commands[at]) }
        raise results[failed.first] if exception && failed.any?

        results
      end

      def write(command)
        guard do
          if Topics.command?(command)
            @written.concat((@topics ||= Topics.new(@endpoint)).write(command))
          else
            @written << (@lease || @endpoint).async(*command, timeout: seconds(nil))
          end
        end
        nil
      end

      def write_multi(commands)
        commands.each { |command| write(command) }
        nil
      end

      # The reply to what was written first, or the next push. An error is given, not raised.
      def read(timeout = nil)
        first = @written.shift
        return first if first.is_a?(Array)

        guard do
          next Replies.reply(first.value) if first
          raise Closed.new("nothing was written", status: -103) unless @topics

          Replies.reply(@topics.read(push_seconds(timeout)) || raise(Timeout.new("no message came", status: -202)))
        end
      rescue ::RedisClient::CommandError => error
        error
      end

      # Milliseconds.
      def measure_round_trip_delay
        start = Clock.now
        call(["PING"])
        (Clock.now - start) * 1000
      end

      private

      def connect
        @written = []
        @lease = @topics = nil
        guard { @endpoint.wait_ready(@connect_timeout || Float::INFINITY) }
        @connected = true
      end

      # Ours become redis-client's. A connection that was lost is none any more.
      def guard
        yield
      rescue IOKernel::Error => error
        theirs = Replies.error(error)
        close if theirs.is_a?(::RedisClient::ConnectionError) && !theirs.is_a?(::RedisClient::ReadTimeoutError)
        theirs.set_backtrace(error.backtrace)
        raise theirs
      end

      def told(error, command)
        error._set_command(command) if error.respond_to?(:_set_command)
        error._set_config(config) if error.respond_to?(:_set_config)
        error._set_retry_attempt(retry_attempt) if error.respond_to?(:_set_retry_attempt)
        error
      end

      def seconds(timeout)
        return @read_timeout || Float::INFINITY if timeout.nil?

        timeout && timeout.positive? ? timeout + (@read_timeout || 0) : Float::INFINITY
      end

      def push_seconds(timeout)
        timeout.nil? ? @read_timeout : (timeout.positive? ? timeout : nil)
      end

      def lease
        @lease ||= guard { @endpoint.lease(timeout: @connect_timeout) }
      end

      def end_lease
        @lease.release
        @lease = nil
      end

      # What redis-client says first on a connection: the endpoint has said the same in its handshake.
      def prelude?(command)
        return false unless HANDSHAKE.include?(command.first)

        config.connection_prelude.include?(command) || command == ["CLIENT", "SETNAME", config.id]
      end

      def prelude(command)
        command.first == "HELLO" ? {"server" => "redis", "proto" => 3} : "OK"
      end

      # What one batch can carry: no command that waits in the server or changes the connection for longer.
      def batch?(commands, timeouts)
        return false if timeouts || @lease || commands.any? { |command| prelude?(command) }

        opened = closed = 0
        commands.each do |command|
          name = command.first.upcase
          return false if WAITING.include?(name)

          opened += 1 if name == "MULTI"
          closed += 1 if name == "EXEC"
        end
        opened == closed
      end
      WAITING = %w[BLPOP BRPOP BLMOVE BRPOPLPUSH BLMPOP BZPOPMIN BZPOPMAX BZMPOP WAIT WAITAOF XREAD XREADGROUP WATCH
                   UNWATCH DISCARD SELECT].freeze
      private_constant :WAITING

      def batch(commands)
        @endpoint.call(*commands, timeout: @read_timeout || Float::INFINITY).map { |one| Replies.reply(one) }
      end

      # One after the other on a connection of our own, except what the handshake has done.
      def in_order(commands, timeouts)
        held = @lease
        replies = commands.each_with_index.map do |command, at|
          next prelude(command) if prelude?(command)

          lease.async(*command, timeout: seconds(timeouts && timeouts[at]))
        end
        replies.map { |one| one.is_a?(Future) ? outcome(one) : one }
      ensure
        end_lease if @lease && (held.nil? || CLOSING.include?(commands.last.first.upcase))
      end

      def outcome(future)
        Replies.reply(future.value)
      rescue RemoteError => error
        Replies.remote(error)
      end
    end
  end
end
