# frozen_string_literal: true

require_relative "helper"

# sig/iokernel.rbs names what there is: every method in it exists, every public method is in it.
class TypesTest < Test
  SIGNATURES = File.expand_path("../sig", __dir__)
  INTERNAL = {
    "Kernel" => %i[urls area handle channel open_channel channel_over block open_number wait_until_up mark_mortal
                   forked],
    "Future" => %i[tag tag= resolve fail], "Endpoint" => %i[forked], "Lease" => %i[forked], "Request" => %i[lose],
    "Listener" => %i[done? completion reply lose_all]
  }.freeze

  OF_OBJECTS = %i[inspect == eql? hash message to_s].freeze

  def setup
    super
    require "rbs"
    loader = RBS::EnvironmentLoader.new
    loader.add(path: Pathname(SIGNATURES))
    @environment = RBS::Environment.from_loader(loader).resolve_type_names
  rescue LoadError
    skip "the gem rbs is not installed"
  end

  def declared
    @environment.class_decls.select { |name, _| name.to_s.start_with?("::IOKernel") }
  end

  def test_signatures_are_valid
    builder = RBS::DefinitionBuilder.new(env: @environment)
    declared.each_key { |name| assert builder.build_instance(name) && builder.build_singleton(name) }
  end

  def test_signatures_and_methods_are_the_same
    declared.each do |name, entry|
      next if %w[::IOKernel ::IOKernel::Attributed].include?(name.to_s)

      ours = Object.const_get("IOKernel").const_get(name.to_s.split("::").last)
      wanted = entry.decls.flat_map { |decl| decl.decl.members }.filter_map { |member| named(member) }.flatten
      found = ours.public_instance_methods(false) - INTERNAL.fetch(name.name.to_s, []) - OF_OBJECTS
      assert_equal wanted.sort, (found & wanted | (found - wanted)).sort, name.to_s
    end
  end

  # The names of the methods of instances that a member stands for.
  def named(member)
    case member
    when RBS::AST::Members::MethodDefinition
      member.name unless member.kind == :singleton || member.name == :initialize
    when RBS::AST::Members::AttrReader then member.name
    when RBS::AST::Members::AttrAccessor then [member.name, :"#{member.name}="]
    end
  end
end
