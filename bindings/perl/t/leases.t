use v5.36;
use lib 't/lib';
use IOKernel::Test;

my $server = server();
my $redis  = IOKernel->open($server->url, lanes => 1);
$redis->wait_ready(5);

sub held () { return $redis->state->{leases} }

subtest 'a block' => sub {
    my $value = $redis->lease(sub ($lease) {
        $lease->call('MULTI');
        $lease->call('INCR', 'n');
        return $lease->call('EXEC');
    });
    is_deeply $value, [1], 'its value';
    my @list = $redis->lease(sub ($lease) { (1, 2, 3) });
    is "@list", '1 2 3', 'a list';
    is caught(sub { $redis->lease(sub ($lease) { $lease->call('MULTI'); die "oh\n" }) }), "oh\n", 'one that dies';
    ok within(5, sub { held() == 0 }), 'it was given back';
    is $redis->lease(sub ($lease) { $lease->call('GET', 'n') }), 1, 'clean';
};

subtest 'an object' => sub {
    my $lease = $redis->lease(timeout => 5);
    ok $lease->is_held, 'it is held';
    is $lease->call('PING'), 'PONG', 'call';
    is $lease->request('ECHO', 'x')->get, 'x', 'request';
    $lease->send('SET', 'by', 'lease');
    is $lease->call('GET', 'by'), 'lease', 'send';
    isa_ok caught(sub { $lease->call({ route => 1 }, 'PING') }), 'IOKernel::BadRequest', 'a route';
    isa_ok caught(sub { $redis->lease(timeout => 0.1) }), 'IOKernel::Timeout', 'another one has to wait';
    $lease->release;
    $lease->release;
    isa_ok caught(sub { $lease->call('PING') }), 'IOKernel::Closed', 'given back';
    {
        my $gone = $redis->lease;
        is held(), 1, 'another one';
    }
    ok within(5, sub { held() == 0 }), 'one that is let go of goes back';
};

subtest 'one that nobody waits for any more' => sub {
    my $first = $redis->lease;
    local $SIG{ALRM} = sub { die "late\n" };
    Time::HiRes::alarm(0.1);
    is caught(sub { $redis->lease }), "late\n", 'the wait is interrupted';
    $first->release;
    ok within(5, sub { my $lease = eval { $redis->lease(timeout => 1) }; defined $lease }), 'the lane is free again';
    ok within(5, sub { held() == 0 }), 'nobody holds it';
};

done_testing;
