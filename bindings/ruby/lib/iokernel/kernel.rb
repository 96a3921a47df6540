# frozen_string_literal: true

module IOKernel
  # An I/O thread with everything it owns: `IOKernel::Kernel.new(name: "web-1")`. Usually the default one is enough.
  #
  # Any thread and any fiber may use it. In a forked child it starts anew, with no connection of the parent's, at its
  # first use. Closed when nobody holds it any more.
  class Kernel
    @numbers = 0
    @kernels = ObjectSpace::WeakMap.new

    class << self
      # A name of its own for what threads keep for a kernel.
      def next_slots
        number = @numbers += 1
        [:"iokernel_#{number}", :"iokernel_#{number}_loop"]
      end

      def remember(kernel)
        @kernels[kernel] = kernel
      end

      # In a forked child: nothing of the parent's is touched; everything opens again at its first use.
      def forked
        @kernels.values.each(&:forked)
      end

      # For the finalizer, which must not hold the kernel.
      def closer(box)
        proc { box.shift&.then { |handle| Library.iok_kernel_close(handle, 0) } }
      end
    end

    # Where what endpoints are called is kept: their URLs by their numbers. For channels.
    attr_reader :urls

    # `config` is the library's: `name:`, `admin:`, `busy_limit:`, `metrics:` and so on. `channel`: options of the
    # channels of its threads and loops, such as `{ring: "4MiB"}`. `stack` lets the admin endpoint's `/stack` ask this
    # process's threads where they are, by a signal (`stack_signal:`, URG by default); it is on where `admin` is given.
    #
    # With a block, gives itself to it and closes at its end. Raises ConfigError for options that the library does not
    # know.
    def self.open(**config)
      kernel = new(**config)
      return kernel unless block_given?

      begin
        yield kernel
      ensure
        kernel.close
      end
    end

    def initialize(stack: nil, channel: {}, **config)
      @stack = stack.nil? ? !config[:admin].nil? : stack
      @config = Options.query(config)
      @channel_config = Options.query(channel)
      @ring_bytes = Records.bytes(channel.fetch(:ring, "1MiB").to_s) || 1 << 20
      @area = (config[:metrics] || "").to_s
      @series = {}
      @mortal = ObjectSpace::WeakMap.new
      @closed = false
      @box = []
      begin_anew
      Kernel.remember(self)
      ObjectSpace.define_finalizer(self, Kernel.closer(@box))
      handle
    end

    # Opens a service; see IOKernel.open.
    def open(url, **options)
      endpoint = Endpoint.new(self, Options.url(url, options))
      return endpoint unless block_given?

      begin
        yield endpoint
      ensure
        endpoint.close
      end
    end

    # Opens a listener; see IOKernel.listen.
    def listen(url, **options)
      Listener.new(self, Options.url(url, options))
    end

    # The value, as it comes back from the I/O thread: shows that it lives, and how long the way there is.
    def echo(value)
      channel = self.channel
      future = channel.request(value, Records::OP_ECHO << 32, 0, 0)
      channel.wait(future)
      Values.unpack(future.value)
    ensure
      future.cancel unless future.nil? || future.done?
    end

    # What the block asks for (`endpoint.async`) goes to the kernel in one call. Gives what the block gives.
    def gather(&block)
      channel.gather(&block)
    end

    # A counter of whole numbers: `kernel.counter("orders", shop: "north").increment`. `labels` are the other keywords;
    # those that are called `help` or `unit` come in `labels:`. The same name and labels are the same counter.
    #
    # Raises ConfigError for a wrong name, unit or label; Overloaded if there is no room for another series.
    def counter(name, help: "", unit: "", labels: {}, **more)
      series(Counter, {kind: "counter", name: name, help: help, unit: unit}, labels.merge(more))
    end

    # A counter of what is no whole number, such as seconds; see `counter`.
    def sum(name, help: "", unit: "", labels: {}, **more)
      series(Sum, {kind: "sum", name: name, help: help, unit: unit}, labels.merge(more))
    end

    # What goes up and down: `kernel.gauge("depth").set(3)`. `merge`: how the gauges of several processes make one:
    # "sum", "max" or "min". See `counter`.
    def gauge(name, help: "", unit: "", merge: "sum", labels: {}, **more)
      series(Gauge, {kind: "gauge", name: name, help: help, unit: unit, merge: merge}, labels.merge(more))
    end

    # How values are distributed: `kernel.histogram("render", unit: "seconds").observe(0.2)`. `buckets`: upper bounds,
    # growing, 128 at most. See `counter`.
    def histogram(name, help: "", unit: "", buckets: Histogram::BUCKETS, labels: {}, **more)
      edges = buckets.map { |edge| Float(edge) }.join(",")
      series(Histogram, {kind: "histogram", name: name, help: help, unit: unit, buckets: edges}, labels.merge(more))
    end

    # What the program is doing: `kernel.marker("render invoice", id: 7) { ... }` shows `render invoice id=7` (56 bytes
    # at most) to whoever asks, and with each request submitted meanwhile. Gives what the block gives; without a block,
    # a Marker to be entered often.
    def marker(text, **fields, &block)
      marker = Marker.new(self, [text, *fields.map { |name, value| "#{name}=#{value}" }].join(" "))
      block ? marker.enter(&block) : marker
    end

    # How it is: `"ready"` (every endpoint opened with `require: true` is up), `"missing"` (the URLs of those that are
    # not), and `"endpoints"`, each with its `"endpoint"` (a number), `"url"`, `"state"` and `"required"`.
    def state
      block(Records::OP_STATE, 0, "").value
    end

    # `state` at once, and again after every change; see Endpoint#watch.
    def watch(buffer: 1024, &block)
      handle
      Subscription.begin(Watch.new(self, 0, buffer), &block)
    end

    # Waits until every endpoint opened with `require: true` is up. Raises Unavailable after `timeout` seconds (nil: as
    # long as it takes).
    def wait_ready(timeout = nil)
      handle
      wait_until_up(0, timeout || Float::INFINITY)
    end

    # Closes every endpoint and ends the I/O thread. Requests under way may finish for `drain` seconds; what is left
    # then fails with Closed. Closing twice is harmless. Any thread.
    def close(drain: 0)
      @closed = true
      handle = @box.shift or return
      Stack.close(handle) if @stack
      status = Library.iok_kernel_close(handle, [(drain * 1000).ceil, 0x7fffffff].min)
      Thread.current.thread_variable_get(@slot)&.each { |channel| nil while channel.free? && channel.poll.positive? }
      raise Error.for(status, text: Library.last_error) unless [0, -102, -104].include?(status)
    end

    # True after `close`.
    def closed?
      @closed
    end

    def inspect
      shown = @config.gsub(/(\A|&)(otlp_headers)=[^&]*/, '\1\2=***')
      "#<IOKernel::Kernel #{shown}#{" " unless shown.empty?}#{@closed ? "closed" : "open"}>"
    end

    # For endpoints, listeners and metrics: the handle, of a kernel that is opened again in a forked child.
    def handle
      @box.first || @lock.synchronize { @box.first || open_handle }
    end

    # The channel of who runs here: a thread, or the fibers of a scheduler.
    def channel
      # A fiber is of one thread, and of one scheduler, for as long as it lives: it remembers its channel.
      channel = Thread.current[@slot]
      channel&.free? ? channel : find_channel
    end

    # A channel of its own, for a listener.
    def open_channel
      Library.pointer_from { |out| Library.iok_channel_open(handle, @channel_config, out) }
             .then { |pointer| FFI::AutoPointer.new(pointer, Channel.method(:release)) }
    end

    # A channel over a handle, for who runs here.
    def channel_over(handle)
      scheduler = Fiber.current_scheduler
      return LoopChannel.new(handle, @urls, @ring_bytes, scheduler) if scheduler

      Channel.new(handle, @urls, @ring_bytes)
    end

    # One operation, waiting for its end. Its completion; raises if it failed.
    def block(op, endpoint, payload, channel = self.channel, timeout_ms: 0, key: 0)
      outcome = Outcome.new(channel)
      channel.submit(op, 0, endpoint, timeout_ms, key, payload, sink: outcome)
      channel.wait(outcome)
      raise outcome.done.error(@urls) unless outcome.done.status.zero?

      outcome.done
    end

    # Opens a service. Its number.
    def open_number(url)
      number = block(Records::OP_OPEN, 0, url).endpoint
      @urls[number] = Options.shown(url)
      number
    end

    def wait_until_up(endpoint, timeout)
      channel = self.channel
      flags, ms = Records::FLAG_UNTIL_UP, Records.timeout_ms(timeout)
      future = channel.submit(Records::OP_STATE, flags, endpoint, ms, 0, "", channel.new_future)
      future.value
      nil
    rescue Timeout => error
      raise Unavailable.new(error.reason, code: error.code, status: -303, fate: :not_sent, endpoint: error.endpoint)
    ensure
      future&.cancel
    end

    # Something whose number means nothing in a forked child.
    def mark_mortal(one)
      @mortal[one] = one
    end

    def forked
      @box.clear
      begin_anew
      @mortal.values.each(&:forked)
    end

    # Markers and metrics of kernels with the same place are the same.
    attr_reader :area

    private

    def begin_anew
      @lock = Monitor.new
      @slot, @loop_slot = Kernel.next_slots
      @urls = {}
    end

    def open_handle
      raise Error.for(-103, 1, text: "the kernel is closed") if @closed

      handle = Library.pointer_from { |out| Library.iok_kernel_open(@config, out) }
      @box << handle
      Stack.open(handle) if @stack
      handle
    end

    def find_channel
      scheduler = Fiber.current_scheduler
      return Thread.current[@slot] = loop_channel(scheduler) if scheduler

      # A handler of a signal, or a finalizer, that comes in while a channel of its thread is in use has another one.
      channels = Thread.current.thread_variable_get(@slot) || [].tap do |none|
        Thread.current.thread_variable_set(@slot, none)
      end
      channels.select! { |channel| channel.ended.zero? }
      free = channels.find(&:free?)
      channels << (free = Channel.new(open_channel, @urls, @ring_bytes)) unless free
      Thread.current[@slot] = free
    end

    def loop_channel(scheduler)
      channel = Thread.current.thread_variable_get(@loop_slot)
      return channel if channel && channel.ended.zero? && channel.scheduler.equal?(scheduler)

      channel&.close
      opened = LoopChannel.new(open_channel, @urls, @ring_bytes, scheduler)
      Thread.current.thread_variable_set(@loop_slot, opened)
      opened
    end

    def series(kind, spec, labels)
      key = [spec.reject { |name, _| name == :help }, labels]
      @series[key] ||= kind.new(handle, spec, labels)
    end
  end

  # Takes the completion of an operation of which more than the value matters.
  class Outcome
    attr_reader :done

    def initialize(channel)
      @channel = channel
      @done = nil
    end

    def completion(done)
      @done = done
      @channel.wake(self)
    end

    def done?
      !@done.nil?
    end
  end
  private_constant :Outcome
end
