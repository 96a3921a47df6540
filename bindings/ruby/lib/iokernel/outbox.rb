# frozen_string_literal: true

module IOKernel
  # Submissions that wait to be given to the kernel, in one piece of memory: records one after the other, of which the
  # ring may have taken the first. What is raised in the middle of a method of it leaves it as it was before or after.
  class Outbox
    # What there is room for at first, and again once larger ones have gone.
    BYTES = 1 << 16

    def initialize
      @cells = Array.new(2) { FFI::MemoryPointer.new(:size_t) }
      @progress = [0, @cells[0]]
      @filled = 0
      take(BYTES)
    end

    # Bytes that wait, with those before them that the ring has taken meanwhile.
    attr_reader :filled

    def empty?
      @filled == 0
    end

    # Adds a record of `size` bytes. `what` is its op and flags, above the size in one word; `where` endpoint and timeout,
    # `last` bytes_total and marker.
    def add(size, what, where, tag, key, last, payload)
      after = (size + 7) & -8
      make_room(after) if @filled + after > @room
      at = @filled
      @memory.put_uint64(at, size | what)
      @memory.put_uint64(at + 8, where)
      @memory.put_uint64(at + 16, tag)
      @memory.put_uint64(at + 24, key)
      @memory.put_uint64(at + 32, last)
      @memory.put_bytes(at + 40, payload)
      @filled = at + after
    end

    # Gives the ring as much as it takes. A status: OK once that is everything.
    def submit(handle)
      while (at = sent) < @filled
        count_from(at) if at.positive?
        status = Library.iok_submit_batch(handle, at.zero? ? @memory : @memory + at, @filled - at, @progress[1])
        return status unless status.zero?
      end
      clear
      0
    end

    # Leaves the message out that comes next: its endpoint and tag.
    def leave_out
      at = sent
      endpoint, tag = @memory.get_uint32(at + 8), @memory.get_uint64(at + 16)
      loop do
        more = @memory.get_uint16(at + 6) & Records::FLAG_MORE
        at += (@memory.get_uint32(at) + 7) & ~7
        break if more.zero?
      end
      count_from(at)
      [endpoint, tag]
    end

    # Forgets everything.
    def clear
      fresh = unused_cell
      @progress, @filled = [0, fresh], 0
      take(BYTES) if @room > 16 * BYTES
    end

    private

    # How much the ring has taken. A call that was made counts in its cell, whatever was raised after it.
    def sent
      start, cell = @progress
      start + cell.read(:size_t)
    end

    def count_from(at)
      fresh = unused_cell
      @progress = [at, fresh]
    end

    # The cell that does not count, at 0.
    def unused_cell
      cell = @progress[1].equal?(@cells[0]) ? @cells[1] : @cells[0]
      cell.write(:size_t, 0)
      cell
    end

    def take(bytes)
      memory = FFI::MemoryPointer.new(bytes)
      @memory, @room = memory, bytes
    end

    def make_room(more)
      at = sent
      waiting = @memory.get_bytes(at, @filled - at)
      bytes, needed = waiting.bytesize, waiting.bytesize + more
      room = needed > @room ? [2 * @room, needed].max : @room
      memory = FFI::MemoryPointer.new(room)
      memory.put_bytes(0, waiting)
      fresh = unused_cell
      @memory, @room, @filled, @progress = memory, room, bytes, [0, fresh]
    end
  end
  private_constant :Outbox
end
