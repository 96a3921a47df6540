package IOKernel::Caller;

# What endpoints and leases have in common: requests. A hash in front of a request has its options.

use v5.36;

use IOKernel::Error;
use IOKernel::Future;
use IOKernel::Process;
use IOKernel::Record qw(:all);
use IOKernel::Route qw(route_key);
use IOKernel::Values qw(pack_request);

our $VERSION = '0.1.0';

my %OPTIONS = map { $_ => 1 } qw(timeout idempotent route trace);

# Flags, timeout_ms and key of a request, and the trace context in front of its payload.
sub _options ($self, $options) {
    for my $name (keys %$options) {
        next if $OPTIONS{$name};
        my $known = join ', ', sort keys %OPTIONS;
        die IOKernel::Error->of_value(qq(option "$name": expected one of $known))->located;
    }
    my $flags = $options->{idempotent} ? FLAG_IDEMPOTENT : 0;
    my $key   = $self->{key};
    if (defined $options->{route}) {
        ($flags, $key) = ($flags | FLAG_ROUTE, $self->_routed($options->{route}));
    }
    my $context = '';
    if (defined $options->{trace}) {
        ($flags, $context) = ($flags | FLAG_TRACE, _context($options->{trace}));
    }
    return ($flags, timeout_ms($options->{timeout}), $key, $context);
}

sub _routed ($self, $route) { return route_key($route) }

# A W3C `traceparent` as records have it.
sub _context ($trace) {
    my ($id, $span, $flags) = $trace =~ /\A00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})\z/a
        or die IOKernel::Error->of_value(qq(trace: "$trace": expected 00-, 32, 16 and 2 hexadecimal digits))->located;
    return pack 'H32 H16 H2 x7', $id, $span, $flags;
}

# Queues one request on a channel. Its future.
sub _ask ($self, $channel, $request) {
    my $number = $self->{number} || $self->_number;
    my $future = bless [IOKernel::Future::PENDING, undef, undef, $channel], 'IOKernel::Future';
    if (ref $request->[0] ne 'HASH') {
        $channel->request(0, $number, 0, $self->{key}, $request, $future);
        return $future;
    }
    my ($flags, $timeout_ms, $key, $context) = $self->_options(shift @$request);
    if ($context eq '') {
        $channel->request($flags, $number, $timeout_ms, $key, $request, $future);
    } else {
        my $payload = $context . pack_request($request);
        $channel->submit(OP_REQUEST, $flags, $number, $timeout_ms, $key, $payload, $future);
    }
    return $future;
}

sub call ($self, @request) {
    my $channel = $self->{kernel}->thread_channel;
    my $future  = $self->_ask($channel, \@request);
    $channel->await($future);
    return $future->[IOKernel::Future::VALUE] if $future->[IOKernel::Future::STATE] == IOKernel::Future::DONE;
    return $future->get;
}

sub request ($self, @request) {
    if (my $loop = $self->{loop}) {
        return $loop->promise($self->_ask($loop->channel, \@request));
    }
    my $channel = $self->{kernel}->thread_channel;
    my $future  = $self->_ask($channel, \@request);
    $channel->send_now;
    return $future;
}

sub send ($self, @request) {
    my $channel = $self->{loop} ? $self->{loop}->channel : $self->{kernel}->thread_channel;
    my $options = ref $request[0] eq 'HASH' ? shift @request : {};
    my ($flags, $timeout_ms, $key, $context) = $self->_options($options);
    my $payload = $context . pack_request(\@request);
    my $number = $self->{number} || $self->_number;
    $channel->submit(OP_REQUEST, $flags | FLAG_QUIET, $number, $timeout_ms, $key, $payload);
    $channel->send_now;
    return;
}

1;
