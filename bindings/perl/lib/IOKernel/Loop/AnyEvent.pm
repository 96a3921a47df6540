package IOKernel::Loop::AnyEvent;

# AnyEvent, with EV or any other loop beneath: requests give condition variables.

use v5.36;

use parent 'IOKernel::Loop';

use AnyEvent;

our $VERSION = '0.1.0';

sub _prepare ($self) { return }

sub _watch ($self, $fd, $readable) {
    return AnyEvent->io(fh => $fd, poll => 'r', cb => $readable);
}

# The guard is gone with the last reference to it.
sub _unwatch ($self, $guard) { return }

sub _soon ($self, $code) {
    AnyEvent::postpone { $code->() };
    return;
}

sub _promise ($self, $future) {
    my $condvar = bless AnyEvent->condvar, 'IOKernel::Loop::AnyEvent::CondVar';
    $condvar->{iokernel} = $future;
    return ($condvar, sub ($value) { $condvar->send($value) }, sub ($error) { $condvar->croak($error) });
}

sub _follow ($self, $promise, $done, $failed) {
    return 0 unless $promise->isa('AnyEvent::CondVar');
    $promise->cb(sub ($kept) {
        my $value;
        return eval { $value = $kept->recv; 1 } ? $done->($value) : $failed->($@);
    });
    return 1;
}

package IOKernel::Loop::AnyEvent::CondVar {
    our @ISA = 'AnyEvent::CondVar';

    # Ends the request. False if it had ended.
    sub cancel ($self) { return $self->{iokernel}->cancel }
}

1;
