# frozen_string_literal: true

require "ffi"

module IOKernel
  # The functions of the C library. All but two keep the interpreter's lock: they take less time than giving it up does.
  # `iok_wait` and `iok_kernel_close`, which may block, let other threads run meanwhile.
  module Library
    extend FFI::Library

    ABI_VERSION = 1
    NAME = "libiokernel.so"

    # The path of the library: `IOKERNEL_LIBRARY`, beside this file, or in the source tree that this file is in.
    def self.find
      given = ENV.fetch("IOKERNEL_LIBRARY", "")
      raise LoadError, "IOKERNEL_LIBRARY: #{given.inspect}: expected the path of #{NAME}" unless
        given.empty? || File.file?(given)
      return given unless given.empty?

      tried = candidates
      tried.find { |path| File.file?(path) } or raise LoadError,
        "#{NAME} was not found (#{tried.join(", ")}): build it with `cargo build --release`, " \
        "or set IOKERNEL_LIBRARY to its path"
    end

    def self.candidates
      root = File.expand_path("../../../..", __dir__)
      target = ENV.fetch("CARGO_TARGET_DIR", File.join(root, "target"))
      beside = File.join(__dir__, NAME)
      File.file?(File.join(root, "Cargo.toml")) ? [beside, File.join(target, "release", NAME)] : [beside]
    end

    PATH = find
    ffi_lib PATH

    attach_function :iok_abi_version, [], :uint32
    attach_function :iok_kernel_open, %i[string pointer], :int32
    attach_function :iok_kernel_close, %i[pointer uint32], :int32, blocking: true
    attach_function :iok_channel_open, %i[pointer string pointer], :int32
    attach_function :iok_channel_close, %i[pointer], :int32
    attach_function :iok_channel_fd, %i[pointer], :int32
    attach_function :iok_channel_status, %i[pointer], :int32
    attach_function :iok_submit_batch, %i[pointer pointer size_t pointer], :int32
    attach_function :iok_wait, %i[pointer int32], :int32, blocking: true
    attach_function :iok_poll, %i[pointer pointer pointer], :size_t
    attach_function :iok_advance, %i[pointer size_t], :int32
    attach_function :iok_stack_open, %i[pointer pointer pointer], :int32
    attach_function :iok_stack_arm, %i[pointer uint32], :int32
    attach_function :iok_stack_close, %i[pointer pointer], :int32
    attach_function :iok_cells, %i[pointer string pointer pointer], :int32
    attach_function :iok_cell_count, %i[pointer uint64], :void
    attach_function :iok_cell_add, %i[pointer double], :void
    attach_function :iok_marker_slot, %i[pointer pointer], :int32
    attach_function :iok_status_name, %i[int32], :string
    attach_function :iok_status_text, %i[int32], :string
    attach_function :iok_status_retriable, %i[int32], :bool
    attach_function :iok_last_error, [], :string

    version = iok_abi_version
    raise LoadError, "#{PATH}: ABI version #{version}: expected #{ABI_VERSION}, as this gem was made for" unless
      version == ABI_VERSION

    # The text of this thread's last error.
    def self.last_error
      iok_last_error.dup.force_encoding(Encoding::UTF_8).scrub
    end

    # Calls what gives a pointer by its last argument: `pointer_from { |out| iok_kernel_open(config, out) }`.
    def self.pointer_from
      out = FFI::MemoryPointer.new(:pointer)
      status = yield out
      raise Error.for(status, 1, text: last_error) unless status.zero?

      out.read_pointer
    end
  end
end
