package IOKernel::Future;

use v5.36;

use Time::HiRes qw(clock_gettime CLOCK_MONOTONIC);
use Scalar::Util qw(blessed);

use IOKernel::Error;
use IOKernel::Record qw(STATUS_CANCELLED STATUS_TIMEOUT);

our $VERSION = '0.1.0';

# A future is an array; channels write into it.
use constant {
    PENDING => 0,
    DONE    => 1,
    FAILED  => 2,

    STATE     => 0,
    VALUE     => 1,    # the reply, or the error
    CHANNEL   => 2,
    TAG       => 3,    # a number
    CALLBACKS => 4,
    INSTEAD   => 5,    # who takes what comes when it was cancelled
    UPON      => 6,    # the future that this one follows upon
};

sub new ($class, $channel) { return bless [PENDING, undef, $channel], $class }

sub is_ready  ($self) { return $self->_look != PENDING }
sub is_done   ($self) { return $self->_look == DONE }
sub is_failed ($self) { return $self->_look == FAILED }

# Takes what has completed, without waiting.
sub _look ($self) {
    if ($self->[STATE] == PENDING) {
        $self->[CHANNEL]->send_now;
        $self->[CHANNEL]->poll;
    }
    return $self->[STATE];
}

# IOKernel::Native has a twin.
sub get {
    return $_[0][VALUE] if $_[0][STATE] == DONE;
    my ($self, $timeout) = @_;
    $self->_wait($timeout) if $self->[STATE] == PENDING;
    return $self->[VALUE]  if $self->[STATE] == DONE;
    my $error = $self->[VALUE];
    die ref $error && $error->isa('IOKernel::Error') ? $error->located : $error;
}

sub failure ($self, $timeout = undef) {
    $self->_wait($timeout) if $self->[STATE] == PENDING;
    return $self->[STATE] == FAILED ? $self->[VALUE] : undef;
}

sub _wait ($self, $timeout) {
    my $channel = $self->[CHANNEL];
    IOKernel::Error->throw('a loop has this future: use what the loop awaits') if $channel->is_watched;
    my $deadline = defined $timeout && $timeout != 'inf' ? clock_gettime(CLOCK_MONOTONIC) + $timeout : undef;
    until ($self->[STATE]) {
        next if $channel->turn($deadline);
        last if $self->[STATE];
        IOKernel::Timeout->throw("no reply within $timeout s; the request goes on", status => STATUS_TIMEOUT);
    }
    return;
}

sub then ($self, $done = undef, $failed = undef) {
    my $next = (ref $self)->new($self->[CHANNEL]);
    $next->[UPON] = $self;
    $self->on_ready(sub ($was) {
        my $handler = $was->[STATE] == DONE ? $done : $failed;
        return $next->_settle($was->@[STATE, VALUE]) unless $handler;
        my $value;
        return $next->_settle(FAILED, $@) unless eval { $value = $handler->($was->[VALUE]); 1 };
        return $next->_settle(DONE, $value) unless blessed $value && $value->isa(__PACKAGE__);
        $next->[UPON] = $value;
        $value->on_ready(sub ($inner) { $next->_settle($inner->@[STATE, VALUE]) });
    });
    return $next;
}

sub catch ($self, $failed) { return $self->then(undef, $failed) }

sub on_ready ($self, $callback) {
    if ($self->[STATE] == PENDING) {
        push $self->[CALLBACKS]->@*, $callback;
    } else {
        $callback->($self);
    }
    return $self;
}

sub cancel ($self) {
    return !!0 if $self->[STATE] != PENDING;
    if ($self->[UPON]) {
        $self->[UPON]->cancel;
    } elsif (defined $self->[TAG]) {
        $self->[CHANNEL]->cancel(pack('Q', $self->[TAG]), $self->[INSTEAD]);
        $self->[CHANNEL]->send_now;
    }
    $self->_settle(FAILED, IOKernel::Cancelled->new(
        'cancelled by the program',
        status => STATUS_CANCELLED,
        fate   => 'maybe_executed',
    ));
    return !!1;
}

sub is_cancelled ($self) {
    return $self->[STATE] == FAILED && ref $self->[VALUE] && $self->[VALUE]->isa('IOKernel::Cancelled');
}

# Settles it, once, and tells who wants to know.
sub _settle ($self, $state, $value) {
    return if $self->[STATE] != PENDING;
    $self->@[STATE, VALUE] = ($state, $value);
    $self->[UPON] = undef if $self->[UPON];
    $self->told;
    return;
}

# Tells who wants to know. A callback that dies is warned about: nobody else hears of it.
sub told ($self) {
    my $callbacks = $self->[CALLBACKS] or return;
    while (my $callback = shift @$callbacks) {
        eval { $callback->($self); 1 } or warn "iokernel: a callback died: $@";
    }
    return;
}

1;

__END__

=encoding utf8

=head1 NAME

IOKernel::Future - a reply under way

=head1 SYNOPSIS

    my @futures = map { $cache->request('GET', "user:$_") } 1 .. 100;
    say $_->get for @futures;

    $cache->request('GET', 'greeting')
        ->then(sub ($value) { $cache->request('SET', 'copy', $value) })
        ->then(sub ($reply) { say 'copied' }, sub ($error) { warn $error })
        ->get;

=head1 DESCRIPTION

What C<request> gives outside of event loops; a loop's own endpoints give what the loop awaits instead, see
L<IOKernel::Loop>. A future belongs to the thread that made it, and its request goes on whether somebody keeps it or
not.

=head1 METHODS

=over 4

=item get($timeout)

The reply, waiting for it. Dies of what the request failed with, an L<IOKernel::Error>. C<$timeout>: seconds to wait
here; when they are over, an IOKernel::Timeout is thrown, and the request goes on.

=item failure($timeout)

What the request failed with, or undef; waits as C<get> does.

=item then($done, $failed), catch($failed)

Another future: of what C<< $done->($reply) >> or C<< $failed->($error) >> returns, which may be a future itself, or of
what it dies of. Called while this thread waits for anything; at once if the reply is there already.

=item on_ready($callback)

Calls C<< $callback->($future) >> once it is ready. Returns the future.

=item cancel

Ends the request; of a future from C<then>, that which it follows upon. False if it had ended. The future fails with
IOKernel::Cancelled.

=item is_ready, is_done, is_failed, is_cancelled

Looks for what has completed, without waiting.

=back

=cut
