use v5.36;
use lib 't/lib';
use IOKernel::Test;
use IOKernel::Test::Loops;
use POSIX ();

my $server = server();
my $redis  = IOKernel->open($server->url);
$redis->wait_ready(5);

# What code in a child printed.
sub in_child ($code) {
    pipe my $read, my $write or die "pipe: $!\n";
    my $child = fork // die "fork: $!\n";
    if (!$child) {
        close $read;
        my $said = eval { $code->() } // "died: $@";
        syswrite $write, $said;
        POSIX::_exit(0);
    }
    close $write;
    local $/;
    my $said = <$read>;
    waitpid $child, 0;
    return $said // '';
}

my $stream  = $redis->subscribe('SUBSCRIBE', 'c');
my $lease   = $redis->lease;
my $pending = $redis->request('BLPOP', 'list', 0);
my $counter = IOKernel->counter('forked');
$counter->inc(5);
my $id = $lease->call('CLIENT', 'ID');

is in_child(sub { $redis->call('ECHO', 'child') }), 'child', 'a child has its own replies';
is in_child(sub { $redis->request('ECHO', $_)->get for 1 .. 9; $redis->call('ECHO', 'x' x 100_000) }), 'x' x 100_000,
    'futures and large ones too';
like in_child(sub { eval { $lease->call('PING') }; ref $@ }), qr/Closed/, 'it holds no lease of its parent';
is in_child(sub { $pending->failure->status_name }), 'FORKED', 'nor its futures';
like in_child(sub { eval { $stream->next(1) }; $@->status_name }), qr/FORKED/, 'nor its subscriptions';
is in_child(sub { undef $stream; undef $lease; undef $pending; $redis->call('PING') }), 'PONG', 'letting go of them';
is in_child(sub { in_child(sub { $redis->call('ECHO', 'grandchild') }) }), 'grandchild', 'a child of a child';
is in_child(sub { IOKernel->kernel->close; 'closed' }), 'closed', 'closing what is the parent\'s';
is in_child(sub { my $other = IOKernel->open($server->url); $other->call('PING') }), 'PONG', 'another endpoint';
is in_child(sub { $counter->inc(2); 'counted' }), 'counted', 'counting';

my @children = map { my $n = $_; [$n, in_child(sub { $redis->call('ECHO', $n) })] } 1 .. 5;
is_deeply [map { $_->[1] } @children], [1 .. 5], 'several';

is $lease->call('CLIENT', 'ID'), $id, 'the parent has its lease';
$redis->call('PUBLISH', 'c', 'still');
is $stream->next(5)->[2], 'still', 'its subscription';
$redis->call('RPUSH', 'list', 'x');
is_deeply $pending->get(5), ['list', 'x'], 'its futures';
is $counter->value, 5, 'and its counters';

# What the parent had queued and not sent is the parent's alone.
for my $class (grep { $_->is_loop } IOKernel::Test::Loops::available()) {
    my $way   = $class->new(IOKernel->kernel);
    my $inner = $way->open($server->url);
    $redis->call('DEL', 'queued');
    my $asked = $inner->request('INCR', 'queued');
    my $said  = in_child(sub {
        return $redis->call('PING') unless $class eq 'IOKernel::Test::Mojo';
        my $new = $class->new(IOKernel->kernel);
        return $new->await($inner->in($new->{bridge})->request('PING'));
    });
    is $said, 'PONG', $class->name . ': a child beside a loop';
    is $way->await($asked), 1, 'what was queued is sent once';
    is $way->await($inner->request('PING')), 'PONG', 'the loop goes on';
    $way->close;
}

done_testing;
