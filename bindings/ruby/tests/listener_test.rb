# frozen_string_literal: true

require_relative "helper"
require "net/http"

class ListenerTest < Test
  def setup
    super
    @log = StringIO.new
    IOKernel.logger = Logger.new(@log)
  end

  def teardown
    super
    IOKernel.logger = nil
  end

  # A listener whose requests the block answers, in a thread, and a client of it.
  def served(url = "redis://127.0.0.1:0", **options, &block)
    one = kernel
    listener = one.listen(url, **options)
    thread = Thread.new { listener.serve(&block) }
    [listener, one.open(listener.url), thread]
  end

  def test_replies_of_every_kind
    values = [nil, true, 7, 1.5, "text", "bytes\xff".b, [1, ["two".b]], {"a" => 1}, Set[1, 2], 10**30]
    _, client, = served { |request| values[request.args.last.to_i] }
    values.each_with_index { |value, at| assert_equal [value], [client.call("NTH", at)] }
  end

  def test_errors_of_handlers
    _, client, = served do |request|
      raise IOKernel::RemoteError.new("not today", code: "CLOSED") if request.args.last == "remote"
      raise "secret" if request.args.last == "bug"

      request.args.last == "unpackable" ? Object.new : "fine"
    end
    error = assert_raises(IOKernel::RemoteError) { client.call("X", "remote") }
    assert_equal ["CLOSED", "not today"], [error.code, error.reason]
    %w[bug unpackable].each do |what|
      error = client.async("X", what).error
      assert_equal ["ERR", "the handler failed"], [error.code, error.reason]
    end
    assert_includes @log.string, "secret"
    assert_equal "fine", client.call("X", "y")
  end

  def test_replies_may_come_from_other_threads_and_in_any_order
    requests = Thread::Queue.new
    one = kernel
    listener = one.listen("redis://127.0.0.1:0")
    Thread.new { listener.each { |request| requests << request } }
    client = one.open(listener.url)
    futures = Array.new(10) { |n| client.async("X", n.to_s) }
    Array.new(10) { requests.pop }.reverse_each { |request| request.reply(request.args.last) }
    assert_equal Array.new(10, &:to_s), futures.map(&:value)
    listener.close
  end

  def test_a_client_that_has_left
    requests = Thread::Queue.new
    listener = kernel.listen("redis://127.0.0.1:0")
    Thread.new { listener.each { |request| requests << request } }
    TCPSocket.open("127.0.0.1", listener.url[/\d+\z/]) do |socket|
      socket.write("*1\r\n$1\r\nX\r\n")
      refute_predicate @request = requests.pop, :gone?
      # A reset: one that merely stops sending may still read.
      socket.setsockopt(Socket::SOL_SOCKET, Socket::SO_LINGER, [1, 0].pack("ii"))
    end
    eventually { @request.gone? }
    assert_nil @request.reply("nobody hears it")
    listener.close
  end

  def test_a_listener_is_served_by_one
    listener, client, = served { "x" }
    assert_equal "x", client.call("X")
    assert_raises(ThreadError) { listener.each { flunk } }
  end

  def test_closing_ends_serving
    listener, client, thread = served { "x" }
    client.call("X")
    2.times { listener.close }
    assert thread.join(2)
    assert_predicate listener, :closed?
    assert_raises(IOKernel::Error) { client.call("X", timeout: 0.3) }
  end

  def test_leaving_politely
    begun = Thread::Queue.new
    listener, client, thread = served do
      begun << true
      sleep 0.2
      "late"
    end
    future = Thread.new { client.call("X") }
    begun.pop
    listener.close(drain: 5)
    assert_equal "late", future.value
    assert thread.join(2)
  end

  def test_http
    listener, = served("http://127.0.0.1:0", health: "/healthz") do |request|
      (method, target, headers), body = request.args
      [200, {"Content-Type" => "text/plain", "X-Seen" => headers.size.to_s}, "#{method} #{target} #{body}"]
    end
    uri = URI("#{listener.url}/path?q=1")
    answer = Net::HTTP.post(uri, "body", "Content-Type" => "text/plain")
    assert_equal ["200", "POST /path?q=1 body"], [answer.code, answer.body]
    assert_equal "200", Net::HTTP.get_response(URI("#{listener.url}/healthz")).code
    assert_equal "up", listener.state["state"]
  end

  def test_an_address_that_is_taken
    listener, = served { "x" }
    error = assert_raises(IOKernel::Error) { kernel.listen(listener.url) }
    assert_equal(-401, error.status)
    assert_raises(IOKernel::ConfigError) { kernel.listen("redis://127.0.0.1:0", nosuch: 1) }
  end
end
