# frozen_string_literal: true

module IOKernel
  # Messages as they come, until `close`: `each`, or `get`, in the thread (or the loop) that made it.
  #
  # It outlives lost connections: messages sent meanwhile are not delivered, `reconnects` counts. `lost` counts messages
  # dropped because the program left too many unread. Closed when nobody holds it any more.
  class Subscription
    include Enumerable

    # Gives a subscription to the block, if there is one, and closes it at its end.
    def self.begin(subscription)
      return subscription unless block_given?

      begin
        yield subscription
      ensure
        subscription.close
      end
    end

    # For the finalizer, which must not hold the subscription.
    def self.dropper(channel, tag)
      proc { channel.drop(tag) }
    end

    def initialize(kernel, operation, number, timeout_ms, payload, buffer, keeps_newest: false)
      @channel = kernel.channel
      @inbox = Inbox.new(@channel, kernel.urls, buffer, keeps_newest)
      Thread.handle_interrupt(Object => :never) do
        @tag = @channel.submit(operation, 0, number, timeout_ms, 0, payload, sink: @inbox)
        ObjectSpace.define_finalizer(self, Subscription.dropper(@channel, @tag))
      end
      @channel.wait(@inbox)
      raise @inbox.error if @inbox.error

      @inbox.awaited = 0
      is_settled = true
    ensure
      close unless is_settled || @tag.nil?
    end

    # The next message, waiting for it `timeout` seconds at most (nil: for ever). Raises Timeout when the time is over;
    # after the end, what ended it, or Closed.
    def get(timeout = nil)
      deadline = Clock.deadline(timeout)
      while @inbox.messages.empty?
        raise @inbox.error || Closed.new("the subscription has ended", status: -103) if @inbox.closed

        next if @channel.wait(@inbox, deadline && Clock.left(deadline))

        raise Timeout.new("no message within #{timeout} s", status: -202)
      end
      @inbox.messages.shift
    end

    # Gives every message to the block, until the end; raises what ended it, if that was not `close`.
    def each
      return to_enum unless block_given?

      until @inbox.messages.empty? && @inbox.closed
        @inbox.messages.empty? ? @channel.wait(@inbox) : yield(@inbox.messages.shift)
      end
      raise @inbox.error if @inbox.error

      self
    end

    # How many messages were dropped because too many were left unread.
    def lost
      @inbox.lost
    end

    # How often the connection was made anew.
    def reconnects
      [@inbox.accepted - 1, 0].max
    end

    # Ends it. Messages that came before can still be taken. Twice is harmless.
    def close
      return if @inbox.closed

      @inbox.end
      @channel.cancel(@tag)
      nil
    end

    # True once no more messages come.
    def closed?
      @inbox.closed
    end

    def inspect
      "#<#{self.class} #{@inbox.closed ? "closed" : "open"}, #{@inbox.messages.size} waiting>"
    end
  end

  # How an endpoint, or a kernel, is: at once, and after every change. `lost` counts states that were left unread for
  # too long: the oldest go first.
  class Watch < Subscription
    def initialize(kernel, number, buffer)
      super(kernel, Records::OP_WATCH, number, 0, "", buffer, keeps_newest: true)
    end
  end

  # What has come for a subscription. The channel holds it, not the subscription.
  class Inbox
    include Records

    attr_reader :messages, :lost, :accepted, :closed, :error
    # So many acceptances are waited for; 0: messages are.
    attr_writer :awaited

    def initialize(channel, urls, buffer, keeps_newest)
      @channel = channel
      @urls = urls
      @buffer = buffer
      @keeps_newest = keeps_newest
      @messages = []
      @lost = 0
      @accepted = 0
      @awaited = 1
      @closed = false
      @error = nil
    end

    def done?
      @closed || (@awaited.zero? ? !@messages.empty? : @accepted >= @awaited)
    end

    def completion(done)
      case done.kind
      when KIND_ACCEPTED then @accepted += 1
      when KIND_LOST then @lost += done.value
      when KIND_DONE
        @error = done.error(@urls) unless done.status.zero? || @closed
        @closed = true
      else take(done.value)
      end
      @channel.wake(self)
    end

    def end
      @closed = true
      @channel.wake(self)
    end

    private

    def take(message)
      if @messages.size < @buffer
        @messages << message
      else
        @lost += 1
        @messages.push(message).shift if @keeps_newest
      end
    end
  end
  private_constant :Inbox
end
