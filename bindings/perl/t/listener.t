use v5.36;
use lib 't/lib';
use IOKernel::Test;
use File::Temp ();
use IO::Socket::INET;
use POSIX  ();
use Socket qw(SOL_SOCKET SO_LINGER);

# A client in a process of its own, which prints to us. Each line of what it prints.
sub client ($url, $code) {
    pipe my $read, my $write or die "pipe: $!\n";
    my $child = fork // die "fork: $!\n";
    return ($child, $read) if $child && close $write;
    select $write;
    $| = 1;
    eval { $code->(IOKernel->open($url, timeout => '5s')); 1 } or print "died: $@";
    POSIX::_exit(0);
}

sub said ($child, $read) {
    local $/;
    my $said = <$read>;
    waitpid $child, 0;
    return $said;
}

my $server = server();
my $redis  = IOKernel->open($server->url);

subtest 'serving' => sub {
    my $listener = IOKernel->listen('redis://127.0.0.1:0');
    my @warned;
    local $SIG{__WARN__} = sub { push @warned, @_ };
    my @client = client($listener->url, sub ($there) {
        print $there->call('SHOUT', 'x'), "\n";
        for my $command ('NONE', 'DIE', 'CODE', 'FORGET') {
            eval { $there->call($command) };
            print join(' ', $@->code, $@->message), "\n";
        }
        my $map = $there->call('MAP');
        print join(' ', map { "$_=$map->{$_}[0]" } sort keys %$map), "\n";
        print $there->call('LATER'), "\n";
        print length $there->call('LARGE'), "\n";
        $there->call('STOP');
    });
    $listener->serve(sub ($request) {
        my ($command, @arguments) = $request->args;
        return IOKernel->text(uc $arguments[0]) if $command eq 'SHOUT';
        return IOKernel::RemoteError->new('value', code => 'MINE') if $command eq 'NONE';
        die "secret\n" if $command eq 'DIE';
        return sub { } if $command eq 'CODE';
        die IOKernel::RemoteError->new('thrown', code => 'MINE') if $command eq 'FORGET';
        return { a => [1], b => ['two'] } if $command eq 'MAP';
        return $redis->request('ECHO', 'LATER') if $command eq 'LATER';
        return 'x' x 3_000_000 if $command eq 'LARGE';
        $listener->close if $command eq 'STOP';
        return;
    });
    my $expected = join "\n", 'X', 'MINE value', 'ERR the handler failed', 'ERR the handler failed', 'MINE thrown',
        'a=1 b=two', 'LATER', 3_000_000, '';
    like said(@client), qr/^\Q$expected/, 'what the client was told';
    is scalar(@warned), 2, 'two failures were warned about';
    like $warned[0], qr/handler failed: secret/, 'with their reasons';
    ok $listener->is_closed, 'it is closed';
    is $listener->next, undef, 'nothing comes any more';
    isa_ok caught(sub { $listener->_submit(10, '', 0, 1) }), 'IOKernel::Closed';
};

subtest 'one by one' => sub {
    my $listener = IOKernel->listen('redis://127.0.0.1:0');
    like $listener->url, qr{^redis://127\.0\.0\.1:[1-9]\d+}, 'the port that was chosen';
    is $listener->state->{state}, 'up', 'its state';
    isa_ok caught(sub { $listener->next(0.05) }), 'IOKernel::Timeout', 'nobody asks';
    my @client = client($listener->url, sub ($there) {
        my @asked = map { $there->request('N', $_) } 1 .. 5;
        print join(' ', map { $_->failure ? $_->failure->message : $_->get } @asked), "\n";
    });
    my @requests = map { $listener->next(5) } 1 .. 5;
    ok $requests[0]->peer > 0, 'who asks';
    my @out = reverse @requests;
    for my $request (@out) {
        my (undef, $number) = $request->args;
        $number == 3 ? $request->error('ERR', 'three') : $request->reply(0 + $number);
        $request->reply('twice');
    }
    is said(@client), "1 2 three 4 5\n", 'replies in the order of the requests';
    my ($port)  = $listener->url =~ /:(\d+)$/a;
    my $gone    = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port) or die "$port: $@\n";
    $gone->syswrite("*1\r\n\$4\r\nWAIT\r\n");
    my $request = $listener->next(5);
    # A reset: one that merely stops sending may still read.
    $gone->setsockopt(SOL_SOCKET, SO_LINGER, pack 'ii', 1, 0);
    close $gone;
    ok within(5, sub { eval { $listener->next(0.01) }; $request->is_gone }), 'a client that left';
    $request->reply('nobody hears it');
    my @forgotten = client($listener->url, sub ($there) { eval { $there->call('X') }; print $@->message, "\n" });
    undef $request;
    $listener->next(5);
    is said(@forgotten), "no reply was given\n", 'a request that is let go of';
};

subtest 'parts' => sub {
    plan skip_all => 'curl is not installed' unless grep { -x "$_/curl" } split /:/, $ENV{PATH};
    my $listener = IOKernel->listen('http://127.0.0.1:0', stream_above => '64KiB');
    my $body     = join '', map { sprintf "%09d\n", $_ } 1 .. 200_000;
    my $file     = File::Temp->new;
    print $file $body;
    close $file;
    my $came_back = File::Temp->new;
    my @options   = ('-s', '-H', 'Expect:', '-o', "$came_back", '--data-binary', "\@$file");
    open my $curl, '-|', 'curl', @options, $listener->url or die "curl: $!\n";
    my $request = $listener->next(10);
    my ($head, $came) = $request->args;
    is $head->[0], 'POST', 'the method';
    isa_ok caught(sub { $request->send('x') }), 'IOKernel::Closed', 'before begin';
    $request->begin([200, {}, !!1]);
    my $bytes = 0;
    if ($came && length $came > 1) {
        $bytes = length $came;
        $request->send($came);
    } else {
        while (defined(my $piece = $request->next)) {
            $bytes += length $piece;
            $request->send($piece);
        }
    }
    $request->finish;
    is $bytes, length $body, 'every piece came';
    isa_ok caught(sub { $request->send('x') }), 'IOKernel::Closed', 'after finish';
    ok close $curl, 'curl is content';
    local $/;
    ok <$came_back> eq $body, 'and went back';
};

subtest 'leaving politely' => sub {
    my $listener = IOKernel->listen('redis://127.0.0.1:0');
    my @client   = client($listener->url, sub ($there) { print $there->call('X'), "\n" });
    my $request  = $listener->next(5);
    my $start    = now();
    $request->reply(1);
    $listener->close(5);
    ok now() - $start < 5, 'as soon as everybody has gone';
    is said(@client), "1\n", 'with its reply';
};

isa_ok caught(sub { IOKernel->listen('redis://192.0.2.1:6379') }), 'IOKernel::Error', 'an address that is not ours';
isa_ok caught(sub { IOKernel->listen('redis://127.0.0.1:0', colour => 1) }), 'IOKernel::ConfigError', 'a wrong option';

done_testing;
