# frozen_string_literal: true

# The shared scenarios in Ruby: `IOK_SCENARIOS=... IOK_REDIS=... ruby tests/scenarios.rb`.

$LOAD_PATH.unshift(File.expand_path("../lib", __dir__))

require "iokernel"
require "json"
require "open3"
require "tmpdir"
require_relative "support/loop"

# One method for each scenario, and what they have in common.
module Scenarios
  REDIS = ENV.fetch("IOK_REDIS")

  module_function

  def main
    scenarios = JSON.parse(File.read(ENV.fetch("IOK_SCENARIOS"))).fetch("scenarios")
    puts "1..#{scenarios.size}"
    failed = scenarios.each.with_index(1).count { |one, number| !shown?(one, number) }
    exit failed.zero?
  end

  def shown?(one, number)
    send(one.fetch("name").downcase.tr("-", "_"), one)
    puts "ok #{number} - #{one["name"]}"
    true
  rescue StandardError, NotImplementedError => error
    where = error.backtrace.grep(/#{__FILE__}/).first(2).map { |line| File.basename(line) }.join(" ")
    puts "not ok #{number} - #{one["name"]} # #{error.class}: #{error.message.split.join(" ")} #{where}"
    false
  ensure
    $stdout.flush
  end

  # What the scenarios have in common

  def check(is_so, why)
    raise why.to_s unless is_so
  end

  # An endpoint in a kernel of its own.
  def opened(url = REDIS, **config)
    IOKernel::Kernel.open(**config) { |kernel| yield kernel.open(url) }
  end

  # `{"bytes": "v"}` as the binding gives it.
  def as_ruby(value)
    kind, given = value.first
    case kind
    when "array" then given.map { |one| as_ruby(one) }
    when "bytes" then given.b
    when "nil" then nil
    else given
    end
  end

  # Equal, and of the same types and encodings all the way down.
  def same?(found, wanted)
    return false unless found.class == wanted.class

    case found
    when Array then found.size == wanted.size && found.zip(wanted).all? { |pair| same?(*pair) }
    when Hash then found.keys == wanted.keys && found.all? { |key, value| same?(value, wanted[key]) }
    when String then found.encoding == wanted.encoding && found == wanted
    else found == wanted
    end
  end

  # The call ends as a scenario says: `reply` or `error`.
  def expect(wanted, what = "")
    found = yield
  rescue IOKernel::Error => error
    raise unless wanted.key?("error")

    error?(error, wanted["error"])
  else
    check(wanted.key?("reply"), "#{what}: #{found.inspect}: expected #{wanted["error"]}")
    check(same?(found, as_ruby(wanted["reply"])), "#{what}: #{found.inspect}: expected #{wanted["reply"]}")
  end

  def error?(error, wanted)
    found = {"error" => error.status_name.downcase, "code" => error.code, "fate" => error.fate.to_s}
    wanted.slice(*found.keys).each do |key, value|
      check(found[key] == value, "#{error.inspect}: #{key} #{found[key]}: expected #{value}")
    end
    check(error.message.include?(wanted.fetch("names", "")), "#{error}: expected that it names #{wanted["names"]}")
  end

  # A request whose `$name`s are filled in.
  def filled(request, **values)
    request.map { |part| part.is_a?(String) && part.start_with?("$") ? values.fetch(part[1..].to_sym).to_s : part }
  end

  def channel_options(text)
    text.split("&").to_h { |pair| pair.split("=") }.transform_keys(&:to_sym)
  end

  def milliseconds_since(start)
    (now - start) * 1000
  end

  def now
    Process.clock_gettime(Process::CLOCK_MONOTONIC)
  end

  # The scenarios

  def echo(one)
    IOKernel::Kernel.open do |kernel|
      one["values"].each do |value|
        found = kernel.echo(value)
        check(same?(found, value), "#{found.inspect}: expected #{value.inspect}")
      end
    end
  end

  def get_set(one)
    opened do |redis|
      one["calls"].each { |call| expect(call, call["call"]) { redis.call(*call["call"]) } }
    end
  end

  def errors_and_fates(one)
    get_set(one)
    one["urls"].each { |wrong| expect(wrong, wrong["url"]) { IOKernel.open(wrong["url"]) } }
    refused = one["refused"]
    opened(refused["url"]) do |nobody|
      expect(refused) { nobody.call(*refused["call"], timeout: refused["timeout"] / 1000.0) }
    end
  end

  def timeout(one)
    opened do |redis|
      redis.wait_ready(5)
      expect(one) { redis.call(*one["slow"], timeout: one["timeout"] / 1000.0) }
      expect(one["then"]) { redis.call(*one["then"]["call"]) }
    end
  end

  def cancel(one)
    opened do |redis|
      redis.wait_ready(5)
      cancel_one(one, redis)
      Loop.run { cancel_one(one, redis) }
    end
  end

  def cancel_one(one, redis)
    slow = redis.async(*one["slow"])
    sleep one["cancel_after"] / 1000.0
    started = now
    check(slow.cancel, "it had ended already")
    expect(one) { slow.value }
    check(milliseconds_since(started) < one["ends_within"], "it did not end at once")
    expect(one["then"]) { redis.call(*one["then"]["call"]) }
  end

  def pubsub(one)
    opened do |redis|
      publish_and_read(one, redis)
      Loop.run { publish_and_read(one, redis) }
    end
  end

  def publish_and_read(one, redis)
    wanted = Array.new(one["messages"]) { |number| number.to_s.b }
    redis.subscribe(*one["subscribe"]) do |messages|
      one["messages"].times { |number| redis.tell(*filled(one["publish"], number: number)) }
      found = wanted.map { messages.get(10)[2] }
      check(found == wanted, "messages were lost or out of order")
      messages.close
      check(messages.to_a.empty? && messages.closed?, "it goes on after its end")
    end
  end

  def pushes_lost(one)
    opened(channel: channel_options(one["channel"])) do |reader|
      opened do |writer|
        reader.subscribe(*one["subscribe"]) do |messages|
          one["messages"].times do |number|
            writer.call(*filled(one["publish"], bytes: number.to_s.rjust(one["bytes"], "0")))
          end
          found = []
          begin
            found << messages.get(2)[2].to_i while found.size + messages.lost < one["messages"]
          rescue IOKernel::Timeout
            nil
          end
          check(messages.lost.positive?, "nothing was lost")
          check(found.size + messages.lost == one["messages"], "#{found.size} came, #{messages.lost} lost")
          check(found == found.uniq.sort, "messages are out of order")
        end
      end
    end
  end

  def value_1mib(one)
    whole = Random.bytes(1 << 16) * (one["bytes"] >> 16)
    opened do |redis|
      check(redis.call("SET", "s:value", whole) == "OK", "it was not set")
      check(redis.call("GET", "s:value") == whole, "another value came back")
      redis.call("DEL", "s:value")
    end
  end

  def value_64mib(one)
    value_1mib(one)
  end

  def many(one)
    opened do |redis|
      before = clients(redis)
      found, fired = [], 0
      Loop.run do
        timer = Loop.every(one["timer"] / 1000.0) { fired += 1 }
        Loop.all(one["requests"]) { |number| found[number] = redis.call(*filled(one["call"], number: number)) }
        timer.stop
      end
      check(found == Array.new(one["requests"]) { |number| number.to_s.b }, "a reply was another's")
      check(fired.positive?, "no timer fired meanwhile")
      check(before == clients(redis), "more than one conn")
    end
  end

  def clients(redis)
    redis.call("INFO", "clients")[/connected_clients:(\d+)/, 1]
  end

  def back_pressure(one)
    opened(channel: channel_options(one["channel"])) do |redis|
      futures = Array.new(one["requests"]) { |number| redis.async(*filled(one["call"], number: number)) }
      check(futures.map(&:value) == [*1..one["requests"]], "the order was not kept")
      check(redis.call("LRANGE", "s:order", 0, -1) == Array.new(one["requests"], &:to_s), "values were lost")
    end
  end

  def lost_connection(one)
    opened do |redis|
      redis.lease do |lease|
        number = lease.call("CLIENT", "ID")
        waiting = lease.async(*one["lease"])
        sleep 0.05
        check(redis.call(*filled(one["kill"], id: number)) == 1, "there was no such conn")
        expect(one) { waiting.value }
      end
      expect(one["then"]) { redis.call(*one["then"]["call"]) }
    end
  end

  def transaction(one)
    opened do |redis|
      beside = Array.new(100) { |number| redis.async("ECHO", number.to_s) }
      redis.lease do |conn|
        one["calls"].each do |call|
          expect(call, call["call"]) { conn.call(*call["call"]) }
          check(redis.call("ECHO", "beside") == "beside", "others' requests are in it")
        end
      end
      check(beside.map(&:value) == Array.new(100, &:to_s), "others' replies are wrong")
    end
  end

  def listen(one)
    IOKernel::Kernel.open do |kernel|
      listener = kernel.listen(one["url"])
      thread = Thread.new do
        listener.serve do |request|
          (method, target), = request.args
          [method, target] == ["GET", one["path"]] ? [one["status"], {}, one["body"]] : [404, {}, nil]
        end
      end
      said, = Open3.capture2("curl", "-s", "-m", "10", "-w", " %{http_code}", listener.url + one["path"])
      listener.close
      check(said == "#{one["body"]} #{one["status"]}", "curl says #{said.inspect}")
      check(thread.join(5), "serve does not end")
    end
  end

  def fork(one)
    opened do |redis|
      redis.wait_ready(5)
      under_way = redis.async("DEBUG", "SLEEP", "0.2")
      child = Process.fork do
        found = redis.call(*filled(one["call"], pid: Process.pid), timeout: 5)
        exit!(found == Process.pid.to_s ? 0 : 1)
      rescue StandardError
        exit!(2)
      end
      check(under_way.value == "OK", "the parent's request was disturbed")
      mine = redis.call(*filled(one["call"], pid: Process.pid))
      check(mine == Process.pid.to_s, "the parent's reply was #{mine.inspect}")
      _, status = Process.wait2(child)
      check(status.success?, "the child ended with #{status}")
    end
  end

  def close(one)
    kernel = IOKernel::Kernel.new
    redis = kernel.open(REDIS)
    redis.wait_ready(5)
    slow = redis.async(*one["slow"])
    started = now
    kernel.close
    expect(one) { slow.value }
    expect(one) { redis.call("PING") }
    2.times { kernel.close }
    2.times { redis.close }
    check(milliseconds_since(started) < one["ends_within"], "it took too long")
  end

  def threads(one)
    opened do |redis|
      threads = %w[a b].map do |name|
        Thread.new do
          Thread.current.report_on_exception = false
          Loop.run { ask_in_turns(one, redis, name) }
          ask_by_thread(one, redis, name)
        end
      end
      threads.each { |thread| check(thread.join(60), "a thread does not end") }
    end
  end

  def ask_in_turns(one, redis, name)
    (0...one["requests"]).each_slice(100) do |numbers|
      found = {}
      Loop.all(numbers.size) do |at|
        found[at] = redis.call(*filled(one["call"], number: "#{name}#{numbers[at]}"))
      end
      check(numbers.each_index.all? { |at| found[at] == "#{name}#{numbers[at]}" }, "a reply was another's in a loop")
    end
  end

  def ask_by_thread(one, redis, name)
    (0...one["requests"]).each_slice(100) do |numbers|
      futures = numbers.map { |number| redis.async(*filled(one["call"], number: "#{name}#{number}")) }
      check(futures.map(&:value) == numbers.map { |number| "#{name}#{number}" }, "a reply was another's")
      check(redis.call(*filled(one["call"], number: name)) == name, "a blocking reply was another's")
    end
  end

  def loops(one)
    opened do |redis|
      ask = lambda do |number|
        found = Loop.run { redis.call(*filled(one["call"], number: number)) }
        check(found == number.to_s, "#{found.inspect}: expected #{number}")
      end
      ask.call(0)
      before = open_files
      one["rounds"].times(&ask)
      check(open_files <= before, "#{before} descriptors became #{open_files}")
    end
  end

  def open_files
    GC.start
    Dir.children("/proc/self/fd").size
  end

  def idle(one)
    opened do |redis|
      used = nil
      Loop.run do
        redis.subscribe("SUBSCRIBE", "s:idle") do |messages|
          redis.call("PING")
          reader = Loop.fiber { messages.get }
          started = Process.clock_gettime(Process::CLOCK_PROCESS_CPUTIME_ID)
          sleep one["idle"] / 1000.0
          used = 1000 * (Process.clock_gettime(Process::CLOCK_PROCESS_CPUTIME_ID) - started)
          redis.call("PUBLISH", "s:idle", "end")
          sleep 0.01 while reader.alive?
        end
      end
      check(used <= one["cpu_at_most"], format("%.1f ms of CPU time", used))
    end
  end

  # What somebody else hears who asks the kernel's admin endpoint for a path while we are in `hang_in_here`.
  def said_while_hung(path, milliseconds)
    Dir.mktmpdir("iok-scenario-") do |folder|
      IOKernel::Kernel.open(admin: "unix:#{folder}/admin") do |kernel|
        ask = "sleep 0.3; exec curl -s -m 5 -o #{folder}/said --unix-socket #{folder}/admin http://localhost#{path}"
        yield kernel, lambda {
          curl = Process.spawn(ask)
          hang_in_here(milliseconds)
          check(Process.wait(curl, Process::WNOHANG), "no answer came while the program hung")
          File.read("#{folder}/said")
        }
      end
    end
  end

  # One call into C that computes and lets no other thread run: a search that goes astray, until the time is over. Its
  # safe points run handlers of signals, and nothing else.
  def hang_in_here(milliseconds)
    over = Class.new(RuntimeError)
    before = trap("ALRM") { raise over }
    waker = Process.spawn("sh", "-c", "sleep #{milliseconds / 1000.0}; kill -ALRM #{Process.pid}")
    begin
      /\A(a|aa)+\z/.match?("#{"a" * 60}b")
      raise "the search has ended"
    rescue over
      nil
    end
  ensure
    Process.wait(waker)
    trap("ALRM", before)
  end

  def stack_while_hung(one)
    said_while_hung(one["path"], one["hang"]) do |_kernel, ask|
      main = JSON.parse(ask.call).fetch("main")
      check(main.fetch("text").include?("hang_in_here"), main)
    end
  end

  def counters(one)
    said_while_hung(one["path"], 1000) do |kernel, ask|
      kernel.counter(one["counter"]).increment(one["add"])
      lines = ask.call.lines(chomp: true)
      check(lines.include?(one["line"]), lines.grep(/#{one["counter"]}/))
    end
  end

  def markers(one)
    said_while_hung(one["path"], 1000) do |kernel, ask|
      main = kernel.marker(one["marker"]) { JSON.parse(ask.call).fetch("main") }
      check(main["markers"].to_s.include?(one["marker"]), main)
    end
  end
end

Scenarios.main
