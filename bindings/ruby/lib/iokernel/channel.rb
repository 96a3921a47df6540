# frozen_string_literal: true

module IOKernel
  # One completion, its payload whole.
  Completion = Struct.new(:kind, :endpoint, :status, :tag, :peer, :fate, :encoding, :payload) do
    def value
      Values::Codec.new.decode(encoding, payload.dup)
    end

    def error(urls)
      said = begin
        value
      rescue StandardError
        nil
      end
      Error.for(status, fate, endpoint: urls[endpoint], peer: peer, said: said)
    end
  end
  private_constant :Completion

  # The way of one thread to the kernel: submissions gathered for one call, completions copied out at once and given to
  # who waits for them.
  #
  # A waiter has `done?`, and is told by `resolve` and `fail` of one reply, or, as a sink, of each completion by
  # `completion`.
  #
  # What another thread or a signal raises here (Timeout.timeout, Thread#raise, Ctrl-C) may come whenever a method
  # returns, also one in C. So at each of these points the state is whole, or what is begun is begun again.
  class Channel
    include Records

    OK, FULL, TIMED_OUT, INTERRUPTED, TOO_LARGE, FORKED = 0, -201, -202, -205, -108, -104
    # Tags from here on belong to requests that nobody waits for.
    QUIET_TAG = 1 << 61
    # Bytes of gathered submissions after which the kernel is given them without waiting for the turn's end.
    GATHER_BYTES = 1 << 15
    # Larger requests go the way that knows fragments.
    SMALL_BYTES = 1 << 14
    # What a completion's first word has above its size, if it is a whole reply.
    PLAIN = KIND_DONE << 32
    # The longest single sleep: a handler of a signal that came just before it may have taken what it waits for.
    SLICE_MS = 1000
    # How long a channel that closes waits for its one-way submissions to be written.
    SETTLE_S = 1.0

    # What ended it: a status below 0; 0 while it lives.
    attr_reader :ended
    # Who takes requests of clients.
    attr_accessor :listener

    def self.release(pointer)
      Library.iok_channel_close(pointer)
    end

    # `handle`: of iok_channel_open; closed when nobody holds it any more. `urls`: of endpoints, by their numbers.
    def initialize(handle, urls, ring_bytes)
      @handle = handle
      @urls = urls
      @payload_max = ring_bytes / 4 - SUBMISSION_BYTES
      @first = FFI::MemoryPointer.new(:pointer)
      @bytes = FFI::MemoryPointer.new(:size_t)
      @outbox = Outbox.new
      @full = false
      @run = nil
      @at = @run_bytes = 0
      @parts = []
      @futures = Future
      @marks = false
      @codec = Values::Codec.new
      @next_tag = 0
      @next_quiet = QUIET_TAG
      @pending = {}
      @sinks = {}
      @loose = {}
      @dropped = []
      @gathering = false
      @waiting = false
      @room = Room.new(self)
      @busy = false
      @ended = 0
      @thread = Thread.current
    end

    # Submitting

    # Queues one request, or another operation whose payload is one value. Its future. `what` is op and flags, `where`
    # endpoint and timeout, as they are in a record: nearly always the same, so that nothing is to be computed.
    def request(value, what, where, key)
      was_busy, @busy = @busy, true
      payload = @codec.pack(value)
      size = payload.bytesize + SUBMISSION_BYTES
      return large(payload, what, where, key) if size > SMALL_BYTES || @ended != 0

      waiter = @futures.new(self, tag = @next_tag += 1)
      last = @marks && Markers.of_fibers? ? marker << 32 : 0
      @outbox.add(size, what, where, tag, key, last, payload)
      @pending[tag] = waiter
    ensure
      @busy = was_busy
    end

    # Queues one submission of any kind and size, for a waiter that has its tag (a future), a sink, or nobody.
    def submit(op, flags, endpoint, timeout_ms, key, payload, waiter = nil, sink: nil, tag: nil)
      raise ended_error unless @ended.zero?

      tag ||= waiter&.tag || next_tag(flags, endpoint)
      exclusively { add(op, flags, endpoint, timeout_ms, tag, key, payload) }
      @pending[tag] = waiter if waiter
      @sinks[tag] = sink if sink
      waiter || tag
    end

    # What was queued goes, unless more of it is being gathered. A thread that is ahead of the kernel waits here.
    def submitted
      return if @gathering && @outbox.filled < GATHER_BYTES

      flush
      wait(@room) if @full && !@busy
    end

    # What the block queues goes in one call.
    def gather
      before, @gathering = @gathering, true
      yield
    ensure
      @gathering = before
      submitted unless before || @ended != 0
    end

    # Asks to end what is under way; who waited hears no more of it, `instead` takes what comes all the same. False if
    # it had ended.
    def cancel(tag, instead = nil)
      return false unless @pending.delete(tag) || @sinks.delete(tag)

      @pending[tag] = instead if instead
      return true unless @ended.zero?

      exclusively { @outbox.add(SUBMISSION_BYTES, OP_CANCEL << 32, 0, tag, 0, 0, "") }
      submitted
      true
    end

    # Cancels at the next occasion. Any thread, also from a finalizer.
    def drop(tag)
      @dropped << tag
    end

    # Submits what is queued, as much as fits.
    def flush
      return if @busy

      exclusively do
        take_dropped unless @dropped.empty?
        submit_outbox
      end
    end

    # Something waits to be submitted.
    def more?
      !(@outbox.empty? && @dropped.empty?)
    end

    # The ring has taken all that was submitted, or will take nothing any more.
    def room?
      !@full || @ended != 0
    end

    # Completing

    # Hands out what has completed: one run of the ring. How many completions there were.
    def poll
      return 0 if @busy

      @busy = true
      begin
        dispatch if @run
        count = Library.iok_poll(@handle, @first, @bytes)
        if count.zero?
          status = Library.iok_channel_status(@handle)
          finish(status) unless status.zero?
        else
          @at = 0
          @run_bytes = @bytes.read(:size_t)
          @run = @first.read_pointer
          dispatch
        end
        count
      ensure
        @busy = false
      end
    end

    # Waiting

    # Sleeps until `waiter.done?`. False if `timeout` seconds passed before.
    def wait(waiter, timeout = nil)
      was_waiting, @waiting = @waiting, true
      raise ThreadError, "this belongs to another thread: wait there" unless Thread.current.equal?(@thread)
      raise ThreadError, "this waits for a channel inside of which it is running: wait elsewhere" if @busy

      deadline = Clock.deadline(timeout)
      flush
      until waiter.done?
        next if poll.positive? && (waiter.done? || !more?)
        break unless @ended.zero?

        flush if more?
        break unless waiter.done? || sleep_until(deadline)
      end
      waiter.done?
    ensure
      @waiting = was_waiting
    end

    # Something has come for a waiter.
    def wake(waiter); end

    # Nobody is at work in it, or waits: who comes in between (a handler of a signal, a finalizer) uses another one.
    def free?
      !@busy && !@waiting && @ended == 0
    end

    # Who runs here may use it.
    def here?
      Thread.current.equal?(@thread) && Fiber.current_scheduler.nil?
    end

    # A descriptor that is readable while completions wait.
    def fd
      Library.iok_channel_fd(@handle)
    end

    # Ending

    # Ends everything under way. The thread that uses the channel.
    def close
      return if @handle.nil?

      settle if @ended.zero? && !@loose.empty? && !@busy
      finish(-103)
      detach&.free
    end

    # Takes the handle away, for another object to use it.
    def detach
      handle, @handle = @handle, nil
      handle
    end

    # A future of this channel.
    def new_future
      @futures.new(self, @next_tag += 1)
    end

    private

    # Whoever comes in between uses another channel.
    def exclusively
      was_busy, @busy = @busy, true
      yield
    ensure
      @busy = was_busy
    end

    def next_tag(flags, endpoint)
      return @next_tag += 1 if flags & FLAG_QUIET == 0

      @loose[endpoint] = true
      @next_quiet += 1
    end

    def large(payload, what, where, key)
      submit(what >> 32 & 0xffff, what >> 48, where & 0xffffffff, where >> 32, key, payload, new_future)
    end

    # The number of the marker to submit with; 0 leaves it to the library, which knows the thread's own.
    def marker
      0
    end

    # Adds one submission, in fragments if it is large: each but the last says that more follows.
    def add(op, flags, endpoint, timeout_ms, tag, key, payload)
      total = payload.bytesize
      whole = total <= @payload_max
      (0...[total, 1].max).step(@payload_max) do |at|
        bytes = [total - at, @payload_max].min
        more = at + bytes < total ? FLAG_MORE : 0
        bytes_total = whole || at.positive? ? 0 : total
        @outbox.add(SUBMISSION_BYTES + bytes, op << 32 | (flags | more) << 48, endpoint | timeout_ms << 32, tag, key,
                    bytes_total | marker << 32, payload.byteslice(at, bytes))
      end
    end

    def take_dropped
      while (tag = @dropped.shift)
        next unless @pending.delete(tag) || @sinks.delete(tag)

        @outbox.add(SUBMISSION_BYTES, OP_CANCEL << 32, 0, tag, 0, 0, "")
      end
    end

    def submit_outbox
      status = @outbox.submit(@handle)
      while status == TOO_LARGE
        # That message fails, and what is behind it goes on.
        endpoint, tag = @outbox.leave_out
        complete(Completion.new(KIND_DONE, endpoint, TOO_LARGE, tag, 0, 1, 0, ""))
        status = @outbox.submit(@handle)
      end
      @full = status == FULL
      finish(status) unless @full || status == OK
    end

    # Hands out `@run`. A reply that is seen twice finds nobody waiting; what else comes is seen once.
    def dispatch
      run, at, limit = @run, @at, @run_bytes
      while at < limit
        word = run.get_uint64(at)
        size = word & 0xffffffff
        waiter = @pending[tag = run.get_uint64(at + 16)]
        # What failed has a payload in MessagePack: bytes are a reply, whatever the status.
        encoding = run.get_uint8(at + 29)
        is_plain = waiter && word - size == PLAIN && @parts.empty? &&
                   (encoding == ENCODING_BYTES || run.get_int32(at + 12) == OK)
        if is_plain
          payload = run.get_bytes(at + COMPLETION_BYTES, size - COMPLETION_BYTES)
          encoding == ENCODING_BYTES ? waiter.resolve(payload) : deliver(waiter, encoding, payload)
          @pending.delete(tag)
          @at = at += (size + 7) & -8
        else
          Thread.handle_interrupt(Object => :never) do
            other(run.get_bytes(at, size))
            @at = at += (size + 7) & -8
          end
        end
      end
      @run = nil
      Library.iok_advance(@handle, limit)
    end

    def deliver(waiter, encoding, payload)
      case encoding
      when ENCODING_BYTES then waiter.resolve(payload)
      when ENCODING_TEXT then waiter.resolve(payload.force_encoding(Encoding::UTF_8))
      else waiter.resolve(@codec.decode(encoding, payload))
      end
    rescue MessagePack::UnpackError, EOFError, ArgumentError => error
      waiter.fail(Error.new("a reply that cannot be read: #{error.message}", fate: :replied))
    end

    # Completions that are no plain replies.
    def other(record)
      _, kind, flags, endpoint, status, tag, peer, fate, encoding = record.unpack(COMPLETION)
      return if kind == KIND_TICK

      payload = record.byteslice(COMPLETION_BYTES..)
      return @parts << payload if flags & FLAG_MORE != 0

      unless @parts.empty?
        payload = (@parts << payload).join
        @parts.clear
      end
      complete(Completion.new(kind, endpoint, status, tag, peer, fate, encoding, payload))
    end

    def complete(done)
      if done.kind == KIND_DONE
        waiter = @pending.delete(done.tag)
        return answer(waiter, done) if waiter

        sink = @sinks.delete(done.tag)
        return Log.warn("a one-way request failed: #{done.error(@urls).message}") if
          sink.nil? && listener.nil? && done.tag > QUIET_TAG && done.status != OK
      else
        sink = @sinks[done.tag]
      end
      (sink || listener)&.completion(done)
    end

    def answer(waiter, done)
      return waiter.fail(done.error(@urls)) unless done.status.zero?

      deliver(waiter, done.encoding, done.payload)
    end

    # The real wait, in which other threads run. False: the deadline is over.
    def sleep_until(deadline)
      left = deadline ? Clock.left_ms(deadline) : SLICE_MS
      return false if left.zero?

      status = Library.iok_wait(@handle, [left, SLICE_MS].min)
      finish(status) unless [OK, TIMED_OUT, INTERRUPTED].include?(status)
      true
    end

    def ended_error
      Error.for(@ended, 1, text: @ended == -103 ? "" : Library.last_error)
    end

    # The channel is of no use any more: whoever waits is told.
    def finish(status)
      return unless @ended.zero?

      @ended = status
      Fork.notice if status == FORKED
      @outbox.clear
      waiting, @pending = @pending, {}
      waiting.each_value { |waiter| waiter.fail(Error.for(status, 2)) }
      sinks, @sinks = @sinks, {}
      sinks.each { |tag, sink| sink.completion(Completion.new(KIND_DONE, 0, status, tag, 0, 2, 0, "")) }
      listener&.completion(Completion.new(KIND_DONE, 0, status, 0, 0, 0, 0, ""))
    end

    # One-way submissions are written before the channel goes: once their endpoints are up, they are.
    def settle
      states = @loose.keys.map do |endpoint|
        submit(OP_STATE, FLAG_UNTIL_UP, endpoint, (SETTLE_S * 1000).to_i, 0, "", new_future)
      end
      states.each { |state| wait(state, SETTLE_S) }
    end
  end
  private_constant :Channel

  # Waits until the ring has taken everything.
  Room = Struct.new(:channel) do
    def done?
      channel.room?
    end
  end
  private_constant :Room

  # Times to wait until.
  module Clock
    def self.now
      Process.clock_gettime(Process::CLOCK_MONOTONIC)
    end

    # When so many seconds are over; nil: never.
    def self.deadline(timeout)
      now + timeout if timeout && timeout != Float::INFINITY
    end

    def self.left(deadline)
      [deadline - now, 0].max
    end

    # Milliseconds from now, rounded up; 0 once it is over.
    def self.left_ms(deadline)
      [(left(deadline) * 1000).ceil, 0x7fffffff].min
    end
  end
  private_constant :Clock
end
