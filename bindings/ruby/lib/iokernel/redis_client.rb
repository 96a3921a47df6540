# frozen_string_literal: true

# The driver `:iokernel` of the gem redis-client: `RedisClient.config(driver: :iokernel)`.

require "iokernel"
require "redis_client"
require_relative "redis_client/address"
require_relative "redis_client/replies"
require_relative "redis_client/topics"
require_relative "redis_client/connection"

RedisClient.register_driver(:iokernel) { IOKernel::RedisDriver::Connection }
