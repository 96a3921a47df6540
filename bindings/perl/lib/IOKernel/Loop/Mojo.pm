package IOKernel::Loop::Mojo;

# Mojo::IOLoop: its reactor watches the channel's descriptor, requests give Mojo::Promise.

use v5.36;

use parent 'IOKernel::Loop';

use Mojo::IOLoop;
use Mojo::Promise;

our $VERSION = '0.1.0';

sub _prepare ($self) {
    $self->{ioloop} //= Mojo::IOLoop->singleton;
    return;
}

sub _watch ($self, $fd, $readable) {
    open my $handle, '<&', $fd or die "descriptor $fd: $!\n";
    $self->{ioloop}->reactor->io($handle => $readable)->watch($handle, 1, 0);
    return $handle;
}

sub _unwatch ($self, $handle) {
    $self->{ioloop}->reactor->remove($handle);
    return;
}

sub _soon ($self, $code) {
    $self->{ioloop}->next_tick($code);
    return;
}

sub _promise ($self, $future) {
    my $promise = IOKernel::Loop::Mojo::Promise->new;
    $promise->ioloop($self->{ioloop});
    $promise->{iokernel} = $future;
    return ($promise, sub ($value) { $promise->resolve($value) }, sub ($error) { $promise->reject($error) });
}

sub _follow ($self, $promise, $done, $failed) {
    return 0 unless $promise->isa('Mojo::Promise');
    $promise->then($done, $failed);
    return 1;
}

package IOKernel::Loop::Mojo::Promise {
    use parent -norequire, 'Mojo::Promise';

    # Ends the request. False if it had ended.
    sub cancel ($self) { return $self->{iokernel} && $self->{iokernel}->cancel }

    # What follows upon it is an ordinary promise.
    sub clone ($self) { return Mojo::Promise->new->tap(ioloop => $self->ioloop) }
}

1;
