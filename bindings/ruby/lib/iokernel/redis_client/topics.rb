# frozen_string_literal: true

module IOKernel
  module RedisDriver
    # The subscriptions of one connection, which redis-client writes and reads as commands and pushes.
    class Topics
      KINDS = %w[SUBSCRIBE PSUBSCRIBE SSUBSCRIBE].freeze
      ENDS = KINDS.to_h { |kind| [kind.sub("SUB", "UNSUB"), kind] }.freeze
      BUFFER = 1 << 20

      # True for a command of subscriptions.
      def self.command?(command)
        name = command.first.to_s.upcase
        KINDS.include?(name) || ENDS.key?(name)
      end

      def initialize(endpoint)
        @endpoint = endpoint
        @channel = endpoint.kernel.channel
        @inbox = Inbox.new(@channel, endpoint.kernel.urls, BUFFER, false)
        @tags = {}
      end

      # Subscribes, or ends subscriptions. The pushes that confirm it.
      def write(command)
        name, *topics = command.map(&:to_s)
        name = name.upcase
        return topics.map { |topic| subscribe(name, topic) } unless ENDS.key?(name)

        topics = @tags.keys.filter_map { |kind, topic| topic if kind == ENDS[name] } if topics.empty?
        topics.map { |topic| unsubscribe(name, topic) }
      end

      # The next push; nil when `timeout` seconds are over.
      def read(timeout)
        @channel.wait(@inbox, timeout)
        return @inbox.messages.shift unless @inbox.messages.empty?
        raise @inbox.error || Closed.new("the subscription has ended", status: -103) if @inbox.closed

        nil
      end

      def close
        @inbox.end
        @tags.each_value { |tag| @channel.cancel(tag) }
        @tags.clear
      end

      private

      def subscribe(name, topic)
        key = [name, topic]
        unless @tags.key?(key)
          @inbox.awaited = @inbox.accepted + 1
          @tags[key] = @channel.submit(Records::OP_STREAM, 0, @endpoint.number, 0, 0, Values.pack(key), sink: @inbox)
          @channel.wait(@inbox)
          @inbox.awaited = 0
          raise @inbox.error if @inbox.error
        end
        [name.downcase, topic, @tags.size]
      end

      def unsubscribe(name, topic)
        tag = @tags.delete([ENDS[name], topic])
        @channel.cancel(tag) if tag
        [name.downcase, topic, @tags.size]
      end
    end
  end
end
