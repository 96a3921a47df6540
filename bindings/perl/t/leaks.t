use v5.36;
use lib 't/lib';
use IOKernel::Test;
use Scalar::Util qw(weaken);

my $server = server();
my $kernel = IOKernel::Kernel->new;
my $redis  = $kernel->open($server->url);
$redis->wait_ready(5);

sub kilobytes () {
    open my $file, '<', '/proc/self/statm' or die "statm: $!\n";
    return 4 * (split ' ', <$file>)[1];
}

my %ROUNDS = (
    'calls'    => sub { $redis->call('ECHO', 'x' x 100) for 1 .. 200 },
    'errors'   => sub { eval { $redis->call('NOSUCH') } for 1 .. 200 },
    'futures'  => sub { my @asked = map { $redis->request('ECHO', $_) } 1 .. 200; $_->get for @asked },
    'chains'   => sub { $redis->request('PING')->then(sub ($x) { $redis->request('ECHO', $x) })->get for 1 .. 100 },
    'left'     => sub { $redis->request('PING') for 1 .. 200; $redis->call('PING') },
    'cancels'  => sub { $_->cancel for map { $redis->request('BLPOP', 'never', 0) } 1 .. 20; $redis->call('PING') },
    'leases'   => sub { $redis->lease(sub ($lease) { $lease->call('PING') }) for 1 .. 20 },
    'streams'  => sub { $redis->subscribe('SUBSCRIBE', 'c')->close for 1 .. 20 },
    'nested'   => sub { $redis->call(map { ['ECHO', 'x' x 100] } 1 .. 100) for 1 .. 5 },
    'large'    => sub { $redis->call('ECHO', 'x' x 500_000) },
    'markers'  => sub { my $marker = $kernel->marker('x') for 1 .. 200 },
    'counters' => sub { $kernel->counter('c')->inc for 1 .. 200 },
    'kernels'  => sub { IOKernel::Kernel->new->open($server->url)->call('PING') },
);
# So that every page of the rings was touched.
$redis->call('ECHO', 'x' x 200_000) for 1 .. 20;
for my $name (sort keys %ROUNDS) {
    $ROUNDS{$name}->() for 1 .. 15;
    my $before = kilobytes();
    $ROUNDS{$name}->() for 1 .. 30;
    my $grown = kilobytes() - $before;
    # Below 30 KiB a round, of up to 200 objects: the allocator's own noise.
    ok $grown < 900, "$name: $grown KiB more after 30 rounds";
}

my $channel = $kernel->thread_channel;
$redis->call('PING');
is scalar keys $channel->[2]->%*, 0, 'nobody waits any more';
is scalar keys $channel->[3]->%*, 0, 'nor takes anything';

{
    my $gone   = IOKernel::Kernel->new;
    my $inner  = $gone->open($server->url);
    my $stream = $inner->subscribe('SUBSCRIBE', 'c');
    my $future = $inner->request('BLPOP', 'never', 0)->then(sub ($x) { $x });
    weaken(my $weak = $gone);
    undef $_ for $stream, $future, $inner, $gone;
    is $weak, undef, 'a kernel that is let go of with all it has is closed';
}
{
    my $listener = $kernel->listen('redis://127.0.0.1:0');
    my $url      = $listener->url;
    undef $listener;
    my $other = IOKernel->open($url, connect_timeout => '100ms');
    isa_ok caught(sub { $other->call({ timeout => 0.2 }, 'PING') }), 'IOKernel::Unavailable', 'so is a listener';
}

# A program that ends with everything open ends at once, quietly, with its own exit status.
my $script = q{
    my $cache  = IOKernel->open($ENV{URL});
    my $stream = $cache->subscribe('SUBSCRIBE', 'c');
    our $lease  = $cache->lease;
    our $future = $cache->request('BLPOP', 'never', 0);
    my $listener = IOKernel->listen('redis://127.0.0.1:0');
    our $own = IOKernel::Kernel->new->open($ENV{URL});
    $own->call('PING');
    exit 7;
};
local $ENV{URL} = $server->url;
my $start = now();
open my $program, '-|', $^X . ' -Ilib -MIOKernel -e \'' . ($script =~ s/'/'\\''/gr) . '\' 2>&1' or die "perl: $!\n";
my $said = do { local $/; <$program> };
close $program;
is $said // '', '', 'it says nothing';
is $? >> 8, 7, 'its exit status';
ok now() - $start < 5, 'at once';

done_testing;
