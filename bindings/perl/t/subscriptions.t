use v5.36;
use lib 't/lib';
use IOKernel::Test;

my $server = server();
my $redis  = IOKernel->open($server->url);
$redis->wait_ready(5);

sub subscribed () { return $redis->call('PUBSUB', 'CHANNELS', 'c:*')->@* }

subtest 'messages' => sub {
    my $stream = $redis->subscribe({ timeout => 5 }, 'SUBSCRIBE', 'c:a');
    $redis->call('PUBLISH', 'c:a', "m$_") for 1 .. 3;
    is_deeply $stream->next(5), ['message', 'c:a', 'm1'], 'one';
    isa_ok caught(sub { $stream->next(0.05) for 1 .. 3 }), 'IOKernel::Timeout', 'none any more';
    $redis->call('PUBLISH', 'c:a', "m$_") for 4 .. 6;
    ok within(5, sub { $redis->call('PING'); $stream->{messages}->@* == 3 }), 'they wait';
    $stream->close;
    $stream->close;
    is $stream->next->[2], 'm4', 'what came before the end can still be taken';
    my @rest;
    $stream->each(sub ($message) { push @rest, $message->[2] });
    is "@rest", 'm5 m6', 'each';
    is $stream->next, undef, 'the end';
    ok $stream->is_closed, 'it says so';
    is join('|', $stream->lost, $stream->reconnects), '0|0', 'nothing went wrong';
};

subtest 'refused' => sub {
    isa_ok caught(sub { $redis->subscribe('GET', 'x') }), 'IOKernel::Error', 'what gives one reply';
    isa_ok caught(sub { $redis->subscribe({ timeout => 0.1 }, 'SUBSCRIBE') }), 'IOKernel::Error', 'no channel';
    my $nobody = IOKernel->open('redis://127.0.0.1:1', connect_timeout => '50ms');
    isa_ok caught(sub { $nobody->subscribe({ timeout => 0.2 }, 'SUBSCRIBE', 'x') }), 'IOKernel::Error', 'nobody there';
};

subtest 'let go of' => sub {
    {
        my $stream = $redis->subscribe('SUBSCRIBE', 'c:gone');
        is scalar(subscribed()), 1, 'it stands';
    }
    ok within(5, sub { !subscribed() }), 'it was cancelled';
};

subtest 'more than it keeps' => sub {
    my $stream = $redis->subscribe({ buffer => 3 }, 'SUBSCRIBE', 'c:full');
    $redis->call('PUBLISH', 'c:full', $_) for 1 .. 10;
    ok within(5, sub { $redis->call('PING'); $stream->lost == 7 }), 'the rest is counted';
    is join(' ', map { $stream->next(1)->[2] } 1 .. 3), '1 2 3', 'the first ones are there';
};

subtest 'a connection that is lost' => sub {
    my $other  = IOKernel->open($server->url, backoff => '10ms');
    my $stream = $other->subscribe('SUBSCRIBE', 'c:again');
    ok $redis->call('CLIENT', 'KILL', 'TYPE', 'pubsub') > 0, 'it is lost';
    ok within(5, sub { eval { $stream->next(0.02) }; $stream->reconnects }), 'it is asked for again';
    $redis->call('PUBLISH', 'c:again', 'after');
    is $stream->next(5)->[2], 'after', 'and goes on';
};

subtest 'watching' => sub {
    my $app   = IOKernel->open('redis+app://watched', role => 'any');
    my $watch = $app->watch;
    is $watch->next(5)->{state}, 'down', 'at once';
    my ($address) = $server->url =~ m{//(.*)};
    $app->set_peers($address);
    my $state = '';
    $state = $watch->next(5)->{state} until $state eq 'up';
    is $state, 'up', 'after each change';
    my $kernel = $app->kernel->watch;
    ok exists $kernel->next(5)->{ready}, 'of a kernel';
    $app->close;
};

done_testing;
