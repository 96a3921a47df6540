# frozen_string_literal: true

module IOKernel
  VERSION = "0.1.0"
end
