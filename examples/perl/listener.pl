#!/usr/bin/env perl

# A server of one's own that any Redis client can talk to; here, iokernel itself in a child.
#
# $ perl listener.pl
# HELLO
# served: LOOK is no command

use v5.36;
use IOKernel;

my $listener = IOKernel->listen('redis://127.0.0.1:0');
my $url      = $listener->url;

my $child = fork // die "fork: $!\n";
if (!$child) {
    # The child opens a kernel of its own: nothing of its parent's is touched.
    my $client = IOKernel->open($url);
    say $client->call({ timeout => 5 }, 'SHOUT', 'hello');
    eval { $client->call('LOOK') };
    say 'served: ', $@->message;
    $client->call('STOP');
    exit;
}

# What the handler returns is the reply; a RemoteError that it dies of is the client's error.
$listener->serve(sub ($request) {
    my ($command, @arguments) = $request->args;
    return uc $arguments[0] if $command eq 'SHOUT';
    die IOKernel::RemoteError->new("$command is no command", code => 'ERR') if $command ne 'STOP';
    $request->reply('bye');
    $listener->close(5);    # It leaves when everybody has.
});

waitpid $child, 0;
exit($? >> 8);
