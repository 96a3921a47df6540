package IOKernel::Subscription;

use v5.36;

use Scalar::Util qw(weaken);
use Time::HiRes qw(clock_gettime CLOCK_MONOTONIC);

use IOKernel::Error;
use IOKernel::Future;
use IOKernel::Inbox;
use IOKernel::Record qw(:all);
use IOKernel::Values qw(pack_request);

our $VERSION = '0.1.0';

use constant {
    # Messages that may wait unread before more are dropped and counted.
    MESSAGES_MAX => 65536,
    STATES_MAX   => 1024,
};

# A request that keeps giving. A hash in front of it has `timeout` and `buffer`.
sub subscribe ($class, $endpoint, @request) {
    my $options = ref $request[0] eq 'HASH' ? shift @request : {};
    my $payload = pack_request(\@request);
    my $number  = $endpoint->number;
    return $class->_begin(
        $endpoint->kernel, $endpoint->loop, OP_STREAM, $number, timeout_ms($options->{timeout}), $payload,
        buffer => $options->{buffer} // MESSAGES_MAX,
        keeps  => 'oldest',
    );
}

# How an endpoint (0: the kernel) is, at once and after every change. The oldest states go when too many wait.
sub watch ($class, $kernel, $number, %options) {
    return $class->_begin(
        $kernel, $options{loop}, OP_WATCH, $number, 0, '',
        buffer => $options{buffer} // STATES_MAX,
        keeps  => 'newest',
    );
}

sub _begin ($class, $kernel, $loop, $op, $number, $timeout_ms, $payload, %how) {
    my $channel = $loop ? $loop->channel : $kernel->thread_channel;
    my $self    = bless {
        channel    => $channel,
        loop       => $loop,
        names      => $kernel->{names},
        messages   => [],
        waiting    => [],
        lost       => 0,
        reconnects => -1,
        error      => undef,
        is_over    => 0,
        accepted   => IOKernel::Future->new($channel),
        end        => IOKernel::Future->new($channel),
        %how,
    }, $class;
    # Nothing but the program keeps it: one that is let go of is cancelled.
    weaken(my $weak = $self);
    $self->{end}->on_ready(sub ($end) { $weak->_ended($end->[IOKernel::Future::VALUE]) if $weak });
    my $inbox = IOKernel::Inbox->new($self);
    $self->{tag} = $channel->submit($op, 0, $number, $timeout_ms, 0, $payload, $self->{end}, $inbox);
    return $self if $loop;
    $channel->await($self->{accepted});
    $self->{accepted}->get;
    return $self;
}

# What the channel hands over. What changes and what was taken change in one statement, as in IOKernel::Channel.
sub _take_all ($self, $completions) {
    while (my $completion = $completions->[0]) {
        my $kind = $completion->{kind};
        if ($kind == KIND_PUSH) {
            my $message = $completion->value;
            my $room    = $self->{messages}->@* < $self->{buffer};
            my $dropped = !$room && $self->{keeps} eq 'newest';
            my $taken   = $room || $dropped ? $self->{messages} : [];
            push(@$taken, $message), $self->{lost} += !$room, shift(@$completions), splice @$taken, 0, $dropped;
        } elsif ($kind == KIND_LOST) {
            my $lost = $completion->value;
            $self->{lost} += $lost, shift @$completions;
        } else {
            $self->{reconnects} += $kind == KIND_ACCEPTED, shift @$completions;
        }
    }
    $self->_tell;
    return;
}

# Tells whoever waits.
sub _tell ($self) {
    my $accepted = $self->{accepted};
    if ($self->{reconnects} >= 0 && !$accepted->[IOKernel::Future::STATE]) {
        $accepted->_settle(IOKernel::Future::DONE, $self);
        weaken($accepted->[IOKernel::Future::VALUE]);
    }
    my $messages = $self->{messages};
    while (@$messages && $self->{waiting}->@*) {
        (shift $self->{waiting}->@*)->_settle(IOKernel::Future::DONE, shift @$messages);
    }
    while (@$messages && $self->{on_message}) {
        my $message = shift @$messages;
        eval { $self->{on_message}->($message); 1 } or warn "iokernel: a callback died: $@";
    }
    return;
}

# `why`: the error that ended it, if one did.
sub _ended ($self, $why) {
    $self->{error} //= $why if ref $why && !$self->{is_over};
    $self->{is_over} = 1;
    my $error = $self->{error};
    my @settled = $error ? (IOKernel::Future::FAILED, $error) : (IOKernel::Future::DONE, undef);
    $self->{accepted}->_settle(IOKernel::Future::FAILED, $error // $self->_over);
    $_->_settle(@settled) for splice $self->{waiting}->@*;
    return;
}

sub _over ($self) { return IOKernel::Closed->new('the subscription has ended', status => STATUS_CLOSED) }

sub next ($self, $timeout = undef) {
    return $self->_next_in_loop if $self->{loop};
    my $messages = $self->{messages};
    my $deadline = defined $timeout && $timeout != 'inf' ? clock_gettime(CLOCK_MONOTONIC) + $timeout : undef;
    until (@$messages || $self->{is_over}) {
        next if $self->{channel}->turn($deadline);
        last if @$messages || $self->{is_over};
        die $self->{channel}->ended_error if $self->{channel}->ended;
        IOKernel::Timeout->throw("no message within $timeout s", status => STATUS_TIMEOUT);
    }
    return shift @$messages if @$messages;
    die $self->{error}->located if $self->{error};
    return undef;
}

sub _next_in_loop ($self) {
    my $future = IOKernel::Future->new($self->{channel});
    if ($self->{messages}->@*) {
        $future->_settle(IOKernel::Future::DONE, shift $self->{messages}->@*);
    } elsif ($self->{is_over}) {
        $future->_settle($self->{error} ? (IOKernel::Future::FAILED, $self->{error}) : (IOKernel::Future::DONE, undef));
    } else {
        push $self->{waiting}->@*, $future;
    }
    return $self->{loop}->promise($future);
}

# Calls `$callback->($message)` for each: until the end, or, in a loop, from here on.
sub each ($self, $callback) {
    if ($self->{loop}) {
        $self->{on_message} = $callback;
        $self->_tell;
        return $self;
    }
    while (defined(my $message = $self->next)) {
        $callback->($message);
    }
    return $self;
}

# In a loop: what the loop awaits until the peer has accepted; of the subscription.
sub accepted ($self) {
    return $self->{loop} ? $self->{loop}->promise($self->{accepted}) : $self->{accepted};
}

sub lost       ($self) { return $self->{lost} }
sub reconnects ($self) { return $self->{reconnects} < 0 ? 0 : $self->{reconnects} }
sub is_closed  ($self) { return !!$self->{is_over} }

sub close ($self) {
    return if $self->{is_over};
    $self->{is_over} = 1;
    if ($self->{channel}->cancel($self->{tag})) {
        $self->{channel}->send_now;
    }
    $self->_ended(undef);
    return;
}

sub DESTROY ($self) {
    return if ${^GLOBAL_PHASE} eq 'DESTRUCT' || !$self->{channel};
    local ($@, $!, $?);
    eval { $self->close; 1 } or warn "iokernel: a subscription could not be closed: $@";
    return;
}

1;
