package IOKernel::Loop::IOAsync;

# IO::Async: requests give Future, and cancelling it cancels the request.

use v5.36;

use parent 'IOKernel::Loop';

use IO::Async::Loop;

our $VERSION = '0.1.0';

sub _prepare ($self) {
    $self->{loop} //= IO::Async::Loop->new;
    return;
}

sub _watch ($self, $fd, $readable) {
    open my $handle, '<&', $fd or die "descriptor $fd: $!\n";
    $self->{loop}->watch_io(handle => $handle, on_read_ready => $readable);
    return $handle;
}

sub _unwatch ($self, $handle) {
    $self->{loop}->unwatch_io(handle => $handle, on_read_ready => 1);
    return;
}

sub _soon ($self, $code) {
    $self->{loop}->later($code);
    return;
}

sub _promise ($self, $future) {
    my $promise = $self->{loop}->new_future;
    $promise->on_cancel(sub { $future->cancel });
    return (
        $promise,
        sub ($value) { $promise->done($value) unless $promise->is_ready },
        sub ($error) { $promise->fail($error) unless $promise->is_ready },
    );
}

sub _follow ($self, $promise, $done, $failed) {
    return 0 unless $promise->isa('Future');
    $promise->on_done($done)->on_fail($failed)->retain;
    return 1;
}

1;
