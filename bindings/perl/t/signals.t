use v5.36;
use lib 't/lib';
use IOKernel::Test;
use Time::HiRes qw(ITIMER_REAL alarm setitimer);

my $server = server();
my $redis  = IOKernel->open($server->url);
$redis->wait_ready(5);

subtest 'a handler that dies ends the wait' => sub {
    my $start = now();
    local $SIG{ALRM} = sub { die "late\n" };
    alarm 0.1;
    is caught(sub { $redis->call('BLPOP', 'never', 5) }), "late\n", 'call';
    ok now() - $start < 2, 'at once';
    ok within(2, sub { $redis->state->{requests} == 0 }), 'the request was cancelled';
    my $future = $redis->request('DEBUG', 'SLEEP', '0.3');
    alarm 0.05;
    is caught(sub { $future->get }), "late\n", 'get';
    is $future->get(5), 'OK', 'the request of a future goes on';
};

subtest 'a handler that returns lets it go on' => sub {
    my $count = 0;
    local $SIG{ALRM} = sub { ++$count };
    setitimer ITIMER_REAL, 0.01, 0.01;
    is $redis->call('DEBUG', 'SLEEP', '0.2'), 'OK', 'the reply';
    setitimer ITIMER_REAL, 0;
    ok $count > 5, "the handler ran $count times meanwhile";
};

subtest 'a handler may call' => sub {
    my @came;
    local $SIG{ALRM} = sub { push @came, $redis->call('ECHO', 'handler') };
    setitimer ITIMER_REAL, 0.001, 0.0007;
    my $wrong = 0;
    my $until = now() + 1.5;
    while (now() < $until) {
        my @asked = map { $redis->request('ECHO', $_) } 1 .. 50;
        $wrong++ if join(' ', map { $_->get } @asked) ne join(' ', 1 .. 50);
    }
    setitimer ITIMER_REAL, 0;
    is $wrong, 0, 'everybody has its own';
    ok @came > 50 && !grep({ $_ ne 'handler' } @came), "the handler as well, @{[scalar @came]} times";
};

# The worst: exceptions at any statement of the binding. Nothing is lost, nothing comes twice. (What a method returns
# while a handler dies is gone, as with any method of Perl: so the messages are taken afterwards.)
subtest 'a handler that dies at any moment' => sub {
    my $stream = $redis->subscribe('SUBSCRIBE', 'storm');
    my $writer = IOKernel::Kernel->new->open($server->url);
    my ($count, $died, $wrong) = (0, 0, 0);
    our $inside = 0;
    local $SIG{ALRM} = sub { die "storm\n" if $inside };
    my $until = now() + 3;
    while (now() < $until) {
        my @wanted = ($count + 1 .. $count + 30);
        $count += 30;
        $_->get for map { $writer->request('PUBLISH', 'storm', $_) } @wanted;
        my @asked = map { $redis->request('ECHO', $_) } @wanted;
        my $end   = now() + 10;
        setitimer ITIMER_REAL, 0.0003, 0.0003;
        my $is_done = 0;
        until ($is_done || now() > $end) {
            $is_done = eval {
                local $inside = 1;
                $_->get for @asked;
                $redis->call('PING') while $stream->{messages}->@* < $count;
                1;
            };
            next if $is_done;
            $@ eq "storm\n" ? ++$died : die $@;
        }
        setitimer ITIMER_REAL, 0;
        last unless $is_done;
        ++$wrong if join(' ', map { $_->get } @asked) ne join(' ', @wanted);
    }
    ok $died > 20, "the handler died $died times";
    is $wrong, 0, 'every reply is its own';
    my @numbers = map { $stream->next(1)->[2] } 1 .. $count;
    is join(' ', @numbers), join(' ', 1 .. $count), "$count messages, each once, in order";
    is scalar $stream->{messages}->@*, 0, 'and none beside them';
};

done_testing;
