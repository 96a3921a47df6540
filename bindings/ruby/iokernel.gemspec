# frozen_string_literal: true

require_relative "lib/iokernel/version"

Gem::Specification.new do |spec|
  spec.name = "iokernel"
  spec.version = IOKernel::VERSION
  spec.authors = ["The iokernel authors"]
  spec.summary = "All the networking of a program in one I/O thread that its interpreter cannot stall"
  spec.licenses = ["MIT", "Apache-2.0"]
  spec.required_ruby_version = ">= 3.1"
  spec.files = Dir["lib/**/*.rb", "lib/**/*.so", "sig/**/*.rbs", "README.md", base: __dir__]
  spec.metadata = {"rubygems_mfa_required" => "true"}
  spec.add_dependency "ffi", "~> 1.15"
  spec.add_dependency "msgpack", "~> 1.4"
end
