# frozen_string_literal: true

require "msgpack"
require "set"

module IOKernel
  # A value that came with attributes (the option `attributes=true`).
  Attributed = Struct.new(:value, :attributes)

  # Values between Ruby and MessagePack.
  #
  #   nil, boolean, int   nil, true, false, Integer (of any size: ext 2)
  #   float               Float
  #   str                 String in UTF-8; given: also Symbol
  #   bin                 String in ASCII-8BIT
  #   array, map          Array, Hash
  #   ext 1, error        RemoteError
  #   ext 3, verbatim     String in UTF-8, without its format
  #   ext 4, set          Set
  #   ext 5               Attributed
  #   other ext           MessagePack::ExtensionValue
  module Values
    # An integer that MessagePack has no type for.
    Big = Struct.new(:integer)
    # Text with a format; never made.
    Verbatim = Class.new
    private_constant :Big, :Verbatim

    FACTORY = MessagePack::Factory.new
    private_constant :FACTORY

    # What a packer may raise for a value that cannot be packed.
    CANNOT_PACK = [NoMethodError, RangeError, EncodingError, ArgumentError, TypeError].freeze

    def self.text(data)
      data.force_encoding(Encoding::UTF_8)
    end

    FACTORY.register_type(1, RemoteError,
                          packer: ->(error) { pack([error.code.empty? ? "ERR" : error.code, error.reason]) },
                          unpacker: lambda { |data|
                            code, reason = unpack(data)
                            RemoteError.new(reason, code: code, status: -301, fate: :replied)
                          })
    FACTORY.register_type(2, Big, packer: ->(big) { big.integer.to_s }, unpacker: ->(data) { Integer(data, 10) })
    FACTORY.register_type(3, Verbatim, packer: ->(_) { "" }, unpacker: ->(data) { text(data.byteslice(4..)) })
    FACTORY.register_type(4, Set, packer: ->(set) { pack(set.to_a) }, unpacker: ->(data) { Set.new(unpack(data)) })
    FACTORY.register_type(5, Attributed, packer: ->(one) { pack([one.attributes, one.value]) },
                                         unpacker: lambda { |data|
                                           attributes, value = unpack(data)
                                           Attributed.new(value, attributes)
                                         })

    # A packer for one channel; quicker than one for each value.
    def self.packer
      FACTORY.packer
    end

    # An unpacker for one channel.
    def self.unpacker
      FACTORY.unpacker(allow_unknown_ext: true)
    end

    # A value as MessagePack, packed by `packer`. Raises BadRequest.
    def self.pack(value, packer = self.packer)
      packer.write(value).full_pack
    rescue *CANNOT_PACK => error
      packer.clear
      raise BadRequest.cannot_pack(error) unless error.is_a?(RangeError)

      pack_big(value, packer)
    end

    def self.pack_big(value, packer)
      packer.write(with_big(value)).full_pack
    rescue *CANNOT_PACK => error
      packer.clear
      raise BadRequest.cannot_pack(error)
    end
    private_class_method :pack_big

    # The value with its large integers as ext 2.
    def self.with_big(value)
      case value
      when Integer then value.bit_length > 63 ? Big.new(value) : value
      when Array then value.map { |one| with_big(one) }
      when Hash then value.to_h { |key, one| [with_big(key), with_big(one)] }
      else value
      end
    end
    private_class_method :with_big

    # One MessagePack value.
    def self.unpack(data, unpacker = self.unpacker)
      unpacker.feed(data).read
    rescue MessagePack::UnpackError, EOFError, ArgumentError
      unpacker.reset
      raise
    end

    # The payload of a completion.
    def self.decode(encoding, payload, unpacker = self.unpacker)
      case encoding
      when Records::ENCODING_MSGPACK then unpack(payload, unpacker)
      when Records::ENCODING_TEXT then text(payload)
      when Records::ENCODING_NONE then nil
      else payload
      end
    end
  end
  private_constant :Values
end
