# frozen_string_literal: true

$LOAD_PATH.unshift(File.expand_path("../lib", __dir__))

require "iokernel"
require "minitest/autorun"
require "timeout"
require_relative "support/loop"
require_relative "support/server"

# What the tests have in common: a kernel for each, and a server of our own for all.
class Test < Minitest::Test
  REDIS = Server.url
  LIB = File.expand_path("../lib", __dir__)

  def setup
    @kernels = []
  end

  def teardown
    @kernels.each(&:close)
  end

  # A kernel that is closed after the test.
  def kernel(**config)
    IOKernel::Kernel.new(**config).tap { |kernel| @kernels << kernel }
  end

  # An endpoint of the server, in a kernel of its own unless one is given.
  def redis(kernel = self.kernel, **options)
    kernel.open(REDIS, **options)
  end

  def now
    Process.clock_gettime(Process::CLOCK_MONOTONIC)
  end

  # Waits until the block gives something true.
  def eventually(seconds = 5)
    deadline = now + seconds
    until (found = yield)
      flunk "it did not happen within #{seconds} s" if now > deadline
      sleep 0.01
    end
    found
  end

  class Interruption < RuntimeError; end

  # Runs the first again and again, each time raising at another return of a method in it, as a handler of a signal might
  # (`by: :raise`) or another thread (`by: :thread`, which can be held off); and after each the block, which looks whether
  # all is well. How often it was interrupted.
  def interrupted_everywhere(work, by: :raise)
    (1..).each do |at|
      begin
        at_return(at, -> { by == :raise ? raise(Interruption) : Thread.current.raise(Interruption) }, &work)
        is_through = true
      rescue Interruption
        is_through = false
      end
      yield
      return at - 1 if is_through
    end
  end

  # Runs the block, and in it something else at one return of a method.
  def at_return(at, something)
    seen, thread = 0, Thread.current
    trace = TracePoint.new(:c_return, :return) do
      next unless Thread.current == thread && (seen += 1) == at

      trace.disable
      something.call
    end
    trace.enable
    yield
  ensure
    trace.disable
  end

  # How often the block calls a function of the library.
  def count_calls(name)
    calls = 0
    counting = Module.new { define_method(name) { |*arguments| (calls += 1) && super(*arguments) } }
    IOKernel.const_get(:Library).singleton_class.prepend(counting)
    yield
    calls
  ensure
    counting.remove_method(name)
  end

  # Runs the block in a forked child; its exit status, and what it gave, as text.
  def in_child
    reader, writer = IO.pipe
    pid = fork do
      reader.close
      writer.write(yield.to_s)
      writer.close
      exit!(0)
    rescue Exception => error
      writer.write(error.full_message(highlight: false))
      writer.close
      exit!(1)
    end
    writer.close
    said = Timeout.timeout(20) { reader.read }
    _, status = Process.wait2(pid)
    assert status.success?, said
    said
  end

  def ruby(*arguments)
    [RbConfig.ruby, "-I", LIB, *arguments]
  end
end
