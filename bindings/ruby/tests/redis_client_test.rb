# frozen_string_literal: true

require_relative "helper"

begin
  require "iokernel/redis_client"
rescue LoadError => missing
  raise unless missing.path == "redis_client"

  class RedisClientTest < Test
    def test_the_driver
      skip "the gem redis-client is not installed"
    end
  end
else
  class RedisClientTest < Test
    def setup
      super
      @client = RedisClient.config(url: REDIS, driver: :iokernel, timeout: 2).new_client
    end

    def test_calls
      assert_equal "OK", @client.call("SET", "rc:text", "grün")
      assert_equal "grün", @client.call("GET", "rc:text")
      assert_equal Encoding::UTF_8, @client.call("GET", "rc:text").encoding
      assert_equal Encoding::BINARY, @client.call("ECHO", "\xff".b).encoding
      assert_equal ["a"], @client.call("SADD", "rc:set", "a") && @client.call("SMEMBERS", "rc:set")
      assert_equal({"f" => "1"}, @client.call("HSET", "rc:hash", f: 1) && @client.call("HGETALL", "rc:hash"))
      assert_predicate @client, :connected?
    end

    def test_errors_are_those_of_redis_client
      @client.call("SET", "rc:text", "x")
      error = assert_raises(RedisClient::WrongTypeError) { @client.call("LPUSH", "rc:text", "y") }
      assert_equal ["LPUSH", "rc:text", "y"], error.command
      assert_match(/\AWRONGTYPE /, error.message)
      assert_raises(RedisClient::CommandError) { @client.call("NOSUCH") }
      assert_raises(RedisClient::ReadTimeoutError) { short.call("DEBUG", "SLEEP", "0.3") }
      nobody = RedisClient.config(url: "redis://127.0.0.1:1", driver: :iokernel, timeout: 0.1).new_client
      assert_raises(RedisClient::CannotConnectError) { nobody.call("PING") }
    end

    def short
      RedisClient.config(url: REDIS, driver: :iokernel, timeout: 0.05).new_client
    end

    def test_a_wrong_password
      client = RedisClient.config(url: REDIS.sub("//", "//nobody:wrong@"), driver: :iokernel, timeout: 1).new_client
      assert_raises(RedisClient::AuthenticationError) { client.call("PING") }
    end

    def test_pipelines
      results = @client.pipelined do |pipeline|
        pipeline.call("SET", "rc:p", 1)
        pipeline.call("INCR", "rc:p")
        pipeline.call("GET", "rc:p") { |text| text.to_i * 10 }
      end
      assert_equal ["OK", 2, 20], results
      error = assert_raises(RedisClient::CommandError) do
        @client.pipelined { |pipeline| 2.times { pipeline.call("LPUSH", "rc:p", "x") } }
      end
      assert_equal ["LPUSH", "rc:p", "x"], error.command
    end

    def test_pipelines_with_commands_that_wait
      @client.call("DEL", "rc:list")
      results = @client.pipelined do |pipeline|
        pipeline.call("RPUSH", "rc:list", "a")
        pipeline.blocking_call(1, "BLPOP", "rc:list", 1)
        pipeline.call("LLEN", "rc:list")
      end
      assert_equal [1, %w[rc:list a], 0], results
    end

    def test_transactions
      @client.call("DEL", "rc:t")
      assert_equal [1, 2], @client.multi { |transaction| 2.times { transaction.call("INCR", "rc:t") } }
      found = @client.multi(watch: ["rc:t"]) do |transaction|
        @client.call("GET", "rc:t").to_i.times { transaction.call("INCR", "rc:t") }
      end
      assert_equal [3, 4], found
      other = RedisClient.config(url: REDIS, driver: :iokernel).new_client
      lost = @client.multi(watch: ["rc:t"]) do |transaction|
        other.call("SET", "rc:t", 0)
        transaction.call("INCR", "rc:t")
      end
      assert_nil lost
      assert_equal "0", @client.call("GET", "rc:t")
    end

    def test_commands_that_wait_in_the_server
      assert_nil @client.blocking_call(0.1, "BLPOP", "rc:never", 0.1)
      assert_raises(RedisClient::ReadTimeoutError) { short.blocking_call(0.05, "BLPOP", "rc:never", 0) }
    end

    def test_subscriptions
      events = @client.pubsub
      events.call("SUBSCRIBE", "rc:one", "rc:two")
      assert_equal ["subscribe", "rc:one", 1], events.next_event(1)
      assert_equal ["subscribe", "rc:two", 2], events.next_event(1)
      @client.call("PUBLISH", "rc:two", "hello")
      assert_equal ["message", "rc:two", "hello"], events.next_event(1)
      assert_nil events.next_event(0.01)
      events.call("UNSUBSCRIBE", "rc:one")
      assert_equal ["unsubscribe", "rc:one", 1], events.next_event(1)
      assert_equal 0, @client.call("PUBLISH", "rc:one", "x")
      events.close
      eventually { @client.call("PUBLISH", "rc:two", "x").zero? }
    end

    def test_databases
      two = RedisClient.config(url: REDIS, db: 2, driver: :iokernel).new_client
      two.call("SET", "rc:db", "two")
      assert_nil @client.call("GET", "rc:db")
      assert_equal "two", two.call("GET", "rc:db")
      two.call("DEL", "rc:db")
    end

    def test_closing_and_coming_back
      @client.call("PING")
      @client.close
      assert_equal "PONG", @client.call("PING")
    end

    def test_all_clients_share_a_connection
      clients = Array.new(4) { RedisClient.config(url: REDIS, driver: :iokernel).new_client }
      ids = clients.map { |client| Thread.new { client.call("CLIENT", "ID") } }
      assert_equal 1, ids.map(&:value).uniq.size
    end

    def test_forks
      @client.call("PING")
      assert_equal "x", in_child { @client.call("ECHO", "x") }
      assert_equal "y", @client.call("ECHO", "y")
    end

    def test_the_round_trip_is_measured
      assert_operator @client.measure_round_trip_delay, :>, 0
    end

    def test_tls_options
      driver = RedisClient.driver(:iokernel)
      assert_equal({tls_ca: "ca.pem", tls_verify: false}, driver.ssl_context(ca_file: "ca.pem", verify_mode: 0))
      assert_raises(ArgumentError) { driver.ssl_context(ciphers: "x") }
    end
  end
end
