#!/usr/bin/env perl

# Shows the scenarios that every language shows, in the order of the file in IOK_SCENARIOS, as TAP.
#
#     IOK_SCENARIOS=../scenarios/scenarios.json IOK_REDIS=redis://127.0.0.1:6379 perl -Ilib tests/scenarios.pl [NAME...]

use v5.36;
use Config;
use FindBin;
use lib "$FindBin::Bin/../lib", "$FindBin::Bin/../t/lib";

BEGIN { require threads if $Config{useithreads} }

use File::Temp ();
use JSON::PP   ();
use List::Util qw(all first);
use POSIX      ();
use Time::HiRes qw(CLOCK_MONOTONIC CLOCK_PROCESS_CPUTIME_ID clock_gettime sleep);

use IOKernel;
use IOKernel::Record qw(OP_ECHO);
use IOKernel::Test::Admin qw(ask_while);
use IOKernel::Test::Loops;
use IOKernel::Values qw(pack_value text unpack_value);

my $REDIS = $ENV{IOK_REDIS}     // die "IOK_REDIS: expected the URL of a Redis server\n";
my $FILE  = $ENV{IOK_SCENARIOS} // "$FindBin::Bin/../../scenarios/scenarios.json";

my %SCENARIOS = (
    'echo'             => \&echo,
    'get-set'          => \&get_set,
    'errors-and-fates' => \&errors_and_fates,
    'timeout'          => \&timeout,
    'cancel'           => \&cancel,
    'pubsub'           => \&pubsub,
    'pushes-lost'      => \&pushes_lost,
    'value-1MiB'       => \&value,
    'value-64MiB'      => \&value,
    'many'             => \&many,
    'back-pressure'    => \&back_pressure,
    'lost-connection'  => \&lost_connection,
    'transaction'      => \&transaction,
    'listen'           => \&listen_for_curl,
    'fork'             => \&forked,
    'close'            => \&closing,
    'threads'          => \&in_threads,
    'loops'            => \&loops,
    'idle'             => \&idle,
    'stack-while-hung' => \&stack_while_hung,
    'counters'         => \&counters,
    'markers'          => \&markers,
);

exit main(@ARGV);

sub main (@names) {
    STDOUT->autoflush(1);
    open my $file, '<:raw', $FILE or die "$FILE: $!\n";
    my $scenarios = JSON::PP->new->utf8->decode(join '', <$file>)->{scenarios};
    printf "1..%d\n", scalar @$scenarios;
    my ($number, $failed) = (0, 0);
    for my $scenario (@$scenarios) {
        ++$number;
        my $name = $scenario->{name};
        next if @names && !grep { $_ eq $name } @names;
        my $show = $SCENARIOS{$name};
        my $line = "ok $number - $name";
        if (!$show) {
            $line = "not $line # there is no such scenario here";
        } elsif (!eval { $show->($scenario); 1 }) {
            my $why = "$@" =~ s/\s+/ /gr;
            $line = $why =~ /^SKIP / ? "$line # $why" : "not $line # $why";
        }
        ++$failed if $line =~ /^not/;
        say $line;
    }
    return $failed ? 1 : 0;
}

# What scenarios say

sub check ($is_true, $what) {
    die "$what\n" unless $is_true;
    return;
}

# A value of Perl as scenarios write it.
sub told ($value) {
    return { nil => JSON::PP::true } unless defined $value;
    return { array => [map { told($_) } @$value] } if ref $value eq 'ARRAY';
    return { ref $value => "$value" }             if ref $value;
    return { text => $value }                     if utf8::is_utf8($value);
    no warnings 'experimental::builtin';
    return { int => $value } if builtin::created_as_number($value);
    utf8::decode(my $bytes = $value);
    return { bytes => $bytes };
}

sub same ($got, $expected, $what) {
    my $json = JSON::PP->new->canonical->allow_nonref->allow_blessed;
    my ($left, $right) = map { $json->encode($_) } $got, $expected;
    check($left eq $right, "$what: $left: expected $right");
    return;
}

# Arguments, with what $name stands for.
sub filled ($arguments, %names) {
    return map { /\A\$(\w+)\z/ ? $names{$1} // die "\$$1 is not known\n" : $_ } @$arguments;
}

sub failure ($code) {
    return eval { $code->(); 1 } ? undef : $@;
}

sub check_error ($error, $expected, $what) {
    check(ref $error && $error->isa('IOKernel::Error'), "$what: " . ($error // 'it did not fail'));
    my %got = (error => lc $error->status_name, map { $_ => $error->$_ } qw(code fate));
    for my $key (qw(error code fate)) {
        next unless defined $expected->{$key};
        my $got = $got{$key} // 'none';
        check($got eq $expected->{$key}, "$what: $key $got: expected $expected->{$key}: $error");
    }
    my $named = $expected->{names} // return;
    check(!!($error =~ /\Q$named/), "$what: $error: expected $named in it");
    return;
}

sub check_call ($caller, $step, %names) {
    my @call = filled($step->{call}, %names);
    my $what = join(' ', @call) || 'an empty request';
    if (my $expected = $step->{error}) {
        check_error(failure(sub { $caller->call(@call) }), $expected, $what);
    } else {
        same(told($caller->call(@call)), $step->{reply}, $what);
    }
    return;
}

sub now () { return clock_gettime(CLOCK_MONOTONIC) }

# Each scenario has a kernel of its own, which is closed behind it.
sub with_kernel ($code, %config) {
    my $kernel  = IOKernel::Kernel->new(%config);
    my $is_done = eval { $code->($kernel); 1 };
    my $why     = $@;
    $kernel->close;
    die $why unless $is_done;
    return;
}

sub with_redis ($code, %config) {
    with_kernel(sub ($kernel) { $code->($kernel->open($REDIS), $kernel) }, %config);
    return;
}

# The scenarios

sub echo ($scenario) {
    with_kernel(sub ($kernel) {
        for my $value ($scenario->{values}->@*) {
            my $came = unpack_value($kernel->block(OP_ECHO, 0, pack_value($value))->{payload});
            same(plain($came), plain($value), 'echo');
        }
        my $flags = [text('text'), 'bytes', "gr\x{FC}n", text("gr\x{FC}n")];
        my $came  = unpack_value($kernel->block(OP_ECHO, 0, pack_value($flags))->{payload});
        same([map { told($_) } @$came], [map { told($_) } @$flags], 'text and bytes');
    });
    return;
}

# Booleans are Perl's own on one side, JSON's on the other.
sub plain ($value) {
    no warnings 'experimental::builtin';
    return [map { plain($_) } @$value] if ref $value eq 'ARRAY';
    return { map { $_ => plain($value->{$_}) } keys %$value } if ref $value eq 'HASH';
    return $value ? 'true' : 'false' if builtin::is_bool($value) || JSON::PP::is_bool($value);
    return $value;
}

sub get_set ($scenario) {
    with_redis(sub ($redis, $) {
        $redis->call('DEL', qw(s:text s:list s:hash s:number));
        check_call($redis, $_) for $scenario->{calls}->@*;
    });
    return;
}

sub errors_and_fates ($scenario) {
    with_redis(sub ($redis, $kernel) {
        check_call($redis, $_) for $scenario->{calls}->@*;
        for my $step ($scenario->{urls}->@*) {
            check_error(failure(sub { $kernel->open($step->{url}) }), $step->{error}, $step->{url});
        }
        my $refused = $scenario->{refused};
        my $nobody  = $kernel->open($refused->{url});
        my $error   = failure(sub { $nobody->call({ timeout => $refused->{timeout} / 1000 }, $refused->{call}->@*) });
        check_error($error, $refused->{error}, $refused->{url});
    });
    return;
}

sub timeout ($scenario) {
    with_redis(sub ($redis, $) {
        my $error = failure(sub { $redis->call({ timeout => $scenario->{timeout} / 1000 }, $scenario->{slow}->@*) });
        check_error($error, $scenario->{error}, 'the slow one');
        check_call($redis, $scenario->{then});
    });
    return;
}

sub cancel ($scenario) {
    for my $class (IOKernel::Test::Loops::available()) {
        with_kernel(sub ($kernel) {
            my $way   = $class->new($kernel);
            my $redis = $way->open($REDIS);
            $way->await($redis->request('PING'));
            my $slow = $redis->request($scenario->{slow}->@*);
            $way->sleep($scenario->{cancel_after} / 1000);
            my $start = now();
            $slow->cancel;
            # A Future of IO::Async has no error of its own when it is cancelled.
            my $is_own = $slow->can('is_cancelled') && $slow->is_cancelled && !$slow->isa('IOKernel::Future');
            check_error(failure(sub { $way->await($slow) }), $scenario->{error}, $class->name) unless $is_own;
            check(now() - $start < $scenario->{ends_within} / 1000, $class->name . ': it took too long');
            my $reply = $way->await($redis->request($scenario->{then}{call}->@*));
            same(told($reply), $scenario->{then}{reply}, $class->name);
            $way->close;
        });
    }
    return;
}

sub pubsub ($scenario) {
    for my $class (IOKernel::Test::Loops::available()) {
        with_redis(sub ($redis, $kernel) {
            my $way    = $class->new($kernel);
            my $stream = $way->open($REDIS)->subscribe($scenario->{subscribe}->@*);
            $way->await($stream->accepted);
            my $count = $scenario->{messages};
            $_->get for map { $redis->request(filled($scenario->{publish}, number => $_)) } 0 .. $count - 1;
            my @numbers;
            if ($class->is_loop) {
                push @numbers, $way->await($stream->next)->[2] for 1 .. $count;
            } else {
                push @numbers, $stream->next(5)->[2] for 1 .. $count;
            }
            check(join(' ', @numbers) eq join(' ', 0 .. $count - 1), $class->name . ': they are out of order');
            $stream->close;
            my $end = $class->is_loop ? $way->await($stream->next) : $stream->next;
            check(!defined $end, $class->name . ': it goes on after its end');
            $way->close;
        });
    }
    return;
}

sub pushes_lost ($scenario) {
    with_redis(sub ($redis, $kernel) {
        my $stream = $redis->subscribe($scenario->{subscribe}->@*);
        with_redis(sub ($other, $) {
            my @publish = filled($scenario->{publish}, bytes => 'x' x $scenario->{bytes});
            $_->get for map { $other->request(@publish) } 1 .. $scenario->{messages};
        });
        my $came  = 0;
        my $until = now() + 10;
        while ($came + $stream->lost < $scenario->{messages} && now() < $until) {
            eval { $stream->next(0.2); ++$came };
        }
        check($stream->lost > 0, 'none was lost');
        my $sum = $came + $stream->lost;
        check($sum == $scenario->{messages}, "$came came, ${\$stream->lost} were lost: expected $scenario->{messages}");
    }, channel => $scenario->{channel});
    return;
}

sub value ($scenario) {
    with_redis(sub ($redis, $) {
        my $bytes = $scenario->{bytes};
        my $value = pack 'N*', 0 .. $bytes / 4 - 1;
        $redis->call('SET', 's:large', $value);
        check($redis->call('GET', 's:large') eq $value, 'it came back as another one');
        $redis->call('DEL', 's:large');
    });
    return;
}

sub many ($scenario) {
    my $count = $scenario->{requests};
    for my $class (IOKernel::Test::Loops::available()) {
        with_kernel(sub ($kernel) {
            my $way   = $class->new($kernel);
            my $redis = $way->open($REDIS);
            my $ticks = 0;
            my $timer = $class->is_loop ? $way->every($scenario->{timer} / 1000, sub { ++$ticks }) : undef;
            my @asked = map { $redis->request(filled($scenario->{call}, number => $_)) } 1 .. $count;
            my @came  = map { $way->await($_) } @asked;
            check((all { $came[ $_ - 1 ] eq $_ } 1 .. $count), $class->name . ': replies are not their requests');
            my $conns = () = $redis->state->{conns};
            check($conns == 1, $class->name . ": $conns connections");
            $way->sleep(2 * $scenario->{timer} / 1000);
            check($ticks > 0, $class->name . ': no timer fired') if $timer;
            $way->close;
        });
    }
    return;
}

sub back_pressure ($scenario) {
    with_redis(sub ($redis, $kernel) {
        my $count = $scenario->{requests};
        $redis->call('DEL', 's:order');
        my @asked = map { $redis->request(filled($scenario->{call}, number => $_)) } 1 .. $count;
        $_->get for @asked;
        my $order = $redis->call('LRANGE', 's:order', 0, -1);
        check(join(' ', @$order) eq join(' ', 1 .. $count), 'the order is another one');
        $redis->call('DEL', 's:order');
    }, channel => $scenario->{channel});
    return;
}

sub lost_connection ($scenario) {
    with_redis(sub ($redis, $) {
        $redis->lease(sub ($lease) {
            my $id      = $lease->call('CLIENT', 'ID');
            my $pending = $lease->request($scenario->{lease}->@*);
            sleep 0.05;
            $redis->call(filled($scenario->{kill}, id => $id));
            check_error(failure(sub { $pending->get(5) }), $scenario->{error}, 'the killed one');
        });
        check_call($redis, $scenario->{then});
    });
    return;
}

sub transaction ($scenario) {
    with_redis(sub ($redis, $) {
        $redis->call('DEL', 's:watched');
        $redis->lease(sub ($lease) {
            for my $step ($scenario->{calls}->@*) {
                check_call($lease, $step);
                $redis->call('PING');
            }
        });
        $redis->call('DEL', 's:watched');
    });
    return;
}

sub listen_for_curl ($scenario) {
    with_kernel(sub ($kernel) {
        my $listener = $kernel->listen($scenario->{url});
        my $target   = $listener->url . $scenario->{path};
        open my $curl, '-|', 'curl', '-s', '-w', '%{http_code}', $target or die "SKIP curl: $!\n";
        my $request = $listener->next(10);
        my ($head)  = $request->args;
        $request->reply([$scenario->{status}, { 'Content-Type' => 'text/plain' }, $scenario->{body}]);
        my $said = do { local $/; <$curl> };
        same($said, "$scenario->{body}$scenario->{status}", 'curl');
        same($head->[1], $scenario->{path}, 'the target');
        $listener->close;
    });
    return;
}

# Runs code in a forked child. What it died of, or ''.
sub in_child ($code) {
    pipe my $read, my $write or die "pipe: $!\n";
    my $child = fork // die "fork: $!\n";
    if (!$child) {
        close $read;
        my $is_done = eval { $code->(); 1 };
        print $write $is_done ? 'ok' : "$@";
        close $write;
        POSIX::_exit(0);
    }
    close $write;
    my $said = do { local $/; <$read> };
    waitpid $child, 0;
    return $said eq 'ok' ? '' : "the child: $said (exit status $?)";
}

sub forked ($scenario) {
    with_redis(sub ($redis, $kernel) {
        my $ask      = sub { check($redis->call(filled($scenario->{call}, pid => $$)) eq $$, 'another reply') };
        my $pending  = $redis->request('BLPOP', 's:forked', 0);
        $ask->();
        my $why = in_child(sub {
            $ask->() for 1 .. 3;
            check_error($pending->failure, { error => 'forked' }, q(the parent's future));
            my $inner = in_child(sub { $ask->() });
            check($inner eq '', "within: $inner");
        });
        check($why eq '', $why);
        $ask->();
        $redis->call('RPUSH', 's:forked', 'parent');
        same(told($pending->get(5)), told(['s:forked', 'parent']), q(the parent's future));
    });
    return;
}

sub closing ($scenario) {
    my $kernel = IOKernel::Kernel->new;
    my $redis  = $kernel->open($REDIS);
    $redis->call('PING');
    my $slow = $redis->request($scenario->{slow}->@*);
    sleep 0.05;
    my $start = now();
    $kernel->close;
    check_error($slow->failure(1), $scenario->{error}, 'the slow one');
    check_error(failure(sub { $redis->call('PING') }), $scenario->{error}, 'a later one');
    $kernel->close;
    $redis->close;
    check(now() - $start < $scenario->{ends_within} / 1000, 'it took too long');
    return;
}

# In a program of its own: the loops of the other scenarios leave watchers of EV, which no new thread may inherit.
sub in_threads ($scenario) {
    die "SKIP this perl was built without threads\n" unless $Config{useithreads};
    return apart($scenario->{name}) unless "@ARGV" eq $scenario->{name};
    with_redis(sub ($redis, $kernel) {
        my $ask = sub ($number) {
            my @numbers = map { "$number:$_" } 1 .. $scenario->{requests};
            my @came    = map { $_->get } map { $redis->request(filled($scenario->{call}, number => $_)) } @numbers;
            return "thread $number" unless "@came" eq "@numbers";
            return '' unless IOKernel::Test::Mojo->is_there;
            my $way   = IOKernel::Test::Mojo->new($kernel);
            my $inner = $redis->in($way->{bridge});
            @came = map { $way->await($_) } map { $inner->request(filled($scenario->{call}, number => $_)) } @numbers;
            return "thread $number, its loop" unless "@came" eq "@numbers";
            $way->close;
            return '';
        };
        local $ENV{MOJO_REACTOR} = 'Mojo::Reactor::Poll';    # EV is for one thread.
        my @threads = map { threads->create($ask, $_) } 1, 2;
        my @said    = map { $_->join // 'a thread died' } @threads;
        check((all { $_ eq '' } @said), join ' ', @said, ': replies are not their requests');
        $redis->call('PING');
    });
    return;
}

# Shows one scenario in a program of its own.
sub apart ($name) {
    local $ENV{IOK_SCENARIOS} = $FILE;
    open my $program, '-|', $^X, $0, $name or die "$^X: $!\n";
    my @lines = grep { /^(?:not )?ok / } <$program>;
    my $is_done = close $program;
    check($is_done && @lines == 1 && $lines[0] =~ /^ok/, "@lines (exit status $?)");
    return;
}

sub descriptors () { return scalar(() = glob '/proc/self/fd/*') }

sub loops ($scenario) {
    for my $class (grep { $_->is_loop } IOKernel::Test::Loops::available()) {
        with_kernel(sub ($kernel) {
            my $before;
            for my $round (1 .. $scenario->{rounds}) {
                my $way   = $class->new($kernel);
                my $redis = $way->open($REDIS);
                my $reply = $way->await($redis->request(filled($scenario->{call}, number => $round)));
                check($reply eq $round, $class->name . ": round $round: another reply");
                $way->close;
                $redis->close;
                undef $_ for $way, $redis;
                sleep 0.01;
                $before //= descriptors() if $round == 3;
            }
            my $after = descriptors();
            check($after <= $before, $class->name . ": $before descriptors became $after");
        });
    }
    return;
}

sub idle ($scenario) {
    for my $class (IOKernel::Test::Loops::available()) {
        with_kernel(sub ($kernel) {
            my $way    = $class->new($kernel);
            my $redis  = $way->open($REDIS);
            my $stream = $redis->subscribe('SUBSCRIBE', 's:idle');
            $way->await($stream->accepted);
            $way->await($redis->request('PING'));
            my $start = clock_gettime(CLOCK_PROCESS_CPUTIME_ID);
            $class->is_loop ? $way->sleep($scenario->{idle} / 1000) : eval { $stream->next($scenario->{idle} / 1000) };
            my $took_ms = 1000 * (clock_gettime(CLOCK_PROCESS_CPUTIME_ID) - $start);
            check($took_ms <= $scenario->{cpu_at_most}, sprintf '%s: %.1f ms of CPU time', $class->name, $took_ms);
            $way->close;
        });
    }
    return;
}

# What a kernel's admin endpoint says while this program hangs.
sub while_hung ($path, $begin, $hang) {
    my $folder = File::Temp->newdir;
    my $said;
    with_kernel(sub ($kernel) {
        $begin->($kernel);
        $said = ask_while("$folder/admin", $path, 0.3, $hang);
    }, admin => "unix:$folder/admin");
    return $said;
}

# Hangs in Perl: signals are handled between its statements.
sub render_for_ever ($ms) {
    my $until = now() + $ms / 1000;
    my $sum   = 0;
    ++$sum while now() < $until;
    return $sum;
}

# Hangs in C: one call of the C library that does not return meanwhile.
my $read;
sub wait_in_c ($ms) {
    pipe my $from, my $to or die "pipe: $!\n";
    my $writer = fork // die "fork: $!\n";
    if (!$writer) {
        sleep $ms / 1000;
        syswrite $to, 'x';
        POSIX::_exit(0);
    }
    require FFI::Platypus;
    $read //= FFI::Platypus->new(api => 2, lib => [undef])->function(read => ['int', 'opaque', 'size_t'] => 'ssize_t');
    my $room = IOKernel::Library::allocate(1);
    $read->call(fileno $from, $room, 1);
    waitpid $writer, 0;
    IOKernel::Library::free($room);
    return;
}

sub stack_while_hung ($scenario) {
    my $ms   = $scenario->{hang};
    my $perl = while_hung($scenario->{path}, sub { }, sub { render_for_ever($ms) });
    check(!!($perl =~ /render_for_ever/), "in Perl: $perl");
    my $c = while_hung($scenario->{path}, sub { }, sub { wait_in_c($ms) });
    check(!!($c =~ /"read\+/), "in C: $c");
    return;
}

sub counters ($scenario) {
    my $begin = sub ($kernel) { $kernel->counter($scenario->{counter})->inc($scenario->{add}) };
    my $said  = while_hung($scenario->{path}, $begin, sub { wait_in_c(600) });
    check(!!($said =~ /^\Q$scenario->{line}\E$/m), "there is no line $scenario->{line}");
    return;
}

sub markers ($scenario) {
    my $marker;
    my $begin = sub ($kernel) { $marker = $kernel->marker($scenario->{marker}) };
    my $said  = while_hung($scenario->{path}, $begin, sub { wait_in_c(600) });
    check(!!($said =~ /\Q$scenario->{marker}/), "the marker is not in $said");
    return;
}
