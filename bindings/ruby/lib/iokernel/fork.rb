# frozen_string_literal: true

module IOKernel
  # Forked children begin anew: their kernels and endpoints open again at their first use.
  module Fork
    # `fork` in all its forms goes through here; it is the child's way out that matters.
    module Hook
      def _fork
        super.tap { |pid| Fork.in_child if pid.zero? }
      end

      # The process that goes on is a child.
      def daemon(...)
        super.tap { Fork.in_child }
      end
    end

    @pid = Process.pid

    # A handle of the parent's was used: it may be that a fork went past the hook.
    def self.notice
      in_child unless @pid == Process.pid
    end

    def self.in_child
      @pid = Process.pid
      IOKernel.forked
      Stack.forget
      Kernel.forked
    end

    Process.singleton_class.prepend(Hook)
  end
  private_constant :Fork
end
