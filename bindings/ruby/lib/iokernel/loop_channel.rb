# frozen_string_literal: true

module IOKernel
  # The channel of the fibers of one scheduler. Of those that wait, one leads: it waits for the descriptor by the
  # scheduler's `io_wait`, takes what has completed for all, and hands over when it has its own. What is submitted in
  # one turn of the loop goes in one call at its end; a request that nothing else is under way beside goes at once.
  class LoopChannel < Channel
    # Whose fibers use it.
    attr_reader :scheduler

    def initialize(handle, urls, ring_bytes, scheduler)
      super(handle, urls, ring_bytes)
      @futures = LoopFuture
      @marks = true
      @scheduler = scheduler
      @io = IO.for_fd(fd, autoclose: false)
      @leads = false
      @followers = {}.compare_by_identity
      @turn = false
    end

    def submitted
      return super unless in_loop?
      return if @turn || (@gathering && @outbox.bytes < GATHER_BYTES)

      flush if @pending.size + @sinks.size <= 1
      end_turn if more?
    end

    def flush
      super
      wake(@room) if room?
    end

    def wait(waiter, timeout = nil)
      return super unless in_loop?

      deadline = Clock.deadline(timeout)
      submitted if more?
      until waiter.done? || @ended != 0
        break unless @leads ? follow(waiter, deadline) : lead(waiter, deadline)
      end
      waiter.done?
    end

    def free?
      @ended.zero?
    end

    def here?
      in_loop?
    end

    # Something has come for a waiter.
    def wake(waiter)
      @followers.delete(waiter)&.each { |fiber| @scheduler.unblock(self, fiber) }
    end

    private

    def in_loop?
      Fiber.current_scheduler.equal?(@scheduler)
    end

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

    # Waits for all. False: the deadline is over.
    def lead(waiter, deadline)
      @leads = true
      poll
      until waiter.done? || @ended != 0
        left = deadline && Clock.left(deadline)
        return false if left&.zero?

        @scheduler.io_wait(@io, IO::READABLE, left)
        poll
        flush if more? && !@turn
      end
      true
    ensure
      @leads = false
      hand_over
    end

    # Waits until it is told, or is to lead. False: the deadline is over.
    def follow(waiter, deadline)
      left = deadline && Clock.left(deadline)
      return false if left&.zero?

      (@followers[waiter] ||= []) << Fiber.current
      @scheduler.block(self, left)
      true
    ensure
      fibers = @followers[waiter]
      fibers.delete(Fiber.current) if fibers
      @followers.delete(waiter) if fibers&.empty?
    end

    # Somebody else leads from here on.
    def hand_over
      waiter, fibers = @followers.first
      return unless waiter

      fiber = fibers.shift
      @followers.delete(waiter) if fibers.empty?
      @scheduler.unblock(self, fiber)
    end

    def finish(status)
      super
      @followers.keys.each { |waiter| wake(waiter) }
    end
  end
  private_constant :LoopChannel

  # A future that fibers wait for.
  class LoopFuture < Future
    def resolve(value)
      super
      @channel.wake(self)
    end

    def fail(error)
      super
      @channel.wake(self)
    end
  end
  private_constant :LoopFuture
end
