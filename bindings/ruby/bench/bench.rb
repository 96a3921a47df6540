# frozen_string_literal: true

# Measures the binding beside the client that users would pick, in turns, so that both have the same machine:
#
#   IOK_REDIS=redis://127.0.0.1:6379 ruby bench/bench.rb
#
# One JSON line for each case and side: {"case": ..., "side": ..., "per_second": N}, the median of its rounds, with what
# else the case measures. SECONDS and ROUNDS change how long it takes.

$LOAD_PATH.unshift(File.expand_path("../lib", __dir__))

require "iokernel"
require "json"
require_relative "../tests/support/loop"

# The cases and how they are measured.
module Bench
  URL = ENV.fetch("IOK_REDIS")
  SECONDS = Float(ENV.fetch("SECONDS", "0.5"))
  ROUNDS = Integer(ENV.fetch("ROUNDS", "7"))
  KEY = "bench:key"
  VALUE = "x" * 100
  DEPTH = 100
  # How often each of the fibers asks.
  FIBER_ROUNDS = 50

  module_function

  def main
    kernel = IOKernel::Kernel.new
    cache = kernel.open(URL)
    cache.call("SET", KEY, VALUE)
    echo(kernel)
    get_many(cache)
    get_in_fibers(cache)
    get_one(cache)
    cache.call("DEL", KEY)
  end

  # What a message costs the program's thread, no network: 256 no-ops outstanding.
  def echo(kernel)
    channel = kernel.channel
    op = IOKernel.const_get(:Records)::OP_ECHO
    round = lambda do
      channel.gather { Array.new(256) { channel.request(["GET", KEY], op << 32, 0, 0) } }.each(&:value)
      256
    end
    report("no-op, 256 outstanding", "iokernel" => round)
  end

  def get_many(cache)
    sides = {
      "iokernel" => -> { cache.gather { Array.new(DEPTH) { cache.async("GET", KEY) } }.each(&:value).size },
      "iokernel, a batch" => -> { cache.call(*Array.new(DEPTH) { ["GET", KEY] }).size }
    }
    redis = peer or return report("GET, 100 in flight", sides)
    report("GET, 100 in flight", sides.merge("redis-rb with hiredis" => lambda {
      redis.pipelined { |pipeline| DEPTH.times { pipeline.get(KEY) } }.size
    }))
  end

  # A hundred fibers of one scheduler that ask again and again: the kernel by what all share; redis-rb by a connection
  # for each, with its driver in Ruby, since hiredis stops the whole loop while it waits; and nobody, which is what the
  # scheduler itself costs.
  def get_in_fibers(cache)
    sides = {"iokernel" => -> { fibers { cache.call("GET", KEY) } }}
    conns = Array.new(DEPTH) { peer(:ruby) || break }
    sides["redis-rb"] = -> { fibers { |n| conns[n].get(KEY) } } if conns
    report("GET, 100 fibers", sides)
    report("switch, 100 fibers", "the scheduler alone" => -> { switches })
  ensure
    conns&.each(&:close)
  end

  def fibers
    Loop.run_select { Loop.all(DEPTH) { |n| FIBER_ROUNDS.times { yield n } } }
    DEPTH * FIBER_ROUNDS
  end

  # Each fiber blocks again and again, and another unblocks all of them in each turn.
  def switches
    Loop.run_select do
      scheduler, blocked, left = Fiber.scheduler, [], DEPTH
      DEPTH.times do
        Loop.fiber do
          FIBER_ROUNDS.times { (blocked << Fiber.current) && scheduler.block(nil) }
          left -= 1
        end
      end
      while left.positive?
        ready, blocked = blocked, []
        ready.each { |fiber| scheduler.unblock(nil, fiber) }
        scheduler.kernel_sleep(0)
      end
    end
    DEPTH * FIBER_ROUNDS
  end

  def get_one(cache)
    sides = {"iokernel" => -> { cache.call("GET", KEY) && 1 }}
    redis = peer
    sides["redis-rb with hiredis"] = -> { redis.get(KEY) && 1 } if redis
    report("GET, one at a time", sides)
  end

  # redis-rb, as users have it: with hiredis, unless there are fibers.
  def peer(driver = :hiredis)
    require driver.to_s unless driver == :ruby
    require "redis"
    Redis.new(url: URL, driver: driver)
  rescue LoadError => error
    warn "no peer: #{error.message}"
    nil
  end

  def report(name, sides)
    measured = sides.transform_values { [] }
    ROUNDS.times { sides.each { |side, round| measured[side] << measure(&round) } }
    measured.each do |side, rounds|
      middle = rounds.sort_by { |one| one[:per_second] }[rounds.size / 2]
      puts JSON.generate({case: name, side: side, **middle})
      $stdout.flush
    end
  end

  # Repeats the block, which tells how many messages it had, for a while.
  def measure
    yield
    GC.start
    count, times, cpu, start = 0, [], clock(Process::CLOCK_THREAD_CPUTIME_ID), clock
    stop, before = start + SECONDS, start
    while before < stop
      count += yield
      times << (after = clock) - before
      before = after
    end
    cpu = clock(Process::CLOCK_THREAD_CPUTIME_ID) - cpu
    {per_second: (count / (before - start)).round, cpu_ns: (cpu * 1e9 / count).round,
     p50_us: (times.sort[times.size / 2] * 1e6).round(1)}
  end

  def clock(id = Process::CLOCK_MONOTONIC)
    Process.clock_gettime(id)
  end
end

Bench.main
