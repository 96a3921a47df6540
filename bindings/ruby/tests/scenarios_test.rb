# frozen_string_literal: true

require_relative "helper"
require "open3"

# The scenarios that every language shows, in each kind of loop.
class ScenariosTest < Test
  LISTED = File.expand_path("../../scenarios/scenarios.json", __dir__)

  %w[select async].each do |loop_kind|
    define_method(:"test_scenarios_in_loops_of_#{loop_kind}") do
      skip "redis-server is not installed" unless Server.installed?
      is_there = loop_kind == "select" || Gem::Specification.find_all_by_name(loop_kind).any?
      skip "the gem #{loop_kind} is not installed" unless is_there

      server = Server.new
      environment = {"IOK_SCENARIOS" => LISTED, "IOK_REDIS" => server.url, "IOK_LOOP" => loop_kind}
      printed, = Open3.capture2e(environment, RbConfig.ruby, "#{__dir__}/scenarios.rb")
      lines = printed.lines.grep(/\A(not )?ok /)
      assert_equal printed[/\A1\.\.(\d+)/, 1].to_i, lines.size, printed
      assert_empty lines.grep(/\Anot /), printed
    ensure
      server&.stop
    end
  end
end
