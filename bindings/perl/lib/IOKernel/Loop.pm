package IOKernel::Loop;

use v5.36;

use Scalar::Util qw(weaken);

use IOKernel;
use IOKernel::Future;
use IOKernel::Listener;
use IOKernel::URL qw(with_options);

our $VERSION = '0.1.0';

sub new ($class, %options) {
    my $self = bless { kernel => delete $options{kernel} // IOKernel->kernel, channel => undef, %options }, $class;
    $self->_prepare;
    $self->channel;
    IOKernel::Process::watch($self);
    return $self;
}

sub kernel ($self) { return $self->{kernel} }

# The channel that this loop's requests go through.
sub channel ($self) {
    my $channel = $self->{channel};
    return $channel if $channel && !$channel->ended && ord $IOKernel::Process::HERE;
    return $self->{channel} = $self->_watched($self->{kernel}->open_channel);
}

# A channel that the loop watches: submitted to once per turn, one run taken for each wake. While there is more, its
# descriptor stays readable.
sub _watched ($self, $channel) {
    weaken(my $weak = $channel);
    weaken(my $loop = $self);
    my $flush    = sub { $weak->flush if $weak && !$weak->ended };
    my $readable = sub {
        return unless $weak;
        $weak->poll;
        $weak->flush unless $weak->ended;
    };
    my $watcher = $self->_watch($channel->fd, $readable);
    $channel->watch(sub { $loop->_soon($flush) if $loop }, sub { $loop->_unwatch($watcher) if $loop; undef $watcher });
    return $channel;
}

sub open ($self, $url, %options) {
    return $self->{kernel}->open($url, %options)->in($self);
}

sub listen ($self, $url, %options) {
    my $channel  = $self->_watched($self->{kernel}->open_channel);
    my $listener = IOKernel::Listener->new($self->{kernel}, $channel, with_options($url, \%options));
    $listener->{loop} = $self;
    return $listener;
}

# What the loop awaits: settled as the future is.
sub promise ($self, $future) {
    my ($promise, $done, $failed) = $self->_promise($future);
    $future->on_ready(sub ($was) {
        my ($state, $value) = $was->@[IOKernel::Future::STATE, IOKernel::Future::VALUE];
        return $state == IOKernel::Future::DONE ? $done->($value) : $failed->($value);
    });
    return $promise;
}

# In a forked child the descriptors that the loop watches are the parent's: they are left to it.
sub _forked ($self) {
    $self->{channel} = undef;
    return;
}

# Nor does another thread watch them.
sub _cloned ($self) { return $self->_forked }

sub close ($self) {
    my $channel = $self->{channel} or return;
    $self->{channel} = undef;
    $channel->close;
    return;
}

sub DESTROY ($self) {
    return if ${^GLOBAL_PHASE} eq 'DESTRUCT' || !$self->{kernel};
    local ($@, $!, $?);
    IOKernel::Process::forget($self);
    eval { $self->close; 1 } or warn "iokernel: a loop's channel could not be closed: $@";
    return;
}

1;

__END__

=encoding utf8

=head1 NAME

IOKernel::Loop - endpoints inside of an event loop: AnyEvent, IO::Async, Mojolicious

=head1 SYNOPSIS

    use IOKernel::Loop::Mojo;                       # promises are Mojo::Promise
    my $loop  = IOKernel::Loop::Mojo->new;          # watches one descriptor
    my $cache = $loop->open('redis://127.0.0.1:6379');
    $cache->request('GET', 'greeting')->then(sub ($value) { say $value });

    use IOKernel::Loop::IOAsync;                    # Future, also cancelled by its cancel
    my $loop  = IOKernel::Loop::IOAsync->new(loop => IO::Async::Loop->new);
    my $value = $loop->open($url)->request('GET', 'greeting')->get;

    use IOKernel::Loop::AnyEvent;                   # AnyEvent::CondVar
    my $loop  = IOKernel::Loop::AnyEvent->new;
    my $value = $loop->open($url)->request('GET', 'greeting')->recv;

=head1 DESCRIPTION

A loop has a channel of its own: what is asked in one turn goes to the I/O thread in one call, and replies come when the
channel's descriptor is readable. C<call> still blocks, through the thread's channel; inside of a loop use C<request>.

=head1 METHODS

=over 4

=item new(kernel => $kernel, ...)

Of a subclass. C<kernel>: L<IOKernel>'s default one unless given. IOKernel::Loop::IOAsync takes C<loop>,
IOKernel::Loop::Mojo takes C<ioloop> (the singleton).

=item open($url, %options)

An endpoint (see L<IOKernel/Endpoints>) whose C<request>, C<lease>, and whose subscriptions' C<next> and C<accepted>,
give what the loop awaits. Such a promise has C<cancel>, which ends the request.

    $cache->subscribe('SUBSCRIBE', 'news')->each(sub ($message) { say $message->[2] });

An endpoint that was opened elsewhere is used in a loop by C<< $endpoint->in($loop) >>.

=item listen($url, %options)

A listener whose requests the loop takes: C<< $listener->serve(sub ($request) { ... }) >> returns at once. The handler's
value is the reply, or what the promise that it returns becomes.

=item close

Ends what is under way here; what waits for it fails with IOKernel::Closed. So does letting go of the object.

=back

=cut
