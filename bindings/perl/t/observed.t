use v5.36;
use lib 't/lib';
use utf8;
use File::Temp ();
use JSON::PP   ();
use POSIX      ();
use Time::HiRes qw(time);
use IOKernel::Test;
use IOKernel::Test::Admin qw(ask ask_while);

my $folder = File::Temp->newdir;
my $socket = "$folder/admin";
my $kernel = IOKernel::Kernel->new(admin => "unix:$socket", name => 'observed');

sub metrics () { return ask($socket, '/metrics') }
sub json ($path) { return JSON::PP->new->utf8->decode(ask($socket, $path)) }
sub shown () { return join '|', map { ref $_ ? $_->{text} : $_ } json('/state')->{main}{markers}->@* }

subtest 'counters' => sub {
    my $orders = $kernel->counter('orders', help => 'Orders paid.', labels => { shop => 'north "1"' });
    my $before = $orders->value;
    $orders->inc;
    $orders->inc(41);
    is $orders->value - $before, 42, 'its value';
    like metrics(), qr/^# HELP orders(_total)? Orders paid\.$/m, 'its help';
    like metrics(), qr/^orders_total\{.*shop="north \\"1\\""/m, 'its labels';
    is $kernel->counter('orders', labels => { shop => 'north "1"' })->value, $orders->value, 'the same series';
    for my $wrong (-1, 1.5, 'x', 1e30) {
        isa_ok caught(sub { $orders->inc($wrong) }), 'IOKernel::BadRequest', "inc $wrong";
    }
    is $orders->name, 'orders', 'its name';
    is_deeply $orders->labels, { shop => 'north "1"' }, 'its labels';
    like caught(sub { $kernel->counter('x', label => 1) }), qr/label/, 'an unknown option';
    my $seconds = $kernel->sum('worked', unit => 'seconds');
    $seconds->inc(0.25);
    $seconds->inc(0.5);
    like metrics(), qr/^worked_seconds_total 0\.75$/m, 'a sum';
    isa_ok caught(sub { $seconds->inc(-1) }), 'IOKernel::BadRequest', 'which only grows';
};

subtest 'gauges' => sub {
    my $depth = $kernel->gauge('depth', merge => 'max');
    $depth->set(5);
    $depth->inc(0.5);
    $depth->dec(2);
    is $depth->value, 3.5, 'its value';
    like metrics(), qr/^depth 3\.5$/m, 'from outside';
    isa_ok caught(sub { $depth->inc(9**9**9) }), 'IOKernel::BadRequest', 'infinity';
};

subtest 'histograms' => sub {
    my $took = $kernel->histogram('took', unit => 'seconds', buckets => [0.1, 1]);
    $took->observe($_) for 0.05, 0.1, 0.5, 7;
    is $took->time(sub { 'value' }), 'value', 'timing code';
    is caught(sub { $took->time(sub { die "oh\n" }) }), "oh\n", 'also if it dies';
    my $metrics = metrics();
    like $metrics, qr/^took_seconds_bucket\{le="0\.1"\} 4$/m, 'bounds are inclusive';
    like $metrics, qr/^took_seconds_bucket\{le="1(\.0)?"\} 5$/m, 'the second bucket';
    like $metrics, qr/^took_seconds_count 6$/m, 'all of them';
};

subtest 'forked children count in cells of their own' => sub {
    my $jobs = $kernel->counter('jobs');
    $jobs->inc(2);
    for (1 .. 3) {
        my $child = fork // die "fork: $!\n";
        next if $child;
        $jobs->inc(10);
        POSIX::_exit(0);
    }
    wait for 1 .. 3;
    ok within(5, sub { metrics() =~ /^jobs_total 32$/m }), 'the sum is that of all' or diag metrics();
};

subtest 'markers' => sub {
    my $outer = $kernel->marker('outer');
    {
        my $inner = $kernel->marker('inner');
        like shown(), qr/inner/, 'the inner one';
        like shown(), qr/outer/, 'and the one around it';
    }
    unlike shown(), qr/inner/, 'left at the end of its block';
    like shown(), qr/outer/, 'the other goes on';
    $outer->leave;
    $outer->leave;
    is shown(), '', 'leave';
    my $long = $kernel->marker('grün ' . 'ü' x 60);
    like ask($socket, '/state'), qr/gr\xC3\xBCn (\xC3\xBC){24,25}"/, 'cut at the start of a character';
    undef $long;
    my @many = map { $kernel->marker("m$_") } 1 .. 20;
    like shown(), qr/m15/, 'fifteen at a time';
    unlike shown(), qr/m16/, 'and no more';
    @many = ();
    is shown(), '', 'all are left';
    my $nobody = $kernel->open('redis://127.0.0.1:1');
    my $around = $kernel->marker('around');
    { my $within = $kernel->marker('within') }
    my $waiting = $nobody->request('PING');
    ok within(5, sub { json('/requests')->{count} == 1 }), 'a request';
    is json('/requests')->{requests}[0]{marker}, 'around', 'goes with the one that it was made in';
    my $gathered = $nobody->request('PING');
    undef $around;
    my $without = $nobody->request('PING');
    $kernel->flush;
    ok within(5, sub { json('/requests')->{count} == 3 }), 'others';
    my @markers = map { $_->{marker} } json('/requests')->{requests}->@*;
    is_deeply \@markers, ['around', 'around', undef], 'as well, or with none';
    $_->cancel for $waiting, $gathered, $without;
    my ($first, $second) = map { $kernel->marker($_) } 'first', 'second';
    undef $first;
    is shown(), 'second', 'in any order';
    $kernel->marker('again') for 1 .. 100;
    is shown(), 'second', 'places are used again';
};

sub busy ($until) { 1 while time < $until; return }    # `time` is C: no function of Perl is further in.
sub outer_of_busy ($until) { busy($until); return }

subtest 'stacks' => sub {
    my $said = ask_while($socket, '/stack', 0.2, sub { outer_of_busy(time + 0.6) });
    my $main = JSON::PP->new->utf8->decode($said)->{main};
    my @functions = map { $_->{function} } $main->{python}->@*;
    is $functions[0], 'main::busy', 'the innermost function' or diag $said;
    is $functions[1], 'main::outer_of_busy', 'who called it';
    is $functions[-1], 'main', 'the program';
    like $main->{python}[0]{file}, qr/observed\.t$/, 'its file';
    unlike $said, qr/secret/, 'no argument is told';
    ok scalar $main->{native}->@*, 'native frames';
    my $own = 0;
    local $SIG{USR1} = sub { ++$own };
    kill USR1 => $$;
    is $own, 1, 'other signals are the program\'s';
    my $sleeping = ask_while($socket, '/stack', 0.2, sub { select undef, undef, undef, 0.5 });
    like $sleeping, qr/observed\.t/, 'a call that a signal interrupts';
};

$kernel->close;
ok !defined $SIG{URG} || $SIG{URG} eq 'DEFAULT', 'the handler goes with the kernel';

done_testing;
