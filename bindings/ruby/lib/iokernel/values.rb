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

    # A value as MessagePack. Raises BadRequest.
    def self.pack(value)
      Codec.new.pack(value)
    end

    # One MessagePack value.
    def self.unpack(data)
      Codec.new.unpack(data)
    end

    # Packs and unpacks for one channel, which is quicker than making a packer for each value. What is raised in the
    # middle leaves something behind in it: the next one begins with a clean one.
    class Codec
      def initialize
        @packer = FACTORY.packer
        @unpacker = FACTORY.unpacker(allow_unknown_ext: true)
        @packing = @unpacking = false
      end

      # A value as MessagePack. Raises BadRequest.
      def pack(value)
        @packer.clear if @packing
        @packing = true
        payload = @packer.write(value).full_pack
        @packing = false
        payload
      rescue RangeError => error
        large = with_big(value)
        large == value ? raise(BadRequest.cannot_pack(error)) : pack(large)
      rescue NoMethodError, EncodingError, ArgumentError, TypeError => error
        raise BadRequest.cannot_pack(error)
      end

      # One MessagePack value.
      def unpack(data)
        @unpacker.reset if @unpacking
        @unpacking = true
        value = @unpacker.feed(data).read
        @unpacking = false
        value
      end

      # The payload of a completion.
      def decode(encoding, payload)
        case encoding
        when Records::ENCODING_MSGPACK then unpack(payload)
        when Records::ENCODING_TEXT then Values.text(payload)
        when Records::ENCODING_NONE then nil
        else payload
        end
      end

      private

      # The value with its large integers as ext 2.
      def with_big(value)
        case value
        when Integer then value.bit_length > 63 ? Big.new(value) : value
        when Array then value.map { |one| with_big(one) }
        when Hash then value.to_h { |key, one| [with_big(key), with_big(one)] }
        else value
        end
      end
    end
  end
  private_constant :Values
end
