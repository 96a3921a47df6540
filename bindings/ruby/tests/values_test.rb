# frozen_string_literal: true

require_relative "helper"

class ValuesTest < Test
  Values = IOKernel.const_get(:Values)

  def back(value)
    Values.unpack(Values.pack(value))
  end

  def test_text_and_bytes_are_told_apart
    assert_equal Encoding::UTF_8, back("grün").encoding
    assert_equal Encoding::BINARY, back("gr\xFCn".b).encoding
    assert_equal "name", back(:name)
    assert_equal "ü", back("ü".encode("UTF-16LE"))
  end

  def test_integers_of_any_size
    [0, -1, 2**63 - 1, -2**63, 2**64 - 1, 2**64, -2**63 - 1, 10**40, [1, {"a" => [10**30]}]].each do |number|
      assert_equal number, back(number)
    end
  end

  def test_sets_errors_and_attributes
    assert_equal Set[1, "two", nil], back(Set[1, "two", nil])
    error = back([IOKernel::RemoteError.new("no such thing", code: "NOSUCH")]).first
    assert_equal ["NOSUCH", "no such thing", :replied], [error.code, error.reason, error.fate]
    assert_equal "NOSUCH no such thing", error.message
    assert_equal IOKernel::Attributed.new([1], {"ttl" => 2}), back(IOKernel::Attributed.new([1], {"ttl" => 2}))
    assert_equal Set[[1], {"a" => 2}], back(Set[[1], {"a" => 2}])
  end

  def test_verbatim_text_loses_its_format_and_unknown_types_are_kept
    assert_equal "läuft", Values.unpack(MessagePack::ExtensionValue.new(3, "txt:läuft".b).to_msgpack)
    unknown = MessagePack::ExtensionValue.new(99, "x")
    assert_equal unknown, Values.unpack(unknown.to_msgpack)
  end

  def test_what_cannot_be_packed_is_a_bad_request
    [Object.new, [1, Object.new], "\xff".dup.force_encoding("Shift_JIS"), 1..2, 1i].each do |value|
      error = assert_raises(IOKernel::BadRequest, value.inspect) { Values.pack(value) }
      assert_equal [-107, :not_sent, "BADREQUEST"], [error.status, error.fate, error.code]
    end
  end

  def test_packing_is_clean_after_a_failure
    codec = Values::Codec.new
    assert_raises(IOKernel::BadRequest) { codec.pack([1, Object.new]) }
    assert_equal [7], Values.unpack(codec.pack([7]))
    assert_equal [2**70], Values.unpack(codec.pack([2**70]))
    assert_equal [8], Values.unpack(codec.pack([8]))
  end

  def test_unpacking_is_clean_after_a_failure
    codec = Values::Codec.new
    assert_raises(EOFError) { codec.unpack("\x93\x01".b) }
    assert_raises(MessagePack::UnpackError) { codec.unpack("\xc1".b) }
    assert_equal 5, codec.unpack("\x05".b)
  end

  def test_packing_and_unpacking_are_clean_after_an_interruption
    codec = Values::Codec.new
    interrupted_everywhere(-> { codec.unpack(codec.pack([1, "x"])) }) do
      assert_equal [2, "y"], codec.unpack(codec.pack([2, "y"]))
    end
  end

  def test_everything_comes_back_from_the_kernel
    one = kernel
    values = [nil, true, -2**63, 2**64 - 1, 10**30, 1.5, "", "ü", "\0\xff".b, [], {}, [[[[]]]], {"a" => {"b" => [1]}},
              Set[]]
    values.each { |value| assert_equal [value], one.echo([value]) }
    [Float::INFINITY, -0.0].each { |number| assert_equal number.to_s, one.echo(number).to_s }
    assert_predicate one.echo(Float::NAN), :nan?
  end
end
