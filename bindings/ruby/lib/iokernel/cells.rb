# frozen_string_literal: true

module IOKernel
  # A series' cells of shared memory. Ruby may change threads, or run the handler of a signal, between a load and a store
  # of its own: the library adds.
  class Cells
    def initialize(handle, spec, labels)
      all = spec.transform_keys(&:to_s).merge(labels.transform_keys { |label| "label.#{label}" })
      count = FFI::MemoryPointer.new(:uint32)
      memory = Library.pointer_from { |out| Library.iok_cells(handle, Options.query(all), out, count) }
      @cells = Array.new(count.read_uint32) { |at| memory.slice(8 * at, 8) }
      @last = @cells.last
    end

    # Counts so many more in a cell.
    def count(at, more)
      Library.iok_cell_count(@cells[at], more)
    end

    # What a cell has counted.
    def count_of(at)
      @cells[at].read_uint64
    end

    # Adds to the last cell, which is a double.
    def add(more)
      Library.iok_cell_add(@last, more)
    end

    # Sets the last cell.
    def set(number)
      @last.write_double(number)
    end

    # The last cell, as a double.
    def number
      @last.read_double
    end
  end
  private_constant :Cells

  # What counters, sums, gauges and histograms have in common. Any thread, any fiber; they survive forks, in which a child
  # counts in cells of its own, and the kernel.
  class Metric
    # Its name, as given; its labels, by their names.
    attr_reader :name, :labels

    def initialize(handle, spec, labels)
      @name = spec[:name].to_s
      @labels = labels.to_h { |label, value| [label.to_s, value.to_s] }.sort.to_h.freeze
      @cells = Cells.new(handle, spec, @labels)
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

  # Counts whole numbers.
  class Counter < Metric
    # Counts `by` more, an Integer from 0 on.
    def increment(by = 1)
      raise TypeError, "#{by.inspect}: expected an Integer" unless Integer === by

      @cells.count(0, grows(by))
      nil
    end

    # This process's part. It begins where a process that has ended, and whose cells this one took over, left it: only
    # its growth, and the sum over all processes that `/metrics` shows, mean anything.
    def value
      @cells.count_of(0)
    end
  end

  # Adds up what is no whole number, such as seconds.
  class Sum < Metric
    # Adds `by`, a finite number from 0 on.
    def increment(by = 1)
      @cells.add(grows(finite(by)))
      nil
    end

    # This process's part; see Counter#value.
    def value
      @cells.number
    end
  end

  # What goes up and down. Each process has its own, which begins at 0 and is gone when the process is.
  class Gauge < Metric
    # Is so much from here on.
    def set(value)
      @cells.set(Float(value))
      nil
    end

    # Goes up by so much.
    def increment(by = 1)
      @cells.add(finite(by))
      nil
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
      @cells.number
    end
  end

  # How values are distributed.
  class Histogram < Metric
    # The bounds of a histogram that is given none: for times in seconds.
    BUCKETS = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0].freeze

    # The upper bounds, each inclusive; the last bucket, which has none, left out.
    attr_reader :buckets

    def initialize(handle, spec, labels)
      super
      @buckets = spec[:buckets].split(",").map(&:to_f).freeze
    end

    # Counts a finite value.
    def observe(value)
      number = finite(value)
      @cells.count(@buckets.bsearch_index { |edge| number <= edge } || @buckets.size, 1)
      @cells.add(number)
      nil
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
