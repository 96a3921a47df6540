# frozen_string_literal: true

require_relative "helper"
require "net/http"

class ForkTest < Test
  def test_a_child_has_its_own
    cache = redis
    mine = cache.call("CLIENT", "ID")
    refute_equal mine.to_s, in_child { cache.call("CLIENT", "ID") }
    assert_equal mine, cache.call("CLIENT", "ID")
  end

  def test_children_of_children
    cache = redis
    assert_equal "inner", in_child { in_child { cache.call("ECHO", "inner") } }
  end

  def test_everything_opens_again
    one = kernel
    service = one.open("redis+app://label")
    service.peers = [REDIS.delete_prefix("redis://")]
    service.wait_ready(5)
    counter = one.counter("forked")
    said = in_child do
      one.marker("in the child") { counter.increment }
      one.echo(1)
      kind = service.subscribe("SUBSCRIBE", "fork:a", &:class)
      [service.call("ECHO", "x"), kind, one.state["ready"]].join(" ")
    end
    assert_equal "x IOKernel::Subscription true", said
  end

  def test_what_was_under_way_is_the_parents
    cache = redis
    cache.wait_ready(5)
    lease, future = cache.lease, cache.async("DEBUG", "SLEEP", "0.1")
    said = in_child do
      error = future.error(5)
      [error.class, error.status, (lease.call("PING") rescue $!.class)].join(" ")
    end
    assert_equal "IOKernel::Closed -104 IOKernel::Closed", said
    assert_equal "OK", future.value
    assert_equal "PONG", lease.call("PING")
    lease.release
  end

  def test_a_fork_in_a_thread_among_others
    cache = redis
    asking = Array.new(3) { Thread.new { Array.new(300) { |n| cache.call("ECHO", n.to_s) } } }
    saids = Array.new(5) { Thread.new { in_child { cache.call("ECHO", "child") } } }.map(&:value)
    assert_equal ["child"] * 5, saids
    asking.each { |thread| assert_equal Array.new(300, &:to_s), thread.value }
  end

  def test_a_fork_inside_of_a_marker
    one = kernel
    one.marker("around") { assert_equal "1", in_child { one.marker("inside") { one.echo(1) } } }
    assert_equal 2, one.echo(2)
  end

  def test_a_fork_that_the_hook_did_not_see
    cache = redis
    cache.call("PING")
    hookless = Process.method(:_fork).super_method
    skip "there is no fork below the hook" unless hookless
    pid = hookless.call
    if pid.zero?
      begin
        error = cache.async("PING").error
        exit!(error.is_a?(IOKernel::Closed) && cache.call("ECHO", "x") == "x" ? 0 : 1)
      rescue StandardError
        exit!(2)
      end
    end
    assert_equal 0, Process.wait2(pid).last.exitstatus
    assert_equal "PONG", cache.call("PING")
  end

  def test_a_daemon
    script = <<~RUBY
      require "iokernel"
      cache = IOKernel.open(ARGV[0])
      cache.call("PING")
      Process.daemon
      cache.call("SET", "fork:daemon", Process.pid)
    RUBY
    assert system(*ruby("-e", script, REDIS))
    cache = redis
    eventually { cache.call("GET", "fork:daemon") }
    cache.call("DEL", "fork:daemon")
  end

  def test_the_exit_of_a_child_disturbs_nobody
    cache = redis
    cache.call("PING")
    pid = fork { exit }
    assert_predicate Process.wait2(pid).last, :success?
    assert_equal "PONG", cache.call("PING")
  end
end

# Servers that load an application, and fork.
class ServersTest < Test
  APPS = File.expand_path("apps", __dir__)

  def setup
    super
    @folder = Dir.mktmpdir("iok-ruby-")
  end

  def teardown
    super
    FileUtils.remove_entry(@folder)
  end

  def test_puma_in_cluster_mode_with_preload
    served("puma", "-C", "#{APPS}/puma.rb", "-b", "tcp://127.0.0.1:#{@port = Server.free_port}", "#{APPS}/config.ru")
  end

  def test_unicorn_with_preload
    served("unicorn", "-c", "#{APPS}/unicorn.rb", "-l", "127.0.0.1:#{@port = Server.free_port}", "#{APPS}/config.ru")
  end

  def served(name, *arguments)
    skip "#{name} is not installed" unless system("sh", "-c", "command -v #{name}", out: File::NULL)

    redis.call("DEL", "app:count")
    environment = {"RUBYLIB" => LIB, "IOK_REDIS" => REDIS, "IOKERNEL_ADMIN" => "unix:#{@folder}/admin-%p"}
    master = Process.spawn(environment, name, *arguments, chdir: @folder, out: "#{@folder}/log", err: %i[child out])
    wait_until_it_serves
    workers_answer(master)
    all_workers_are_counted
  ensure
    if master
      Process.kill("TERM", master)
      Process.wait(master)
    end
  end

  def workers_answer(master)
    threads = Array.new(4) { |n| Thread.new { Array.new(50) { |m| ["#{n}-#{m}", get("#{n}-#{m}").split] } } }
    answers = threads.flat_map(&:value)
    answers.each { |name, (_, echoed)| assert_equal name, echoed }
    pids, loaded, counts = answers.map { |_, (pid, _, by, count)| [pid, by, count.to_i] }.transpose
    assert_equal 2, pids.uniq.size, "both workers answer"
    assert_equal [master.to_s], loaded.uniq, "the application was loaded by the master"
    refute_includes pids, master.to_s
    assert_equal 200, counts.uniq.size
  end

  # One worker's metrics are those of the family.
  def all_workers_are_counted
    sockets = Dir["#{@folder}/admin-*"]
    assert_operator sockets.size, :>=, 2
    metrics = IO.popen(%W[curl -s -m 5 --unix-socket #{sockets.last} http://x/metrics], &:read)
    assert_operator metrics[/^answers_total (\d+)/, 1].to_i, :>=, 200
  end

  def get(name)
    Net::HTTP.get(URI("http://127.0.0.1:#{@port}/#{name}"))
  end

  def wait_until_it_serves
    eventually(20) { get("ready") rescue nil }
  rescue Minitest::Assertion
    flunk File.read("#{@folder}/log")
  end
end
