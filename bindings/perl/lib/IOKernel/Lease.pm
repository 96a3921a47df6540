package IOKernel::Lease;

use v5.36;

use parent 'IOKernel::Caller';

use IOKernel::Error;
use IOKernel::Future;
use IOKernel::Record qw(:all);
use IOKernel::Route qw(route_key);

our $VERSION = '0.1.0';

sub new ($class, $endpoint, %options) {
    my $self = bless {
        kernel   => $endpoint->kernel,
        endpoint => $endpoint,
        loop     => $endpoint->loop,
        pack     => $endpoint->{pack},
        number   => 0,
        key      => 0,
    }, $class;
    @$self{qw(timeout_ms route)} = (timeout_ms($options{timeout}), $options{route});
    return $self;
}

sub endpoint ($self) { return $self->{endpoint} }
sub is_held  ($self) { return !!$self->{number} }

# Waits for the connection. In a loop: what the loop awaits, of the lease.
sub acquire ($self) {
    my $loop    = $self->{loop};
    my $number  = $self->{endpoint}->_number;
    my $channel = $loop ? $loop->channel : $self->{kernel}->thread_channel;
    my $future  = IOKernel::Future->new($channel);
    # One that comes though nobody waits for it any more is given back.
    my $nobody = IOKernel::Future->new($channel)->on_ready(sub ($came) {
        $self->_give_back($number, $came->[IOKernel::Future::VALUE])
            if $came->[IOKernel::Future::STATE] == IOKernel::Future::DONE;
    });
    $future->[IOKernel::Future::INSTEAD] = $nobody;
    my @route = defined $self->{route} ? (FLAG_ROUTE, route_key($self->{route})) : (0, 0);
    $channel->submit(OP_LEASE, $route[0], $number, $self->{timeout_ms}, $route[1], '', $future);
    return $loop->promise($future->then(sub ($key) { $self->_hold($number, $key) })) if $loop;
    $channel->await($future);
    return $self->_hold($number, $future->get);
}

sub _hold ($self, $number, $key) {
    $self->{key} = $key;
    $self->_numbered($number);
    IOKernel::Process::watch($self);
    return $self;
}

sub release ($self) {
    my $number = $self->{number} or return;
    $self->_numbered(0);
    $self->_give_back($number, $self->{key});
    return;
}

sub _give_back ($self, $number, $key) {
    return if $self->{kernel}->is_closed || !ord $IOKernel::Process::HERE || $self->{endpoint}->is_closed;
    my $channel = $self->{loop} ? $self->{loop}->channel : $self->{kernel}->thread_channel;
    $channel->submit(OP_RELEASE, FLAG_QUIET, $number, 0, $key, '');
    $channel->send_now;
    return;
}

sub _number ($self) {
    IOKernel::Closed->throw(
        'the lease is not held',
        status   => STATUS_NO_LEASE,
        fate     => 'not_sent',
        endpoint => $self->{endpoint}->url,
    );
}

sub _routed ($self, $route) {
    die IOKernel::Error->of_value('route: a lease is bound to its peer: expected none')->located;
}

# A lease belongs to the process, and to the thread, that took it.
sub _forked ($self) {
    $self->_numbered(0);
    return;
}

sub _cloned ($self) { return $self->_forked }

sub DESTROY ($self) {
    return if ${^GLOBAL_PHASE} eq 'DESTRUCT' || !$self->{kernel};
    local ($@, $!, $?);
    IOKernel::Process::forget($self);
    eval { $self->release; 1 } or warn "iokernel: a lease could not be given back: $@";
    return;
}

1;
