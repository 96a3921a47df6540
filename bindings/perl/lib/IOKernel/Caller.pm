package IOKernel::Caller;

# What endpoints and leases have in common: requests. A hash in front of a request has its options.

use v5.36;

use IOKernel::Channel;
use IOKernel::Error;
use IOKernel::Future;
use IOKernel::Process;
use IOKernel::Record qw(:all);
use IOKernel::Route qw(route_key);

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

# What the records of plain requests have before and after their tag. `number`: the endpoint's. `plain`: both together,
# for requests that need no more than that, or ''.
sub _numbered ($self, $number, $op = OP_REQUEST) {
    my ($before, $after) = (pack(BEFORE_TAG, $op, 0, $number, 0), pack(AFTER_TAG, $self->{key}));
    my $is_plain = ($number || $op == OP_ECHO) && !$self->{loop};
    $self->@{qw(number before after plain)} = ($number, $before, $after, $is_plain ? $before . $after : '');
    return $number;
}

# Queues one request on a channel. Its future.
sub _ask ($self, $channel, $request) {
    my $number  = $self->{number} || $self->_number;
    my $options = ref $request->[0] eq 'HASH' ? shift @$request : undef;
    return $channel->request($self->@{qw(before after)}, $self->{pack}->($request)) unless $options;
    my ($flags, $timeout_ms, $key, $context) = $self->_options($options);
    my @around = (pack(BEFORE_TAG, OP_REQUEST, $flags, $number, $timeout_ms), pack(AFTER_TAG, $key));
    return $channel->request(@around, $context . $self->{pack}->($request));
}

# These two have no signatures, and know a channel's insides: checks and copies would be a tenth of what a request
# costs. IOKernel::Native has a twin of `request`.

sub call {
    my $future  = $_[0]{plain} ? &request : _blocking(@_);
    my $channel = $future->[IOKernel::Future::CHANNEL];
    $channel->await($future);
    return $future->[IOKernel::Future::STATE] == IOKernel::Future::DONE
        ? $future->[IOKernel::Future::VALUE]
        : $future->get;
}

sub _blocking ($self, @request) {
    return $self->_ask($self->{kernel}->thread_channel, \@request);
}

sub request {
    my $self    = shift;
    my $channel = $self->{kernel}{channel};
    return $channel->request($self->{before}, $self->{after}, $self->{pack}->(\@_))
        if $self->{plain} && ref $_[0] ne 'HASH' && ord $IOKernel::Process::HERE
        && $channel && !$channel->[IOKernel::Channel::ENDED];
    my $loop = $self->{loop};
    return $loop->promise($self->_ask($loop->channel, [@_])) if $loop;
    return $self->_blocking(@_);
}

sub send ($self, @request) {
    my $channel = $self->{loop} ? $self->{loop}->channel : $self->{kernel}->thread_channel;
    my $options = ref $request[0] eq 'HASH' ? shift @request : {};
    my ($flags, $timeout_ms, $key, $context) = $self->_options($options);
    my $payload = $context . $self->{pack}->(\@request);
    my $number = $self->{number} || $self->_number;
    $channel->submit(OP_REQUEST, $flags | FLAG_QUIET, $number, $timeout_ms, $key, $payload);
    $channel->send_now;
    return;
}

1;
