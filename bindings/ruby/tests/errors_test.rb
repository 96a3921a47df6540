# frozen_string_literal: true

require_relative "helper"

class ErrorsTest < Test
  def test_the_text_says_where_and_what_is_known
    error = IOKernel::Timeout.new("late", status: -202, fate: :maybe_executed, endpoint: "redis://a", peer: 3)
    assert_equal "late (redis://a, maybe executed)", error.message
    assert_equal error.message, error.to_s
    assert_equal ["TIMEOUT", true, 3], [error.status_name, error.retriable?, error.peer]
    assert_equal "late", IOKernel::Timeout.new("late").message
  end

  def test_a_config_error_names_key_value_and_what_was_expected
    error = assert_raises(IOKernel::ConfigError) { kernel.open("redis://127.0.0.1:1", timeout: "soon") }
    assert_equal %w[timeout soon], [error.key, error.value]
    refute_nil error.expected
    assert_kind_of IOKernel::BadRequest, error
  end

  def test_options_are_checked_before_they_go
    [[:timeout, 1.5], [:timeout, Object.new], [:role, []]].each do |key, value|
      error = assert_raises(IOKernel::ConfigError) { kernel.open("redis://127.0.0.1:1", **{key => value}) }
      assert_equal key.to_s, error.key
    end
    assert_raises(IOKernel::ConfigError) { kernel.open(nil) }
    assert_raises(IOKernel::ConfigError) { kernel.open("redis://\0") }
    assert_raises(IOKernel::ConfigError) { IOKernel::Kernel.new(nosuch: 1) }
  end

  def test_secrets_are_not_shown
    endpoint = kernel.open("redis://user:secret@127.0.0.1:1/3?timeout=1s")
    assert_equal "redis://user:***@127.0.0.1:1/3", endpoint.url
    error = assert_raises(IOKernel::Error) { endpoint.call("PING", timeout: 0.1) }
    [endpoint.inspect, error.message, error.inspect].each { |text| refute_includes text, "secret" }
    shown = IOKernel::Kernel.new(otlp: "http://127.0.0.1:1", otlp_headers: "key=secret").tap { |one| @kernels << one }
    refute_includes shown.inspect, "secret"
  end

  def test_every_status_has_its_class
    found = {-103 => IOKernel::Closed, -105 => IOKernel::ConfigError, -202 => IOKernel::Timeout,
             -301 => IOKernel::RemoteError, -302 => IOKernel::ConnectionLost, -305 => IOKernel::Unavailable,
             -401 => IOKernel::Error, -999 => IOKernel::Error}
    found.each { |status, kind| assert_instance_of kind, IOKernel::Error.for(status) }
    assert_equal "UNKNOWN", IOKernel::Error.for(-999).status_name
    refute_empty IOKernel::Error.for(-302).message
  end

  def test_remote_errors_are_equal_by_what_they_say
    one, two = Array.new(2) { IOKernel::RemoteError.new("x", code: "ERR", fate: :replied) }
    assert_equal one, two
    assert_equal 1, [one, two].uniq.size
    refute_equal one, IOKernel::RemoteError.new("y", code: "ERR")
  end

  def test_times_that_are_none
    endpoint = kernel.open("redis://127.0.0.1:1")
    assert_raises(IOKernel::BadRequest) { endpoint.call("PING", timeout: "1s") }
    assert_raises(IOKernel::BadRequest) { endpoint.call("PING", timeout: Float::NAN) }
    error = assert_raises(IOKernel::Timeout) { endpoint.call("PING", timeout: 0) }
    assert_equal :not_sent, error.fate
    assert_raises(IOKernel::BadRequest) { endpoint.call("PING", route: "text") }
  end
end
