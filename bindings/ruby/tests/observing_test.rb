# frozen_string_literal: true

require_relative "helper"
require "json"

class ObservingTest < Test
  def setup
    super
    @folder = Dir.mktmpdir("iok-ruby-")
  end

  def teardown
    super
    FileUtils.remove_entry(@folder)
  end

  def observed(**config)
    kernel(admin: "unix:#{@folder}/admin", **config)
  end

  def said(path)
    IO.popen(%W[curl -s -m 5 --unix-socket #{@folder}/admin http://localhost#{path}], &:read)
  end

  # What is said while the block runs, which must take long enough.
  def said_meanwhile(path)
    asking = Process.spawn("sh", "-c", "sleep 0.2; exec curl -s -m 5 --unix-socket #{@folder}/admin " \
                                       "http://localhost#{path} -o #{@folder}/said")
    yield
    refute_nil Process.waitpid(asking, Process::WNOHANG), "no answer came meanwhile"
    File.read("#{@folder}/said")
  end

  # Metrics

  def test_counters_of_threads_are_whole
    counter = kernel.counter("threads_count")
    before = counter.value
    sum = kernel.sum("threads_sum")
    work = lambda do |_|
      counter.increment
      sum.increment(0.5)
    end
    threads = Array.new(4) { Thread.new { 250_000.times(&work) } }
    assert_equal [250_000] * 4, threads.map(&:value)
    assert_equal [1_000_000, 500_000.0], [counter.value - before, sum.value]
  end

  def test_metrics_are_shown
    one = observed
    one.counter("orders", help: "Orders.", shop: "north").increment(3)
    one.sum("worked", unit: "seconds").increment(0.25)
    one.gauge("depth").tap { |gauge| gauge.set(5) }.tap(&:increment).decrement(2)
    times = one.histogram("took", unit: "seconds", buckets: [0.1, 1])
    [0.05, 0.1, 0.5, 7].each { |seconds| times.observe(seconds) }
    lines = said("/metrics").lines(chomp: true)
    ['orders_total{shop="north"} 3', "worked_seconds_total 0.25", "depth 4", 'took_seconds_bucket{le="0.1"} 2',
     'took_seconds_bucket{le="1"} 3', 'took_seconds_bucket{le="+Inf"} 4', "took_seconds_sum 7.65"].each do |line|
      assert_includes lines, line
    end
  end

  def test_the_same_series_is_the_same_object
    one = kernel
    assert_same one.counter("same", shop: "a"), one.counter("same", shop: "a")
    refute_same one.counter("same", shop: "a"), one.counter("same", shop: "b")
    assert_equal({"shop" => "a", "help" => "b"}, one.counter("same", shop: "a", labels: {help: "b"}).labels)
  end

  def test_what_is_no_number
    one = kernel
    counter, sum, gauge, times = one.counter("a"), one.sum("b"), one.gauge("c"), one.histogram("d")
    assert_raises(TypeError) { counter.increment(1.5) }
    assert_raises(ArgumentError) { counter.increment(-1) }
    assert_raises(ArgumentError) { sum.increment(-1) }
    assert_raises(ArgumentError) { sum.increment(Float::NAN) }
    assert_raises(ArgumentError) { gauge.increment(Float::INFINITY) }
    assert_raises(TypeError) { times.observe(nil) }
    assert_raises(IOKernel::ConfigError) { one.counter("no name") }
    assert_raises(IOKernel::ConfigError) { one.gauge("a") }
  end

  def test_blocks_are_tracked_and_timed
    one = kernel
    gauge, times = one.gauge("inflight"), one.histogram("block")
    assert_equal 1.0, gauge.track { gauge.value }
    assert_raises(RuntimeError) { gauge.track { raise "out" } }
    assert_equal 0.0, gauge.value
    assert_equal 7, times.time { 7 }
  end

  def test_counting_goes_on_after_the_kernel
    one = kernel
    counter = one.counter("lasting")
    before = counter.value
    one.close
    counter.increment
    assert_equal 1, counter.value - before
  end

  # Markers

  def markers
    JSON.parse(said("/state"))["main"]["markers"].to_s
  end

  def test_markers_nest
    one = observed
    one.marker("outer", id: 7) do
      one.marker("inner") { assert_match(/outer id=7.*inner|inner.*outer id=7/, markers) }
      assert_includes markers, "outer id=7"
      refute_includes markers, "inner"
    end
    refute_includes markers, "outer"
    assert_equal 5, one.marker("value") { 5 }
  end

  def test_a_marker_is_left_after_an_exception
    one = observed
    assert_raises(RuntimeError) { one.marker("raising") { raise "out" } }
    refute_includes markers, "raising"
  end

  def test_markers_beyond_the_places_are_not_shown
    one = observed
    deep = lambda do |depth|
      depth.zero? ? markers : one.marker("level #{depth}") { deep.call(depth - 1) }
    end
    assert_equal 15, deep.call(20).scan("level").size
    assert_equal 0, markers.scan("level").size
    one.marker("after") { assert_includes markers, "after" }
  end

  def test_long_markers_are_cut_at_a_character
    text = kernel.marker("ü" * 40).text
    assert_equal ["ü" * 28, 56], [text, text.bytesize]
    assert_equal "a b", kernel.marker("a\0b").text
    assert_equal "a\uFFFD", kernel.marker("a\xff").text
  end

  def test_markers_go_with_requests
    one = observed
    cache = redis(one)
    cache.wait_ready(5)
    future = one.marker("render") { cache.async("BLPOP", "observing:m", 2) }
    request = eventually { JSON.parse(said("/requests"))["requests"].find { |found| found["command"] == "BLPOP" } }
    assert_equal "render", request["marker"]
    cache.call("RPUSH", "observing:m", "x")
    future.value
  end

  # Stacks

  def a_loop_in_ruby(seconds)
    stop = now + seconds
    nil while now < stop
  end

  def main_stack(path = "/stack", &block)
    JSON.parse(said_meanwhile(path, &block))["main"]
  end

  def test_frames_of_ruby_in_a_loop
    observed
    main = main_stack { a_loop_in_ruby(0.8) }
    assert_match(/#{__FILE__}:\d+:in `a_loop_in_ruby'/, main["text"])
    refute_includes main["text"], "lib/iokernel/stack.rb"
    assert_match(/\AThread #{Process.pid} \(main\), run:/, main["text"])
  end

  def test_frames_of_ruby_in_a_sleep
    observed
    assert_includes main_stack { sleep 0.8 }["text"], "`sleep'"
  end

  def test_frames_of_ruby_in_a_call
    cache = redis(observed)
    cache.wait_ready(5)
    assert_includes main_stack { cache.call("DEBUG", "SLEEP", "0.8") }["text"], "`iok_wait'"
  end

  module C
    extend FFI::Library
    ffi_lib FFI::Library::LIBC
    attach_function :usleep, %i[uint], :int
  end

  # A call that holds the lock and reaches no safe point.
  def test_native_frames_in_a_call_that_keeps_the_lock
    observed
    main = main_stack { 8.times { C.usleep(100_000) } }
    assert_match(/nanosleep|usleep/, main["native"].to_s)
  end

  def test_other_threads_are_told
    observed
    thread = Thread.new { Thread.stop }
    thread.name = "waiting one"
    eventually { thread.stop? }
    text = main_stack { a_loop_in_ruby(0.8) }["text"]
    assert_match(/Thread #{thread.native_thread_id} \(waiting one\), sleep:\n.*`stop'/, text)
  ensure
    thread.kill
  end

  def test_the_handler_goes_with_the_kernel
    one = observed
    said("/stack")
    one.close
    refute_kind_of Proc, trap("URG", "SYSTEM_DEFAULT")
  end
end
