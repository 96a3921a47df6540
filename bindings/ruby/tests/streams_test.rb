# frozen_string_literal: true

require_relative "helper"

class StreamsTest < Test
  def test_messages_are_enumerated
    cache = redis
    cache.subscribe("SUBSCRIBE", "streams:a") do |messages|
      3.times { |n| cache.call("PUBLISH", "streams:a", n) }
      assert_equal %w[0 1 2], messages.first(3).map(&:last)
      assert_equal ["message", "streams:a".b, "x".b], cache.call("PUBLISH", "streams:a", "x") && messages.get(5)
    end
  end

  def test_the_end_of_an_enumeration
    cache = redis
    messages = cache.subscribe("SUBSCRIBE", "streams:b")
    cache.call("PUBLISH", "streams:b", "last")
    found = []
    messages.each do |message|
      found << message.last
      messages.close
    end
    assert_equal ["last"], found
    assert_predicate messages, :closed?
    assert_raises(IOKernel::Closed) { messages.get(1) }
    messages.close
  end

  def test_get_has_a_deadline
    redis.subscribe("SUBSCRIBE", "streams:c") do |messages|
      start = now
      assert_raises(IOKernel::Timeout) { messages.get(0.05) }
      assert_operator now - start, :>=, 0.05
    end
  end

  def test_a_stream_that_is_refused
    assert_raises(IOKernel::BadRequest) { redis.subscribe("SUBSCRIBE") }
    assert_raises(IOKernel::BadRequest) { redis.subscribe("UNSUBSCRIBE", "x") }
  end

  def test_more_than_the_buffer_is_counted_as_lost
    cache = redis
    cache.subscribe("SUBSCRIBE", "streams:d", buffer: 10) do |messages|
      20.times { |n| cache.call("PUBLISH", "streams:d", n) }
      found = Array.new(10) { messages.get(5).last.to_i }
      eventually { cache.call("PING") && messages.lost == 10 }
      assert_equal [*0..9], found
    end
  end

  def test_a_stream_outlives_its_connection
    cache = redis
    cache.subscribe("SUBSCRIBE", "streams:e") do |messages|
      assert_equal 0, messages.reconnects
      assert_equal 1, redis.call("CLIENT", "KILL", "ID", cache.call("CLIENT", "ID"))
      eventually { cache.call("PING", idempotent: true) && messages.reconnects == 1 }
      cache.call("PUBLISH", "streams:e", "again")
      assert_equal "again", messages.get(5).last
    end
  end

  def test_a_subscription_that_nobody_holds_is_given_up
    cache = redis
    topics = -> { cache.call("PUBSUB", "CHANNELS", "streams:f*").size }
    Thread.new { 5.times { |n| cache.subscribe("SUBSCRIBE", "streams:f#{n}") }; nil }.join
    hold = cache.subscribe("SUBSCRIBE", "streams:f-held")
    5.times { |n| Thread.new { nil }.join; cache.subscribe("SUBSCRIBE", "streams:fm#{n}") }
    eventually do
      GC.start
      topics.call <= 3
    end
    refute_predicate hold, :closed?
  end

  def test_watch_tells_of_changes
    one = kernel
    service = one.open("redis+app://label")
    service.watch do |states|
      assert_kind_of Hash, states.get(5)
      service.peers = [{address: REDIS.delete_prefix("redis://"), weight: 3}]
      eventually { states.get(5)["state"] == "up" }
    end
    assert_equal 3, service.state["peers"].first["weight"]
    assert_raises(IOKernel::BadRequest) { service.peers = [{address: 7}] }
    one.watch { |states| assert_equal true, states.get(5)["ready"] }
  end
end

class LeasesTest < Test
  def test_a_lease_is_a_connection_of_its_own
    cache = redis
    cache.lease do |conn|
      assert_predicate conn, :held?
      refute_equal conn.call("CLIENT", "ID"), cache.lease { |other| other.call("CLIENT", "ID") }
      assert_equal "OK", conn.call("SELECT", 3)
    end
    cache.lease { |conn| assert_includes conn.call("CLIENT", "INFO"), " db=0 " }
  end

  def test_a_lease_that_was_released
    lease = redis.lease
    2.times { lease.release }
    error = assert_raises(IOKernel::Closed) { lease.call("PING") }
    assert_equal [-110, :not_sent], [error.status, error.fate]
    refute_predicate lease, :held?
  end

  def test_a_block_that_raises_gives_back
    cache = redis(lanes: 1)
    3.times { assert_raises(RuntimeError) { cache.lease(timeout: 5) { raise "out" } } }
    cache.lease(timeout: 5) { |conn| assert_equal "PONG", conn.call("PING") }
  end

  def test_a_lease_that_nobody_waits_for_any_more_is_given_back
    cache = redis(lanes: 1)
    held = cache.lease
    assert_raises(Timeout::Error) { Timeout.timeout(0.05) { cache.lease } }
    assert_raises(IOKernel::Error) { cache.lease(timeout: 0.05) }
    held.release
    cache.lease(timeout: 5) { |conn| assert_equal "PONG", conn.call("PING") }
  end

  def test_a_route_says_that_a_lease_has_its_own
    redis.lease { |conn| assert_raises(IOKernel::BadRequest) { conn.call("PING", route: 1) } }
  end
end
