# frozen_string_literal: true

require_relative "helper"
require "open3"

# Every example prints what its head says that it prints.
class ExamplesTest < Test
  FOLDER = File.expand_path("../../../examples/ruby", __dir__)

  Dir["#{FOLDER}/*.rb"].each do |path|
    name = File.basename(path, ".rb")
    define_method(:"test_#{name}") do
      skip "the gem async is not installed" if name == "fibers" && !gem?("async")

      printed, status = Open3.capture2e(*ruby(path, REDIS))
      assert_predicate status, :success?, printed
      assert_equal said(path), printed
    end
  end

  def test_the_first_program_of_the_readme
    readme = File.read(File.expand_path("../README.md", __dir__))
    program = readme[/^```ruby\n(.*?)^```/m, 1]
    printed, status = Open3.capture2e(*ruby("-e", program.gsub("redis://127.0.0.1:6379", REDIS)))
    assert_predicate status, :success?, printed
  end

  # The lines after the command in the comment at a file's head.
  def said(path)
    head = File.readlines(path).drop_while { |line| !line.start_with?("#   $ ") }.drop(1)
    head.take_while { |line| line.start_with?("#   ") }.map { |line| line.delete_prefix("#   ") }.join
  end

  def gem?(name)
    require name
    true
  rescue LoadError
    false
  end
end
