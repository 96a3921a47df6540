# frozen_string_literal: true

module IOKernel
  # What the program is doing, for those who ask while it does: `kernel.marker("render invoice", id: 7) { ... }`.
  #
  # It is shown by the admin endpoint for as long as the block runs, and goes with each request that is submitted
  # meanwhile. It may be nested, entered again (also inside of itself), and used by many threads and fibers. A thread
  # shows 15 at a time: what is beyond is not shown.
  class Marker
    TEXT_BYTES = 56

    # What is shown, 56 bytes at most.
    attr_reader :text

    def initialize(kernel, text)
      @kernel = kernel
      whole = text.encode(Encoding::UTF_8, invalid: :replace, undef: :replace).scrub.tr("\0", " ")
      @text = whole.byteslice(0, TEXT_BYTES).scrub("").freeze
    end

    # Is shown while the block runs. Gives what the block gives.
    def enter(&block)
      slot = Markers.slot(@kernel)
      return yield unless slot

      place, serial = slot.take(@text)
      begin
        Fiber.current_scheduler ? Markers.around_fiber(serial, &block) : slot.around(serial, &block)
      ensure
        slot.leave(place, serial)
      end
    end

    def inspect
      "#<IOKernel::Marker #{@text.inspect}>"
    end
  end

  # A thread's slot of shared memory, written by that thread alone. Its shape is that of `iok_markers` in the header.
  class Slot
    PLACES = 15
    HEAD_BYTES = 64
    PLACE_BYTES = 64
    ACTIVE = 1 << 63
    COUNT_MASK = (1 << 26) - 1

    def initialize(memory)
      @memory = memory
      @tid = memory.get_uint32(0)
    end

    # False in a forked child.
    def own?
      @memory.get_uint32(0) == @tid
    end

    # Shows a text. Its place and serial; no place and 0 if none is left.
    def take(text)
      last = @memory.get_uint32(8)
      count = (last + 1) & COUNT_MASK
      count = 1 if count.zero?
      place = (0...PLACES).map { |step| HEAD_BYTES + (count + step) % PLACES * PLACE_BYTES }
                          .find { |at| @memory.get_uint64(at) & ACTIVE == 0 }
      return overflow unless place

      serial = (last & ~COUNT_MASK) | count
      @memory.put_uint32(8, serial)
      @memory.put_uint64(place, 0)
      @memory.put_bytes(place + 8, text)
      @memory.put_uint64(place, serial | text.bytesize << 32 | ACTIVE)
      [place, serial]
    end

    # A marker is no longer shown.
    def leave(place, serial)
      return unless place && own?

      head = @memory.get_uint64(place)
      @memory.put_uint64(place, head & ~ACTIVE) if head & 0xffffffff == serial
    end

    # Requests of this thread say so while the block runs.
    def around(serial)
      before = @memory.get_uint32(4)
      @memory.put_uint32(4, serial) unless serial.zero?
      yield
    ensure
      @memory.put_uint32(4, before) if before && own?
    end

    private

    def overflow
      @memory.put_uint32(12, @memory.get_uint32(12) + 1)
      [nil, 0]
    end
  end
  private_constant :Slot

  # The slots of threads, and the markers of fibers.
  module Markers
    @fibers = false

    module_function

    # This thread's slot where a kernel's markers are; nil if there is none left: then nothing is shown of it.
    def slot(kernel)
      slots = Thread.current.thread_variable_get(:iokernel_slots) ||
              {}.tap { |fresh| Thread.current.thread_variable_set(:iokernel_slots, fresh) }
      slot = slots[kernel.area]
      return slot if slot&.own?

      memory = Library.pointer_from { |out| Library.iok_marker_slot(kernel.handle, out) }
      slots[kernel.area] = Slot.new(memory)
    rescue Overloaded, Closed
      nil
    end

    # Requests of this fiber say so while the block runs: others take turns with it on its thread.
    def around_fiber(serial)
      @fibers = true
      before = Thread.current[:iokernel_marker]
      Thread.current[:iokernel_marker] = serial unless serial.zero?
      yield
    ensure
      Thread.current[:iokernel_marker] = before
    end

    # Any fiber has ever been in one.
    def of_fibers?
      @fibers
    end

    # The number of the marker that this fiber is in, or 0.
    def of_fiber
      Thread.current[:iokernel_marker] || 0
    end
  end
  private_constant :Markers
end
