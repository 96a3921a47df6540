# frozen_string_literal: true

module IOKernel
  # A series' cells of shared memory: written by plain stores, without a call into the library that counts. The
  # interpreter's lock makes an addition whole: nothing of Ruby's takes it away between the load and the store.
  class Cells
    # Its name, as given; its labels, by their names.
    attr_reader :name, :labels

    def initialize(handle, spec, labels)
      @name = spec[:name].to_s
      @labels = labels.to_h { |label, value| [label.to_s, value.to_s] }.sort.to_h.freeze
      all = spec.transform_keys(&:to_s).merge(@labels.transform_keys { |label| "label.#{label}" })
      count = FFI::MemoryPointer.new(:uint32)
      cells = Library.pointer_from { |out| Library.iok_cells(handle, Options.query(all), out, count) }
      @cells = cells.slice(0, 8 * count.read_uint32)
    end

    def inspect
      "#<#{self.class} #{@name}#{@labels unless @labels.empty?}>"
    end

    private

    def finite(value)
      number = Float(value)
      raise ArgumentError, "#{value.inspect}: expected a finite number" unless number.finite?

      number
    end

    def grows(value)
      raise ArgumentError, "#{value.inspect}: what counts only grows" if value.negative?

      value
    end
  end
  private_constant :Cells

  # Counts whole numbers. Any thread; it survives forks (a child counts in a cell of its own) and the kernel.
  class Counter < Cells
    # Counts `by` more, an Integer from 0 on.
    def increment(by = 1)
      raise TypeError, "#{by.inspect}: expected an Integer" unless Integer === by

      grows(by) if by.negative?
      @cells.put_uint64(0, (@cells.get_uint64(0) + by) & 0xffffffffffffffff)
    end

    # This process's part. It begins where a process that has ended, and whose cells this one took over, left it: only
    # its growth, and the sum over all processes that `/metrics` shows, mean anything.
    def value
      @cells.get_uint64(0)
    end
  end

  # Adds up what is no whole number, such as seconds. As Counter, but for numbers from 0 on.
  class Sum < Cells
    # Adds `by`, a finite number from 0 on.
    def increment(by = 1)
      more = grows(finite(by))
      @cells.put_float64(0, @cells.get_float64(0) + more)
    end

    # This process's part; see Counter#value.
    def value
      @cells.get_float64(0)
    end
  end

  # What goes up and down. Any thread. Each process has its own, which begins at 0 and is gone when the process is.
  class Gauge < Cells
    # Is so much from here on.
    def set(value)
      @cells.put_float64(0, Float(value))
    end

    # Goes up by so much.
    def increment(by = 1)
      more = finite(by)
      @cells.put_float64(0, @cells.get_float64(0) + more)
    end

    # Goes down by so much.
    def decrement(by = 1)
      increment(-by)
    end

    # One more while the block runs. Gives what it gives.
    def track
      increment
      yield
    ensure
      decrement
    end

    # What it is in this process.
    def value
      @cells.get_float64(0)
    end
  end

  # How values are distributed. Any thread.
  class Histogram < Cells
    # The bounds of a histogram that is given none: for times in seconds.
    BUCKETS = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0].freeze

    # The upper bounds, each inclusive; the last bucket, which has none, left out.
    attr_reader :buckets

    def initialize(handle, spec, labels)
      super
      @buckets = spec[:buckets].split(",").map(&:to_f).freeze
      @last = 8 * (@buckets.size + 1)
    end

    # Counts a finite value.
    def observe(value)
      number = finite(value)
      at = 8 * (@buckets.bsearch_index { |edge| number <= edge } || @buckets.size)
      @cells.put_uint64(at, @cells.get_uint64(at) + 1)
      @cells.put_float64(@last, @cells.get_float64(@last) + number)
    end

    # Observes how long the block takes, in seconds; what ends with an exception counts too. Gives what it gives.
    def time
      start = Clock.now
      yield
    ensure
      observe(Clock.now - start)
    end
  end
end
