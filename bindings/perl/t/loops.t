use v5.36;
use lib 't/lib';
use IOKernel::Test;
use IOKernel::Test::Loops;

my $server = server();
my @loops  = grep { $_->is_loop } IOKernel::Test::Loops::available();
plan skip_all => 'no event loop is installed' unless @loops;

for my $class (@loops) {
    subtest $class->name => sub { in_loop($class) };
}
done_testing;

sub in_loop ($class) {
    my $kernel = IOKernel::Kernel->new;
    my $way    = $class->new($kernel);
    my $redis  = $way->open($server->url);

    is $way->await($redis->request('ECHO', 'x')), 'x', 'a reply';
    isa_ok caught(sub { $way->await($redis->request('NOSUCH')) }), 'IOKernel::RemoteError';
    is $redis->call('PING'), 'PONG', 'a blocking call, through the thread';
    is $redis->in($way->{bridge})->url, $redis->url, 'the same endpoint';

    # All of a turn goes in one call: nothing was submitted before its end.
    my $channel = $way->{bridge}->channel;
    my @asked   = map { $redis->request('ECHO', $_) } 1 .. 10;
    is length $channel->[5] > 0, 1, 'what a turn asks is gathered';
    is join(' ', map { $way->await($_) } @asked), join(' ', 1 .. 10), 'and sent at its end';

    my $inner;
    my $after = $redis->request('PING');
    my $done  = follow($after, sub { $inner = $redis->call('ECHO', 'blocking') });
    $way->await($after);
    $way->sleep(0.05);
    is $inner, 'blocking', 'a callback may block';

    my $slow = $redis->request('BLPOP', 'never', 0);
    $way->sleep(0.05);
    $slow->catch(sub { }) if $slow->isa('Mojo::Promise');
    ok $slow->cancel || $slow->is_cancelled, 'cancelling';
    $way->sleep(0.05);
    is $redis->state->{requests}, 0, 'ends the request';

    my $lease = $way->await($redis->lease);
    isa_ok $lease, 'IOKernel::Lease';
    $way->await($lease->request(@$_)) for ['MULTI'], ['INCR', 'n' . $class->name];
    is_deeply $way->await($lease->request('EXEC')), [1], 'a lease';
    $lease->release;
    $way->sleep(0.05);
    is $redis->state->{leases}, 0, 'is given back';

    # One that is there before the cancelling, and not taken yet.
    my $wanted = $redis->lease;
    $wanted->catch(sub { }) if $wanted->isa('Mojo::Promise');
    $way->{bridge}->channel->flush;
    select undef, undef, undef, 0.1;
    $wanted->cancel;
    $way->sleep(0.1);
    is $redis->state->{leases}, 0, 'one that nobody waits for any more is given back too';

    my $stream = $redis->subscribe('SUBSCRIBE', 'c');
    is $way->await($stream->accepted), $stream, 'a subscription is accepted';
    my $next = $stream->next;
    $redis->send('PUBLISH', 'c', $_) for 1 .. 5;
    is $way->await($next)->[2], 1, 'next';
    my @seen;
    $stream->each(sub ($message) { push @seen, $message->[2] });
    $way->sleep(0.1);
    is "@seen", '2 3 4 5', 'each';
    $stream->close;
    is $way->await($stream->next), undef, 'the end';

    my $listener = $way->{bridge}->listen('redis://127.0.0.1:0');
    my $client   = $way->open($listener->url);
    my $held     = IOKernel::Future->new($way->{bridge}->channel);
    $listener->serve(sub ($request) {
        my ($command) = $request->args;
        return 'now' if $command eq 'NOW';
        return $way->{bridge}->promise($held) if $command eq 'HOLD';
        return $redis->request('ECHO', 'later') if $command eq 'LATER';
        die IOKernel::RemoteError->new('no', code => 'MINE');
    });
    is $way->await($client->request('NOW')), 'now', 'a listener';
    is $way->await($client->request('LATER')), 'later', 'that replies when a promise is kept';
    my $error = caught(sub { $way->await($client->request('NONE')) });
    is $error->code, 'MINE', 'and refuses';
    my $late = $client->request('HOLD');
    $way->sleep(0.05);
    my $left = $listener->close(5);
    $way->sleep(0.05);
    $held->_settle(IOKernel::Future::DONE, 'held');
    is $way->await($late), 'held', 'a reply to one who waits while it leaves';
    $client->close;
    $way->await($left);
    ok $listener->is_closed, 'it has left';

    my $pending = $redis->request('BLPOP', 'never', 0);
    $way->sleep(0.05);
    $way->close;
    isa_ok caught(sub { $way->await($pending) }), 'IOKernel::Closed', 'what is under way when it closes';
    $way->close;
    $kernel->close;
    isa_ok caught(sub { $redis->request('PING') }), 'IOKernel::Closed', 'a kernel that is closed';
    return;
}

# Calls code once a promise of whatever kind is kept.
sub follow ($promise, $code) {
    return $promise->cb(sub { $code->() }) if $promise->can('cb');
    return $promise->then(sub { $code->(); $promise->isa('Future') ? Future->done : 1 });
}
