#!/usr/bin/env perl

# What a message costs, beside the clients that Perl programs use. One JSON line for each case and side:
# {"case": ..., "side": ..., "per_second": N}, with "cpu_ns" (of this thread's CPU) or "p50_us" where that is the measure.
#
#     IOK_REDIS=redis://127.0.0.1:6379 perl -Ilib bench/bench.pl [SECONDS]

use v5.36;
use FindBin;
use lib "$FindBin::Bin/../lib";

use JSON::PP ();
use List::Util qw(max);
use Time::HiRes qw(CLOCK_MONOTONIC clock_gettime);

use IOKernel;
use IOKernel::Record qw(OP_ECHO);
use IOKernel::Values qw(pack_request);

use constant {
    CLOCK_THREAD_CPUTIME_ID => 3,
    OUTSTANDING             => 256,
    DEPTH                   => 100,
    VALUE_BYTES             => 100,
    ROUNDS                  => 5,
};

my $SECONDS = (shift // 5) / ROUNDS;
my $REDIS   = $ENV{IOK_REDIS} // die "IOK_REDIS: expected the URL of a Redis server\n";
my ($server) = $REDIS =~ m{//([^/]+)};
my $json     = JSON::PP->new->canonical;

STDOUT->autoflush(1);
my $redis = IOKernel->open($REDIS);
$redis->wait_ready(5);
$redis->call('SET', 'bench', 'v' x VALUE_BYTES);

no_ops();
compare('GET, 100 in flight', pipelined());
compare('GET, one at a time', one_at_a_time());
$redis->call('DEL', 'bench');

# Calls `turn`, which does so many, for a while. How many a second, and what one costs this thread, in ns.
sub rate ($turn, $clock = CLOCK_MONOTONIC) {
    my ($start, $cpu, $count) = (clock_gettime(CLOCK_MONOTONIC), clock_gettime(CLOCK_THREAD_CPUTIME_ID), 0);
    my $now = $start;
    while ($now - $start < $SECONDS) {
        $count += $turn->();
        $now = clock_gettime(CLOCK_MONOTONIC);
    }
    return ($count / ($now - $start), (clock_gettime(CLOCK_THREAD_CPUTIME_ID) - $cpu) / $count * 1e9);
}

sub median (@numbers) {
    return (sort { $a <=> $b } @numbers)[ @numbers / 2 ];
}

sub report ($case, $side, $per_second, %more) {
    my %told = (case => $case, side => $side, per_second => int $per_second, %more);
    say $json->encode(\%told);
    return;
}

# The sides take turns, so that what else the machine does meets all of them.
sub compare ($case, %sides) {
    my %found;
    for my $round (1 .. ROUNDS) {
        for my $side (sort keys %sides) {
            push $found{$side}->@*, [rate($sides{$side}{turn})];
        }
    }
    for my $side (sort keys %sides) {
        my %more = (cpu_ns => int median(map { $_->[1] } $found{$side}->@*));
        if (my $times = $sides{$side}{times}) {
            $more{p50_us} = sprintf('%.1f', 1e6 * median(@$times)) + 0;
        }
        report($case, $side, median(map { $_->[0] } $found{$side}->@*), %more);
    }
    return;
}

# What a message costs that goes nowhere: submitted and completed, 256 at a time.
sub no_ops () {
    my $nowhere = bless { kernel => IOKernel->kernel, key => 0, pack => \&pack_request }, 'IOKernel::Caller';
    $nowhere->_numbered(0, OP_ECHO);
    my $turn = sub {
        my @asked = map { $nowhere->request('GET', 'bench') } 1 .. OUTSTANDING;
        $_->get for @asked;
        return OUTSTANDING;
    };
    my @found = map { [rate($turn)] } 1 .. ROUNDS;
    my ($per_second, $ns) = map { my $at = $_; median(map { $_->[$at] } @found) } 0, 1;
    report('no-op, 256 outstanding', 'iokernel', $per_second, cpu_ns => int $ns);
    return;
}

sub pipelined () {
    my %sides = (
        'iokernel, futures' => sub {
            my @asked = map { $redis->request('GET', 'bench') } 1 .. DEPTH;
            $_->get for @asked;
            return DEPTH;
        },
        'iokernel, callbacks' => sub {
            my ($count, $last) = (0);
            for (1 .. DEPTH) {
                $last = $redis->request('GET', 'bench')->on_ready(sub ($future) { ++$count if $future->get });
            }
            $last->get;
            return $count;
        },
        'iokernel, one batch' => sub {
            my $replies = $redis->call(map { ['GET', 'bench'] } 1 .. DEPTH);
            return scalar @$replies;
        },
    );
    for my $class (qw(Redis Redis::Fast)) {
        my $peer = peer($class) or next;
        $sides{$class} = sub {
            my $count = 0;
            $peer->get('bench', sub ($value, $error) { ++$count }) for 1 .. DEPTH;
            $peer->wait_all_responses;
            return $count;
        };
    }
    return map { $_ => { turn => $sides{$_} } } keys %sides;
}

sub one_at_a_time () {
    my %sides = (iokernel => sub { $redis->call('GET', 'bench') });
    for my $class (qw(Redis Redis::Fast)) {
        my $peer = peer($class) or next;
        $sides{$class} = sub { $peer->get('bench') };
    }
    return map { ($_ => timed($sides{$_})) } keys %sides;
}

sub timed ($get) {
    my @times;
    my $turn = sub {
        for (1 .. 50) {
            my $start = clock_gettime(CLOCK_MONOTONIC);
            $get->();
            push @times, clock_gettime(CLOCK_MONOTONIC) - $start;
        }
        return 50;
    };
    return { turn => $turn, times => \@times };
}

# A client that users would pick, or undef where it is not installed.
sub peer ($class) {
    eval "require $class; 1" or return undef;
    return $class->new(server => $server, encoding => undef);
}
