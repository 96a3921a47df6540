# frozen_string_literal: true

# A server of one's own that any Redis client can talk to; here, iokernel itself.
#
#   $ ruby listener.rb
#   {"upper"=>"HELLO", "length"=>5}
#   served: DANCE is no command

require "iokernel"

listener = IOKernel.listen("redis://127.0.0.1:0")

# What the block gives is the reply; a RemoteError that it raises is the client's error.
server = Thread.new do
  listener.serve do |request|
    command, *arguments = request.args
    raise IOKernel::RemoteError.new("#{command} is no command", code: "ERR") unless command.casecmp?("SHOUT")

    text = arguments.first.force_encoding(Encoding::UTF_8)
    {"upper" => text.upcase, "length" => text.size}
  end
end

client = IOKernel.open(listener.url)
p client.call("SHOUT", "hello", timeout: 5)
begin
  client.call("DANCE")
rescue IOKernel::RemoteError => error
  puts "served: #{error.reason}"
end

client.close
listener.close
server.join
