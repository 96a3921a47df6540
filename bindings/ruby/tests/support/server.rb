# frozen_string_literal: true

require "fileutils"
require "socket"
require "tmpdir"

# A redis-server of our own: on a free port, in a folder of its own, gone with us.
class Server
  @shared = nil

  # One for all tests of this process: the one that IOK_REDIS names, or one of our own.
  def self.url
    given = ENV.fetch("IOK_REDIS", "")
    return given unless given.empty?

    @shared ||= new.tap { |server| Minitest.after_run { server.stop } }
    @shared.url
  end

  def self.installed?
    system("redis-server --version", out: File::NULL, err: File::NULL)
  end

  def self.free_port
    TCPServer.open("127.0.0.1", 0) { |socket| socket.local_address.ip_port }
  end

  attr_reader :port, :pid

  def initialize(port = Server.free_port)
    @port = port
    @folder = Dir.mktmpdir("iok-ruby-redis-")
    start
  end

  def start
    options = %W[--port #{@port} --bind 127.0.0.1 --dir #{@folder} --enable-debug-command yes --loglevel warning]
    @pid = Process.spawn("redis-server", *options, "--save", "", out: "#{@folder}/log", err: %i[child out])
    wait_until_it_listens
  end

  def url
    "redis://127.0.0.1:#{@port}"
  end

  def kill
    return unless @pid

    Process.kill("KILL", @pid)
    Process.wait(@pid)
    @pid = nil
  end

  def stop
    kill
    FileUtils.remove_entry(@folder)
  end

  private

  def wait_until_it_listens
    deadline = Process.clock_gettime(Process::CLOCK_MONOTONIC) + 10
    begin
      TCPSocket.new("127.0.0.1", @port).close
    rescue SystemCallError
      raise File.read("#{@folder}/log") if Process.clock_gettime(Process::CLOCK_MONOTONIC) > deadline

      sleep 0.02
      retry
    end
  end
end
