# frozen_string_literal: true

# A small fiber scheduler over IO.select, with all that Ruby 3.1 asks of one.
class SelectScheduler
  def initialize
    @readable = {}.compare_by_identity
    @writable = {}.compare_by_identity
    @timers = {}.compare_by_identity
    @ready = []
    @blocked = {}.compare_by_identity
    @unblocked = Thread::Queue.new
    @sleeps = false
    @wake_in, @wake_out = IO.pipe
  end

  # How many turns the loop has made.
  attr_reader :turns

  def run
    @turns = 0
    turn until idle?
  ensure
    [@wake_in, @wake_out].each(&:close)
  end
  alias close run

  def fiber(&block)
    Fiber.new(blocking: false, &block).tap(&:resume)
  end

  def io_wait(io, events, timeout)
    fiber = Fiber.current
    @readable[io] = fiber if events & IO::READABLE != 0
    @writable[io] = fiber if events & IO::WRITABLE != 0
    woken = park(timeout)
    woken == :time_is_over ? false : woken
  ensure
    @readable.delete(io)
    @writable.delete(io)
  end

  def kernel_sleep(duration = nil)
    park(duration)
    true
  end

  def block(_blocker, timeout = nil)
    @blocked[Fiber.current] = true
    park(timeout) != :time_is_over
  ensure
    @blocked.delete(Fiber.current)
  end

  # Any thread.
  def unblock(_blocker, fiber)
    @unblocked << fiber
    @wake_out.write_nonblock(".", exception: false) if @sleeps
  end

  def timeout_after(duration, error, message)
    asker = Fiber.current
    timer = fiber { kernel_sleep(duration) && asker.raise(error, message) }
    yield duration
  ensure
    @timers.delete(timer)
  end

  def process_wait(pid, flags)
    Thread.new { Process::Status.wait(pid, flags) }.value
  end

  private

  def now
    Process.clock_gettime(Process::CLOCK_MONOTONIC)
  end

  # Gives the turn away. What the fiber is resumed with, `:time_is_over` after the timeout.
  def park(timeout)
    return Fiber.yield unless timeout

    begin
      @timers[Fiber.current] = now + timeout
      Fiber.yield
    ensure
      @timers.delete(Fiber.current)
    end
  end

  def idle?
    [@readable, @writable, @timers, @blocked, @unblocked].all?(&:empty?)
  end

  def turn
    @turns += 1
    # From here on who unblocks a fiber must wake the loop, which looks after that whether somebody has.
    @sleeps = true
    readable, writable, = IO.select([@wake_in, *@readable.keys], @writable.keys, nil, until_next_timer)
    @sleeps = false
    @wake_in.read_nonblock(1024, exception: false) if readable&.delete(@wake_in)
    ready = Hash.new(0).compare_by_identity
    readable&.each { |io| ready[@readable[io]] |= IO::READABLE if @readable[io] }
    writable&.each { |io| ready[@writable[io]] |= IO::WRITABLE if @writable[io] }
    ready.each { |fiber, events| fiber.resume(events) if fiber.alive? }
    resume_unblocked
    fire_timers
  end

  # Those of this turn; who is unblocked meanwhile waits for the next one.
  def resume_unblocked
    @unblocked.size.times do
      fiber = @unblocked.pop
      fiber.resume if fiber.alive? && @blocked.key?(fiber)
    end
  end

  def until_next_timer
    return 0 unless @unblocked.empty?

    first = @timers.values.min
    first && [first - now, 0].max
  end

  def fire_timers
    at = now
    @timers.select { |_, time| time <= at }.each_key do |fiber|
      fiber.resume(:time_is_over) if @timers.key?(fiber)
    end
  end
end
