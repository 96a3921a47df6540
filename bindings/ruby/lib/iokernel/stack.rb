# frozen_string_literal: true

module IOKernel
  # Lets the admin endpoint's `/stack` show Ruby's frames: a handler of the kernel's signal writes them down.
  #
  # Ruby runs handlers of signals in the main thread, at its next safe point. So the main thread's frames come first,
  # and those of the others follow, each under its number; inside of a call that keeps the interpreter's lock there are
  # native frames alone.
  module Stack
    TEXT_BYTES = 32 << 10
    @signal = nil
    @before = nil

    module_function

    # Opens the door to this process's stacks for a kernel. Without it, `/stack` says what is missing.
    def open(handle)
      signal, fd = FFI::MemoryPointer.new(:int32), FFI::MemoryPointer.new(:int32)
      return unless Library.iok_stack_open(handle, signal, fd).zero?

      catch_signal(signal.read_int32, IO.for_fd(fd.read_int32, "w", autoclose: false))
      Library.iok_stack_arm(handle, 1)
    end

    # Before the kernel is closed.
    def close(handle)
      restored = FFI::MemoryPointer.new(:bool)
      forget if Library.iok_stack_close(handle, restored).zero? && restored.read(:bool)
    end

    # Takes the handler away. In a forked child: the descriptor that it would write to is closed.
    def forget
      return unless @signal

      trap(@signal, @before)
      @signal = @before = nil
    end

    def catch_signal(signal, io)
      return if @signal == signal

      before = trap(signal) { write(io) }
      @signal, @before = signal, before || "SYSTEM_DEFAULT"
    end

    def write(io)
      io.syswrite("#{text.byteslice(0, TEXT_BYTES).scrub("")}\0")
    rescue SystemCallError, IOError
      nil
    end

    # The frames of every thread, the innermost first; the main thread, in which this runs, without those of the
    # handler.
    def text
      threads = Thread.list.sort_by { |thread| thread == Thread.main ? 0 : 1 }
      threads.map { |thread| "#{title(thread)}\n#{frames(thread).join("\n")}\n" }.join("\n")
    end

    def title(thread)
      name = thread == Thread.main ? "main" : thread.name
      "Thread #{thread.native_thread_id}#{" (#{name})" if name}, #{thread.status}:"
    end

    def frames(thread)
      lines = thread.backtrace || []
      lines = lines.drop_while { |line| line.start_with?(__FILE__) || line.include?("`backtrace'") } if
        thread == Thread.current
      lines.map { |line| "  #{line}" }
    end
    private_class_method :catch_signal, :write, :text, :title, :frames
  end
  private_constant :Stack
end
