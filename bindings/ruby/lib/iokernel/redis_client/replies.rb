# frozen_string_literal: true

module IOKernel
  module RedisDriver
    # Replies and errors as redis-client has them: strings in the default encoding where they are valid in it, arrays
    # for sets, and its own errors.
    module Replies
      module_function

      def reply(value)
        case value
        when String then string(value)
        when Array then value.map { |one| reply(one) }
        when Hash then value.to_h { |key, one| [reply(key), reply(one)] }
        when Set then value.map { |one| reply(one) }
        when RemoteError then remote(value)
        else value
        end
      end

      def string(text)
        # What was a key of a Hash, or a member of a Set, is frozen.
        text = text.dup if text.frozen?
        text.force_encoding(Encoding.default_external)
        text.valid_encoding? ? text : text.force_encoding(Encoding::BINARY)
      end

      def remote(error)
        ::RedisClient::CommandError.parse([error.code, error.reason].reject(&:empty?).join(" "))
      end

      # The error that redis-client's users expect in the place of one of ours.
      def error(error)
        case error
        when RemoteError then remote(error)
        when Timeout then ::RedisClient::ReadTimeoutError.new(error.message)
        when Unavailable then refused(error) || ::RedisClient::CannotConnectError.new(error.message)
        when BadRequest then ::RedisClient::CommandError.new("ERR #{error.message}")
        else ::RedisClient::ConnectionError.new(error.message)
        end
      end

      # The server's own word about user, password or database, if that is what it is.
      def refused(error)
        said = error.reason[/\b(?:WRONGPASS|NOPERM|NOAUTH|ERR) .*/m]
        ::RedisClient::CommandError.parse(said) if error.status_name == "REFUSED" && said
      end
    end
  end
end
