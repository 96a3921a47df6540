use v5.36;
use utf8;
use lib 't/lib';
use IOKernel::Test;

my $server = server();
my $redis  = IOKernel->open($server->url);
$redis->wait_ready(5);

subtest 'values' => sub {
    is $redis->call('SET', 'k', 'grün'), 'OK', 'text';
    my $bytes = $redis->call('GET', 'k');
    ok $bytes eq "gr\xC3\xBCn" && !utf8::is_utf8($bytes), 'comes back as bytes';
    my $all = join '', map { chr } 0 .. 255;
    $redis->call('SET', 'k', $all);
    ok $redis->call('GET', 'k') eq $all, 'every byte';
    is $redis->call('INCRBYFLOAT', 'f', 0.1), '0.1', 'a float is the shortest text';
    is_deeply $redis->call('CONFIG', 'GET', 'appendonly'), { appendonly => 'no' }, 'a map';
    $redis->call('SADD', 'set', 'a');
    is_deeply $redis->call('SMEMBERS', 'set'), ['a'], 'a set';
    is $redis->call('GET', 'nothing'), undef, 'nothing';
    is $redis->call('SET', 'empty', ''), 'OK', 'nothing at all';
    is $redis->call('GET', 'empty'), '', 'comes back';
};

subtest 'batches' => sub {
    my $replies = $redis->call(['SET', 'a', '1'], ['INCR', 'a'], ['LPUSH', 'a', 'x'], ['GET', 'a']);
    is_deeply [@$replies[0, 1, 3]], ['OK', 2, '2'], 'every reply';
    isa_ok $replies->[2], 'IOKernel::RemoteError';
    is $replies->[2]->code, 'WRONGTYPE', 'an error is an element';
};

subtest 'errors' => sub {
    my $error = caught(sub { $redis->call('LPUSH', 'k', 'x') });
    isa_ok $error, 'IOKernel::RemoteError';
    is join('|', map { $error->$_ } qw(code fate endpoint)), 'WRONGTYPE|replied|' . $server->url, 'its fields';
    ok $error->peer > 0, 'the connection';
    like "$error", qr/^WRONGTYPE .* at \S*calls\.t line \d+\.$/, 'its text';
    like caught(sub { $redis->call('GET', undef) })->message, qr/argument 1 is nil/, 'undef is no argument';
    like caught(sub { $redis->call('GET', { a => 1 }) })->message, qr/argument 1 is/, 'nor are hashes';
    isa_ok caught(sub { $redis->call('GET', sub { }) }), 'IOKernel::BadRequest', 'nor is code';
    isa_ok caught(sub { $redis->call('SUBSCRIBE', 'x') }), 'IOKernel::BadRequest', 'what only subscriptions may';
    isa_ok caught(sub { $redis->call('MULTI') }), 'IOKernel::BadRequest', 'what only leases may';
    is $redis->call('PING'), 'PONG', 'and on it goes';
};

subtest 'options' => sub {
    my $start = now();
    my $error = caught(sub { $redis->call({ timeout => 0.1 }, 'DEBUG', 'SLEEP', '0.3') });
    isa_ok $error, 'IOKernel::Timeout';
    is $error->fate, 'maybe_executed', 'its fate';
    ok now() - $start < 0.3, 'in time';
    is $redis->call({ timeout => 'inf', idempotent => 1 }, 'PING'), 'PONG', 'no deadline';
    is $redis->call({ route => 'user:7' }, 'PING'), 'PONG', 'a route';
    is $redis->call({ trace => '00-' . 'ab' x 16 . '-' . 'cd' x 8 . '-01' }, 'PING'), 'PONG', 'a trace';
    is_deeply $redis->call({}, ['PING']), ['PONG'], 'none';
};

subtest 'large ones' => sub {
    for my $bytes (65_000, 262_104 - 20, 262_104, 262_200, 1_000_000, 3_000_001) {
        my $value = pack 'N*', 0 .. $bytes / 4;
        $redis->call('SET', 'large', $value);
        ok $redis->call('GET', 'large') eq $value, length($value) . ' bytes';
    }
    my @mixed = map { [SET => "m$_" => chr(65 + $_) x (100_000 * $_)] } 1 .. 9;
    $_->get for map { $redis->request(@$_) } @mixed;
    my @asked = map { ($redis->request('GET', $_->[1]), $redis->request('ECHO', $_->[1])) } @mixed;
    for my $each (@mixed) {
        ok shift(@asked)->get eq $each->[2], "$each->[1], among small ones";
        is shift(@asked)->get, $each->[1], 'the small one beside it';
    }
    my $small = IOKernel::Kernel->new(channel => 'max_request=1MiB');
    my $error = caught(sub { $small->open($server->url)->call('SET', 'k', 'x' x (2 << 20)) });
    isa_ok $error, 'IOKernel::BadRequest', 'beyond what the channel takes';
};

subtest 'one-way' => sub {
    $redis->send('SET', 'sent', $_) for 1 .. 1000;
    is $redis->call('GET', 'sent'), 1000, 'they are in order';
    my @warned;
    local $SIG{__WARN__} = sub { push @warned, @_ };
    $redis->send('LPUSH', 'sent', 'x');
    within(2, sub { $redis->call('PING'); @warned });
    like "@warned", qr/WRONGTYPE/, 'a failure is warned about';
    my $kernel = IOKernel::Kernel->new;
    $kernel->open($server->url)->send('SET', 'last', 'word');
    $kernel->{channel}->close;
    is $redis->call('GET', 'last'), 'word', 'a channel that closes has written them';
};

subtest 'state' => sub {
    my $state = $redis->state;
    is $state->{state}, 'up', 'of an endpoint';
    is $state->{url}, $server->url, 'its URL';
    ok $redis->kernel->state->{ready}, 'of the kernel';
    my $required = $redis->kernel->open('redis://127.0.0.1:1', require => !!1);
    ok !$redis->kernel->state->{ready}, 'one that is required is not there';
    isa_ok caught(sub { $redis->kernel->wait_ready(0.1) }), 'IOKernel::Unavailable';
    $required->close;
};

subtest 'peers' => sub {
    my $app = IOKernel->open('redis+app://cache', role => 'any');
    my ($address) = $server->url =~ m{//(.*)};
    $app->set_peers({ address => $address, weight => 10 });
    $app->wait_ready(5);
    is $app->state->{peers}[0]{weight}, 10, 'they are told';
    is $app->call('PING'), 'PONG', 'and asked';
    isa_ok caught(sub { $app->set_peers({ address => 7 }) }), 'IOKernel::BadRequest';
    isa_ok caught(sub { $redis->set_peers($address) }), 'IOKernel::BadRequest';
};

subtest 'closing' => sub {
    my $other = IOKernel->open($server->url);
    my $slow  = $other->request('BLPOP', 'never', 0);
    $other->call('PING');
    $other->close;
    $other->close;
    isa_ok $slow->failure(5), 'IOKernel::Closed', 'what was under way';
    my $error = caught(sub { $other->call('PING') });
    isa_ok $error, 'IOKernel::Closed', 'what comes later';
    is $error->fate, 'not_sent', 'was not sent';
    ok $other->is_closed, 'it says so';
};

done_testing;
