use v5.36;
use lib 't/lib';
use IOKernel::Test;

my $server = server();
my $redis  = IOKernel->open($server->url);
$redis->wait_ready(5);

subtest 'get and failure' => sub {
    my $future = $redis->request('ECHO', 'x');
    is $future->get, 'x', 'the reply';
    is $future->get, 'x', 'again';
    is $future->failure, undef, 'no failure';
    ok $future->is_ready && $future->is_done && !$future->is_failed, 'its state';
    my $failed = $redis->request('NOSUCH');
    isa_ok $failed->failure, 'IOKernel::RemoteError';
    isa_ok caught(sub { $failed->get }), 'IOKernel::RemoteError';
    ok $failed->is_failed, 'its state';
    my $slow = $redis->request('DEBUG', 'SLEEP', '0.2');
    isa_ok caught(sub { $slow->get(0.02) }), 'IOKernel::Timeout', 'a wait that is over';
    is $slow->get(5), 'OK', 'the request goes on';
    my $polled = $redis->request('PING');
    ok within(5, sub { $polled->is_ready }), 'is_ready takes what has come';
};

subtest 'then' => sub {
    my $future = $redis->request('SET', 'a', 1)
        ->then(sub ($reply) { $redis->request('INCR', 'a') })
        ->then(sub ($number) { $number * 10 });
    is $future->get(5), 20, 'futures and values';
    is $redis->request('NOSUCH')->catch(sub ($error) { $error->code })->get(5), 'ERR', 'catch';
    is $redis->request('NOSUCH')->then(sub ($reply) { 'none' }, sub ($error) { 'failed' })->get(5), 'failed', 'then';
    my $dies = $redis->request('PING')->then(sub ($reply) { die "oh\n" });
    like caught(sub { $dies->get(5) }), qr/^oh$/, 'what it dies of';
    isa_ok caught(sub { $redis->request('NOSUCH')->then(sub { 1 })->get(5) }), 'IOKernel::RemoteError', 'goes through';
    my $done = $redis->request('PING');
    $done->get;
    is $done->then(sub ($reply) { "$reply!" })->get, 'PONG!', 'of one that is there';
    my @order;
    my @asked = map { my $n = $_; $redis->request('ECHO', $n)->on_ready(sub ($f) { push @order, $n }) } 1 .. 50;
    $asked[-1]->get;
    is "@order", join(' ', 1 .. 50), 'in the order of the replies';
};

subtest 'a callback may wait itself' => sub {
    my $inner;
    my @rest  = map { $redis->request('ECHO', $_) } 1 .. 20;
    my $outer = $redis->request('PING')->then(sub ($reply) { $inner = $redis->call('ECHO', 'inside'); 'outside' });
    push @rest, map { $redis->request('ECHO', $_) } 21 .. 40;
    is $outer->get(5), 'outside', 'the outer one';
    is $inner, 'inside', 'the inner one';
    is join(' ', map { $_->get(5) } @rest), join(' ', 1 .. 40), 'all others';
};

subtest 'a callback that dies' => sub {
    my @warned;
    local $SIG{__WARN__} = sub { push @warned, @_ };
    my @asked = map { $redis->request('ECHO', $_) } 1 .. 3;
    $asked[0]->on_ready(sub ($future) { die "no\n" });
    is join(' ', map { $_->get(5) } @asked), '1 2 3', 'nobody else notices';
    like "@warned", qr/a callback died: no/, 'it is warned about';
};

subtest 'cancelling' => sub {
    my $slow = $redis->request('BLPOP', 'never', 0);
    $redis->call('PING');
    ok $slow->cancel, 'it was under way';
    ok !$slow->cancel, 'it is not any more';
    ok $slow->is_cancelled, 'it says so';
    isa_ok $slow->failure, 'IOKernel::Cancelled';
    my $done = $redis->request('PING');
    $done->get;
    ok !$done->cancel, 'one that is there';
    my $chained = $redis->request('BLPOP', 'never', 0)->then(sub ($reply) { 'none' });
    my $inner   = $redis->request('PING')->then(sub ($reply) { $redis->request('BLPOP', 'never', 0) });
    $redis->call('PING');
    ok $chained->cancel && $inner->cancel, 'what follows upon another one';
    is ref $_->failure, 'IOKernel::Cancelled', 'both are' for $chained, $inner;
    ok within(5, sub { $redis->state->{requests} == 0 }), 'no request is left';
    # Whatever is first, the cancelling or the reply, each has its own.
    for my $round (1 .. 200) {
        my @asked = map { $redis->request('ECHO', "$round:$_") } 1 .. 10;
        $redis->call('PING') if $round % 2;
        my %cancelled = map { $_ => $asked[$_]->cancel } grep { $_ % 3 == 0 } 0 .. 9;
        for my $at (0 .. 9) {
            my $value = $asked[$at]->failure ? 'none' : $asked[$at]->get;
            my $expected = $cancelled{$at} ? 'none' : "$round:" . ($at + 1);
            return fail("round $round: $at: $value: expected $expected") if $value ne $expected;
        }
    }
    pass 'races';
};

subtest 'the futures of a channel that ends' => sub {
    my $kernel  = IOKernel::Kernel->new;
    my $other   = $kernel->open($server->url);
    my $waiting = $other->request('BLPOP', 'never', 0);
    my $told    = 0;
    $waiting->on_ready(sub ($future) { $told = ref $future->failure });
    $other->call('PING');
    $kernel->close;
    is $told, 'IOKernel::Closed', 'their callbacks are told';
    is ref $waiting->failure, 'IOKernel::Closed', 'and so are they';
    ok !$waiting->cancel, 'cancelling is of no use then';
};

done_testing;
