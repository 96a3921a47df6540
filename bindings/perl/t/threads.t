use v5.36;
use Config;

BEGIN {
    if (!$Config{useithreads}) {
        print "1..0 # SKIP this perl was built without threads\n";
        exit;
    }
}
use threads;
use lib 't/lib';
use IOKernel::Test;

my $server = server();
my $redis  = IOKernel->open($server->url);
$redis->wait_ready(5);
my $future  = $redis->request('BLPOP', 'list', 0);
my $stream  = $redis->subscribe('SUBSCRIBE', 'c');
my $lease   = $redis->lease;
my $counter = IOKernel->counter('threaded');

my @threads = map {
    my $number = $_;
    threads->create(sub {
        my @asked = map { $redis->request('ECHO', "$number:$_") } 1 .. 500;
        my @came  = map { $_->get } @asked;
        $counter->inc for 1 .. 1000;
        my $marker = IOKernel->marker("thread $number");
        my $own    = $redis->lease(sub ($conn) { $conn->call('CLIENT', 'ID') });
        my $kernel = IOKernel::Kernel->new;
        my $inner  = $kernel->open($server->url)->call('ECHO', 'own');
        return join ' ', @came, $own > 0 ? 'leased' : 'no', $inner;
    });
} 1 .. 4;
for my $number (1 .. 4) {
    is $threads[ $number - 1 ]->join, join(' ', (map { "$number:$_" } 1 .. 500), 'leased', 'own'), "thread $number";
}
is $counter->value, 4000, 'what four threads counted is whole';
is $redis->call('PING'), 'PONG', 'the endpoint is still open';
ok $lease->is_held, 'the lease is held';
is $lease->call('PING'), 'PONG', 'and good';
$redis->call('RPUSH', 'list', 'x');
is_deeply $future->get(5), ['list', 'x'], 'the future is answered';
$redis->call('PUBLISH', 'c', 'm');
is $stream->next(5)->[2], 'm', 'the subscription goes on';

my $pending = $redis->request('BLPOP', 'list', 0);
my $why     = threads->create(sub { "${\$pending->failure}" })->join;
like $why, qr/belongs to another thread/, 'a future of another thread is of no use';
like threads->create(sub { eval { $stream->next }; "$@" })->join, qr/belongs to another thread/, 'nor a subscription';
like threads->create(sub { eval { $lease->call('PING') }; "$@" })->join, qr/not held/, 'nor a lease';
$redis->call('RPUSH', 'list', 'y');
is_deeply $pending->get(5), ['list', 'y'], 'they are still good in their own';

done_testing;
