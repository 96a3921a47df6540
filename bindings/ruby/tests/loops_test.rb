# frozen_string_literal: true

require_relative "helper"
require "json"

# What holds in every loop; see the classes at the end.
module LoopTests
  def run_loop(&block)
    Loop.run(kind, &block)
  end

  def test_fibers_share_a_channel_and_have_their_own_replies
    cache = redis
    found = run_loop { [].tap { |all| Loop.all(500) { |n| all[n] = cache.call("ECHO", n.to_s) } } }
    assert_equal Array.new(500, &:to_s), found
  end

  def test_requests_of_one_turn_go_in_one_call
    cache = redis
    cache.wait_ready(5)
    calls = count_calls(:iok_submit_batch) do
      run_loop { Loop.all(100) { |n| cache.call("ECHO", n.to_s) } }
    end
    assert_operator calls, :<=, 4
  end

  def test_other_fibers_run_meanwhile
    cache = redis
    cache.wait_ready(5)
    ticks = 0
    run_loop do
      timer = Loop.every(0.01) { ticks += 1 }
      cache.call("DEBUG", "SLEEP", "0.2")
      timer.stop
    end
    assert_operator ticks, :>=, 5
  end

  def test_futures_may_be_awaited_by_several_fibers
    cache = redis
    run_loop do
      future = cache.async("DEBUG", "SLEEP", "0.05")
      found = []
      Loop.all(3) { |n| found[n] = future.value }
      assert_equal %w[OK OK OK], found
    end
  end

  def test_a_future_of_a_loop_has_a_deadline_of_its_waiter
    cache = redis
    cache.wait_ready(5)
    run_loop do
      slow, other = cache.async("DEBUG", "SLEEP", "0.2"), nil
      reader = Loop.fiber { other = slow.value }
      assert_raises(IOKernel::Timeout) { slow.value(0.02) }
      assert_equal "OK", slow.value
      sleep 0.001 while reader.alive?
      assert_equal "OK", other
    end
  end

  def test_who_leads_may_be_done_first_or_last
    cache = redis
    cache.wait_ready(5)
    order = []
    run_loop do
      Loop.all(3) do |n|
        cache.lease { |conn| conn.call("BLPOP", "loops:#{n}", 5) } if n.zero?
        cache.call("ECHO", "x") if n == 1
        sleep(0.02) && cache.call("RPUSH", "loops:0", "x") if n == 2
        order << n
      end
    end
    assert_equal [1, 2, 0].sort, order.sort
    assert_equal 1, order.first
  end

  def test_subscriptions_in_fibers
    cache = redis
    run_loop do
      found = []
      cache.subscribe("SUBSCRIBE", "loops:news") do |news|
        reader = Loop.fiber { 50.times { found << news.get(5).last } }
        50.times { |n| cache.call("PUBLISH", "loops:news", n) }
        sleep 0.001 while reader.alive?
      end
      assert_equal Array.new(50, &:to_s), found
    end
  end

  def test_threads_and_loops_have_channels_of_their_own
    cache = redis
    assert_equal "1", cache.call("ECHO", "1")
    run_loop { assert_equal "2", cache.call("ECHO", "2") }
    assert_equal "3", cache.call("ECHO", "3")
    threads = Array.new(4) { |n| Thread.new { run_loop { Array.new(50) { |m| cache.call("ECHO", "#{n}-#{m}") } } } }
    threads.each_with_index { |thread, n| assert_equal Array.new(50) { |m| "#{n}-#{m}" }, thread.value }
  end

  def test_back_pressure_in_a_loop
    cache = redis(kernel(channel: {ring: "64KiB"}))
    run_loop do
      futures = Array.new(5000) { |n| cache.async("ECHO", n.to_s) }
      assert_equal Array.new(5000, &:to_s), futures.map(&:value)
    end
  end

  def test_a_kernel_that_is_closed_ends_the_waits_of_fibers
    one = kernel
    cache = redis(one)
    cache.wait_ready(5)
    errors = []
    run_loop do
      3.times { |n| Loop.fiber { errors[n] = cache.async("BLPOP", "loops:never", 0).error } }
      sleep 0.02
      Thread.new { one.close }.join
      eventually { errors.compact.size == 3 }
    end
    assert_equal [IOKernel::Closed] * 3, errors.map(&:class)
  end

  def test_a_listener_in_a_loop
    one = kernel
    listener = one.listen("redis://127.0.0.1:0")
    run_loop do
      server = Loop.fiber do
        listener.serve do |request|
          sleep 0.05
          request.args.last
        end
      end
      client, start, found = one.open(listener.url), now, []
      Loop.all(10) { |n| found[n] = client.call("ECHO2", n.to_s) }
      assert_equal Array.new(10, &:to_s), found
      assert_operator now - start, :<, 0.4
      listener.close
      eventually { !server.alive? }
    end
  end

  def test_a_marker_of_a_fiber_goes_with_its_requests
    Dir.mktmpdir do |folder|
      one = kernel(admin: "unix:#{folder}/admin")
      cache = redis(one)
      cache.wait_ready(5)
      shown = run_loop do
        waiting = %w[first second].map do |name|
          Loop.fiber { one.marker(name) { cache.call("BLPOP", "loops:#{name}", 2) } }
        end
        sleep 0.05
        requests = IO.popen(%W[curl -s --unix-socket #{folder}/admin http://x/requests], &:read)
        %w[first second].each { |name| cache.call("RPUSH", "loops:#{name}", "x") }
        sleep 0.01 while waiting.any?(&:alive?)
        JSON.parse(requests)["requests"].map { |request| request["marker"] }
      end
      assert_equal %w[first second], shown.compact.sort
    end
  end
end

class SelectLoopTest < Test
  include LoopTests

  def kind
    "select"
  end

  def test_a_fiber_that_is_interrupted_hands_over
    cache = redis
    cache.wait_ready(5)
    run_loop do
      leader = Fiber.schedule do
        cache.call("BLPOP", "loops:never", 0)
      rescue RuntimeError => error
        assert_equal "out", error.message
      end
      found = nil
      follower = Fiber.schedule { found = cache.call("DEBUG", "SLEEP", "0.05") }
      sleep 0.01
      leader.raise("out")
      eventually { !follower.alive? }
      assert_equal "OK", found
      eventually { cache.state["requests"].zero? }
    end
  end

  def test_an_idle_loop_makes_no_turns
    cache = redis
    scheduler, before = nil, nil
    run_loop do
      scheduler = Fiber.scheduler
      cache.subscribe("SUBSCRIBE", "loops:idle") do |news|
        reader = Loop.fiber { news.get }
        sleep 0.05
        before = scheduler.turns
        sleep 0.2
        assert_operator scheduler.turns - before, :<=, 3
        cache.call("PUBLISH", "loops:idle", "end")
        sleep 0.01 while reader.alive?
      end
    end
  end
end

begin
  require "async"

  class AsyncLoopTest < Test
    include LoopTests

    def kind
      "async"
    end

    def test_a_task_that_is_stopped_cancels_its_request_and_hands_over
      cache = redis
      cache.wait_ready(5)
      Async do |task|
        leader = task.async { cache.call("BLPOP", "loops:never", 0) }
        found = nil
        follower = task.async { found = cache.call("DEBUG", "SLEEP", "0.05") }
        task.sleep 0.01
        leader.stop
        follower.wait
        assert_equal "OK", found
        eventually { cache.state["requests"].zero? }
      end
    end

    def test_a_timeout_of_async_cancels
      cache = redis
      cache.wait_ready(5)
      Async do |task|
        assert_raises(Async::TimeoutError) { task.with_timeout(0.05) { cache.call("BLPOP", "loops:never", 0) } }
        assert_equal "x", cache.call("ECHO", "x")
      end
    end
  end
rescue LoadError
  class AsyncLoopTest < Test
    def test_async
      skip "the gem async is not installed"
    end
  end
end
