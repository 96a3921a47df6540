# frozen_string_literal: true

require_relative "helper"

class CallsTest < Test
  def test_replies_of_every_kind
    cache = redis
    assert_equal "OK", cache.call("SET", "calls:text", "grün")
    assert_equal "grün".b, cache.call(:GET, "calls:text")
    assert_nil cache.call("GET", "calls:none")
    assert_equal({"a".b => "1".b}, cache.call(["HSET", "calls:hash", "a", 1], ["HGETALL", "calls:hash"]).last)
    assert_equal [1, "two".b, nil], cache.call("EVAL", "return {1, 'two', false}", 0)
    cache.call("DEL", "calls:text", "calls:hash")
  end

  def test_a_batch_holds_errors_as_elements
    replies = redis.call(["SET", "calls:b", "x"], ["LPUSH", "calls:b", "y"], ["GET", "calls:b"], ["DEL", "calls:b"])
    assert_equal ["OK", "WRONGTYPE", "x", 1], replies.map { |one| one.is_a?(IOKernel::RemoteError) ? one.code : one }
  end

  def test_futures
    cache = redis
    future = cache.async("ECHO", "x")
    assert_equal "x", future.value
    assert_equal "x", future.value
    assert_nil future.error
    assert_predicate future, :done?
    refute future.cancel
    failed = cache.async("NOSUCH")
    assert_equal "ERR", failed.error.code
    2.times { assert_raises(IOKernel::RemoteError) { failed.value } }
    assert_includes failed.inspect, "failed"
  end

  def test_a_future_that_is_waited_for_too_briefly_goes_on
    cache = redis
    cache.wait_ready(5)
    slow = cache.async("DEBUG", "SLEEP", "0.2")
    error = assert_raises(IOKernel::Timeout) { slow.value(0.02) }
    assert_nil error.fate
    refute_predicate slow, :done?
    assert_equal "OK", slow.value(5)
  end

  def test_ready_looks_without_waiting
    cache = redis
    cache.wait_ready(5)
    future = cache.async("ECHO", "x")
    eventually { future.ready? }
    assert_equal "x", future.value
  end

  def test_gather_sends_once
    cache = redis
    cache.wait_ready(5)
    calls = count_calls(:iok_submit_batch) do
      futures = cache.gather { Array.new(50) { |n| cache.async("ECHO", n.to_s) } }
      assert_equal Array.new(50, &:to_s), futures.map(&:value)
    end
    assert_equal 1, calls
  end

  def test_tell_waits_for_nothing_and_logs_failures
    log = StringIO.new
    IOKernel.logger = Logger.new(log)
    cache = redis
    assert_nil cache.tell("SET", "calls:tell", "1")
    assert_equal "1", cache.call("GET", "calls:tell")
    cache.tell("LPUSH", "calls:tell", "x")
    eventually { cache.call("DEL", "calls:tell") && log.string.include?("WRONGTYPE") }
  ensure
    IOKernel.logger = nil
  end

  def test_what_was_told_last_is_written_before_the_kernel_goes
    script = "require 'iokernel'; IOKernel.open(ARGV[0]).tap { |c| 100.times { |n| c.tell('RPUSH', 'calls:last', n) } }"
    assert system(*ruby("-e", script, REDIS))
    assert_equal 100, redis.call("LLEN", "calls:last")
    redis.call("DEL", "calls:last")
  end

  def test_timeout_of_ruby_cancels_the_request
    cache = redis
    cache.wait_ready(5)
    20.times do
      assert_raises(Timeout::Error) { Timeout.timeout(0.01) { cache.call("BLPOP", "calls:never", 0) } }
    end
    assert_equal "mine", cache.call("ECHO", "mine")
    eventually { cache.state["requests"].zero? }
  end

  def test_a_thread_that_is_killed_cancels_its_request
    cache = redis
    cache.wait_ready(5)
    thread = Thread.new { cache.call("BLPOP", "calls:never", 0) }
    eventually { cache.state["requests"] >= 1 && thread.status == "sleep" }
    thread.kill
    assert thread.join(2)
    eventually { cache.state["requests"].zero? }
  end

  def test_a_handler_of_a_signal_may_call_while_a_call_waits
    cache = redis
    cache.wait_ready(5)
    found = []
    before = trap("USR2") { found << cache.call("ECHO", "inside") }
    Process.spawn("sh", "-c", "sleep 0.1; kill -USR2 #{Process.pid}").then { |pid| @waker = pid }
    assert_equal "OK", cache.call("DEBUG", "SLEEP", "0.3")
    assert_equal ["inside"], found
  ensure
    Process.wait(@waker)
    trap("USR2", before)
  end

  def test_interruptions_at_every_point_of_a_call_lose_and_swap_nothing
    cache = redis
    cache.call("SET", "calls:i", "x")
    cache.subscribe("SUBSCRIBE", "calls:i") do |messages|
      round, waiting = 0, cache.async("ECHO", "0")
      work = lambda do
        futures = cache.gather { [cache.async("GET", "calls:i"), cache.async("STRLEN", "calls:i")] }
        futures.each(&:value)
        cache.call("ECHO", "other")
      end
      count = interrupted_everywhere(work) do
        assert_equal round.to_s, waiting.value
        waiting = cache.async("ECHO", (round += 1).to_s)
        assert_equal ["message", "calls:i", round.to_s], cache.call("PUBLISH", "calls:i", round) && messages.get(5)
        assert_equal [1, "x"], [cache.call("STRLEN", "calls:i"), cache.call("GET", "calls:i")]
      end
      assert_operator count, :>, 100
      assert_equal [0, 0], [messages.lost, messages.reconnects]
    end
  end

  def test_interruptions_with_a_small_ring
    cache = redis(kernel(channel: {ring: "64KiB"}))
    text = "x" * 40_000
    count = interrupted_everywhere(-> { 3.times.map { cache.async("ECHO", text) }.each(&:value) }) do
      assert_equal ["y", text], [cache.async("ECHO", "y"), cache.async("ECHO", text)].map(&:value)
    end
    assert_operator count, :>, 100
  end

  def test_interruptions_of_leases_leave_none_behind
    cache = redis
    work = -> { cache.lease { |conn| conn.call("PING") } }
    count = interrupted_everywhere(work, by: :thread) { assert_equal "x", cache.call("ECHO", "x") }
    assert_operator count, :>, 100
    eventually { cache.state["leases"].zero? }
  end

  def test_handlers_of_signals_may_call_at_every_point_of_a_call
    cache = redis
    at, found = 0, nil
    until found == :never
      found = :never
      at_return(at += 1, -> { found = cache.call("ECHO", "inside") }) do
        assert_equal %w[a b], cache.gather { [cache.async("ECHO", "a"), cache.async("ECHO", "b")] }.map(&:value)
      end
      assert_includes ["inside", :never], found
    end
    assert_operator at, :>, 50
  end

  def test_timeouts_of_ruby_at_any_moment
    cache = redis
    cache.wait_ready(5)
    100.times do |round|
      begin
        Timeout.timeout(rand * 0.005) { loop { assert_equal "x", cache.call("ECHO", "x") } }
      rescue Timeout::Error
        nil
      end
      assert_equal round.to_s, cache.call("ECHO", round.to_s)
    end
  end

  def test_other_threads_run_while_one_waits
    cache = redis
    cache.wait_ready(5)
    counted = 0
    thread = Thread.new { loop { counted += 1 } }
    before = counted
    cache.call("DEBUG", "SLEEP", "0.1")
    assert_operator counted - before, :>, 10_000
  ensure
    thread.kill
  end

  def test_many_threads_have_their_own_replies
    cache = redis
    threads = Array.new(16) do |number|
      Thread.new { Array.new(100) { |n| cache.call("ECHO", "#{number}-#{n}") } }
    end
    threads.each_with_index do |thread, number|
      assert_equal Array.new(100) { |n| "#{number}-#{n}" }, thread.value
    end
  end

  def test_a_future_of_another_thread_says_so
    cache = redis
    future = Thread.new { cache.async("BLPOP", "calls:never", 1) }.value
    assert_raises(ThreadError) { future.value }
  end

  def test_channels_of_threads_that_ended_are_closed
    cache = redis
    cache.call("PING")
    GC.start
    before = Dir.children("/proc/self/fd").size
    50.times { Thread.new { cache.call("PING") }.join }
    eventually do
      GC.start
      Dir.children("/proc/self/fd").size <= before + 6
    end
  end

  def test_kernels_that_nobody_holds_are_closed
    before = Dir.children("/proc/self/task").size
    10.times { IOKernel::Kernel.new.echo(1) }
    eventually(10) do
      GC.start
      Dir.children("/proc/self/task").size <= before + 3
    end
  end

  def test_nothing_is_kept_of_requests_that_ended
    cache = redis
    ask = -> { cache.gather { Array.new(100) { cache.async("ECHO", "x") } }.each(&:value) }
    ask.call
    GC.start
    before = ObjectSpace.each_object(IOKernel::Future).count
    100.times { ask.call }
    GC.start
    assert_operator ObjectSpace.each_object(IOKernel::Future).count, :<=, before + 300
  end

  def test_replies_that_nobody_waits_for_are_dropped
    cache = redis
    100.times { cache.async("ECHO", "x") }
    assert_equal "y", cache.call("ECHO", "y")
  end

  def test_larger_values_than_the_ring_both_ways
    cache = redis(kernel(channel: {ring: "64KiB"}))
    [0, 1, 16_343, 16_344, 16_345, 1 << 16, (1 << 20) + 7].each do |size|
      value = Random.bytes(size)
      assert_equal value, cache.call("ECHO", value), size
    end
  end

  def test_requests_that_are_too_large_fail_alone
    cache = redis(kernel(channel: {max_request: "1MiB"}))
    futures = cache.gather { ["a", "x" * (2 << 20), "b"].map { |text| cache.async("ECHO", text) } }
    assert_instance_of IOKernel::BadRequest, futures[1].error
    assert_equal %w[a b], futures.values_at(0, 2).map(&:value)
  end

  def test_a_record_that_the_ring_refuses_fails_alone
    one = kernel
    channel = IOKernel.const_get(:Channel).new(one.open_channel, one.urls, 64 << 20)
    echo = IOKernel.const_get(:Records)::OP_ECHO
    futures = channel.gather do
      ["a", "x" * (1 << 20), "b"].map { |text| channel.request(text, echo << 32, 0, 0) }
    end
    assert_instance_of IOKernel::BadRequest, futures[1].error
    assert_equal %w[a b], futures.values_at(0, 2).map { |future| MessagePack.unpack(future.value) }
    channel.close
  end

  def test_state_and_readiness
    one = kernel
    cache = redis(one, require: true)
    one.wait_ready(5)
    assert_equal "up", cache.state["state"]
    assert_equal true, one.state["ready"]
    nobody = one.open("redis://127.0.0.1:1", require: true)
    error = assert_raises(IOKernel::Unavailable) { nobody.wait_ready(0.1) }
    assert_equal :not_sent, error.fate
    assert_raises(IOKernel::Unavailable) { one.wait_ready(0.1) }
    nobody.close
  end

  def test_an_endpoint_that_is_closed
    cache = redis
    cache.call("PING")
    2.times { cache.close }
    error = assert_raises(IOKernel::Closed) { cache.call("PING") }
    assert_equal :not_sent, error.fate
    assert_predicate cache, :closed?
  end

  def test_the_default_kernel_is_opened_again_after_its_end
    first = IOKernel.default_kernel
    first.close
    refute_same first, IOKernel.default_kernel
    IOKernel.open(REDIS) { |cache| assert_equal "PONG", cache.call("PING") }
  end
end
