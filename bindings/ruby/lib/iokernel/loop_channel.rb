# frozen_string_literal: true

module IOKernel
  # The channel of the fibers of one scheduler. While any of them waits, a fiber of its own attends to the descriptor, by
  # the scheduler's `io_wait`, and wakes those whose replies are there. What is submitted in one turn of the loop goes in
  # one call at its end; a request that nothing else is under way beside goes at once.
  class LoopChannel < Channel
    # Ends the fiber that attends.
    Left = Class.new(StandardError)
    private_constant :Left

    # Whose fibers use it.
    attr_reader :scheduler

    def initialize(handle, urls, ring_bytes, scheduler)
      super(handle, urls, ring_bytes)
      @futures = LoopFuture
      @marks = true
      @scheduler = scheduler
      @io = IO.for_fd(fd, autoclose: false)
      @attended = false
      @attendant = nil
      # Who waits for what: a fiber, or, seldom, several.
      @followers = {}.compare_by_identity
      @turn = false
    end

    def submitted
      return super unless here?
      return if @turn || (@gathering && @outbox.filled < GATHER_BYTES)

      flush if @pending.size + @sinks.size <= 1
      end_turn if more?
    end

    def flush
      super
      wake(@room) if room?
    end

    def wait(waiter, timeout = nil)
      return super unless here?

      deadline = timeout && Clock.deadline(timeout)
      submitted if !@turn && more?
      until (is_done = waiter.done?) || @ended != 0
        if !@attended
          attend
        elsif !follow(waiter, deadline)
          break
        end
      end
      is_done
    end

    # Something has come for a waiter.
    def wake(waiter)
      fibers = @followers.delete(waiter) or return
      return @scheduler.unblock(self, fibers) if Fiber === fibers

      fibers.each { |fiber| @scheduler.unblock(self, fiber) }
    end

    # Nobody may wait for a descriptor that is closed.
    def close
      @attendant.raise(Left) if here? && @attendant && !@attendant.equal?(Fiber.current)
      super
    end

    def free?
      @ended == 0
    end

    def here?
      Fiber.current_scheduler.equal?(@scheduler)
    end

    private

    def marker
      Markers.of_fiber
    end

    # Submits at the end of this turn, and goes on until the ring has taken everything.
    def end_turn
      @turn = true
      @scheduler.fiber do
        @scheduler.kernel_sleep(0)
        @turn = false
        flush
        wait(@room) if @full
      ensure
        @turn = false
      end
    end

    # Takes what completes, for as long as anybody waits.
    def attend
      @attended = true
      @scheduler.fiber do
        @attendant = Fiber.current
        loop do
          @scheduler.io_wait(@io, IO::READABLE, nil)
          poll
          flush if more? && !@turn
          break if @followers.empty? || @ended != 0
        end
      rescue Left
        nil
      ensure
        @attended = false
        @attendant = nil
        hand_over
      end
    end

    # Waits until something has come, or nobody attends any more. False: the deadline is over.
    def follow(waiter, deadline)
      left = deadline && Clock.left(deadline)
      return false if left&.zero?

      others = @followers[waiter]
      @followers[waiter] = others ? [*others, Fiber.current] : Fiber.current
      @scheduler.block(self, left)
      true
    ensure
      leave(waiter) if @followers.key?(waiter)
    end

    # This fiber no longer waits; others may.
    def leave(waiter)
      others = [*@followers[waiter]] - [Fiber.current]
      others.empty? ? @followers.delete(waiter) : @followers[waiter] = others
    end

    # If the fiber that attended was ended by somebody else, one of those that wait makes another.
    def hand_over
      waiter, = @followers.first
      wake(waiter) if waiter
    end

    def finish(status)
      super
      @followers.each_key.to_a.each { |waiter| wake(waiter) }
    end
  end
  private_constant :LoopChannel

  # A future that fibers wait for.
  class LoopFuture < Future
    def resolve(value)
      @outcome = value
      @tag = nil
      @channel.wake(self)
    end

    def fail(error)
      super
      @channel.wake(self)
    end
  end
  private_constant :LoopFuture
end
