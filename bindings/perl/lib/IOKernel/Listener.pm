package IOKernel::Listener;

use v5.36;

use Scalar::Util qw(blessed weaken);
use Time::HiRes qw(clock_gettime CLOCK_MONOTONIC);

use IOKernel::Error;
use IOKernel::Future;
use IOKernel::Inbox;
use IOKernel::Record qw(:all);
use IOKernel::Request;
use IOKernel::Values qw(pack_value);

our $VERSION = '0.1.0';

# Made by `listen` of a kernel, in a channel of its own, or of a loop, in the loop's.
sub new ($class, $kernel, $channel, $url) {
    my $self = bless {
        kernel  => $kernel,
        channel => $channel,
        queue   => [],
        live    => {},
        is_over => 1,    # Until it listens.
        loop    => undef,
    }, $class;
    $channel->listen(IOKernel::Inbox->new($self));
    utf8::encode($url);
    # In a loop as well this waits: binding takes no time.
    my $done = $channel->operate(OP_LISTEN, 0, 0, 0, 0, $url);
    @$self{qw(url number is_over)} = ($done->value, $done->{endpoint}, 0);
    $kernel->{names}{ $self->{number} } = $self->{url};
    return $self;
}

sub url       ($self) { return $self->{url} }
sub is_closed ($self) { return !!$self->{is_over} }

# What the channel hands over.
sub _take_all ($self, $completions) {
    while (my $completion = $completions->[0]) {
        if ($completion->{kind} == KIND_REQUEST) {
            my $request = IOKernel::Request->new($self, @$completion{qw(tag peer)}, $completion->value);
            weaken($self->{live}{ $completion->{tag} } = $request);
            push($self->{queue}->@*, $request), shift @$completions;
        } else {
            shift @$completions;
            $self->_take($completion);
        }
    }
    my $queue = $self->{queue};
    while (@$queue && $self->{handler}) {
        $self->_handle($self->{handler}, shift @$queue);
    }
    return;
}

# Everything but requests.
sub _take ($self, $completion) {
    my ($kind, $tag) = @$completion{qw(kind tag)};
    if ($kind == KIND_DONE) {
        return $self->_ended if $self->{channel}->ended;
        warn 'iokernel: a reply was not sent: ' . $completion->error($self->{kernel}{names}) . "\n"
            if $completion->{status};
        return;
    }
    my $request = $self->{live}{$tag} or return;
    delete $self->{live}{$tag} if $kind == KIND_GONE;
    $request->_take($completion);
    return;
}

sub next ($self, $timeout = undef) {
    my $queue    = $self->{queue};
    my $deadline = defined $timeout && $timeout != 'inf' ? clock_gettime(CLOCK_MONOTONIC) + $timeout : undef;
    until (@$queue || $self->{is_over}) {
        next if $self->{channel}->turn($deadline);
        last if @$queue || $self->{is_over} || $self->{channel}->ended;
        IOKernel::Timeout->throw("no request within $timeout s", status => STATUS_TIMEOUT);
    }
    return shift @$queue;
}

sub serve ($self, $handler) {
    if ($self->{channel}->is_watched) {
        $self->{handler} = $handler;
        $self->_take_all([]);
        return $self;
    }
    while (my $request = $self->next) {
        $self->_handle($handler, $request);
    }
    return $self;
}

# What the handler returns is the reply; in a loop, what a promise that it returns becomes.
sub _handle ($self, $handler, $request) {
    my $value;
    my $is_done = eval {
        $value = $handler->($request);
        $value = $value->get if blessed $value && $value->isa('IOKernel::Future');
        1;
    };
    return $self->_failed($request, $@) unless $is_done;
    if ($self->{loop} && blessed $value) {
        my $answer = sub ($later = undef, @) { $self->_answer($request, $later) };
        my $refuse = sub ($error, @) { $self->_failed($request, $error) };
        return if $self->{loop}->_follow($value, $answer, $refuse);
    }
    $self->_answer($request, $value);
    return;
}

sub _answer ($self, $request, $value) {
    return if $request->is_settled || $request->is_begun;
    eval { $request->reply($value); 1 } or $self->_failed($request, $@);
    return;
}

sub _failed ($self, $request, $error) {
    return if $self->{is_over};
    my @said = ('ERR', 'the handler failed');
    if (ref $error && $error->isa('IOKernel::RemoteError')) {
        @said = ($error->code || 'ERR', $error->message);
    } else {
        warn "iokernel: a request's handler failed: $error";
    }
    eval { $request->error(@said); 1 };
    return;
}

# What nobody waits for.
sub _submit ($self, $op, $payload, $key, $tag) {
    if ($self->{is_over}) {
        my %about = (status => STATUS_CLOSED, fate => 'not_sent', endpoint => $self->{url});
        IOKernel::Closed->throw('the listener is closed', %about);
    }
    $self->{channel}->submit($op, FLAG_QUIET, $self->{number}, 0, $key, $payload, undef, undef, $tag);
    $self->{channel}->send_now;
    return;
}

sub _forget ($self, $tag) {
    delete $self->{live}{$tag};
    return;
}

sub state ($self) {
    return $self->{kernel}->block(OP_STATE, $self->{number}, '')->value;
}

# With `drain` it leaves politely; inside of a loop, await what it returns then.
sub close ($self, $drain = undef, $delay = 0) {
    return if $self->{is_over};
    my $channel = $self->{channel};
    return $self->_closed if $self->{kernel}->is_closed || $channel->ended || !ord $IOKernel::Process::HERE;
    my $timeout_ms = defined $drain ? timeout_ms($drain || 0.001) : 0;
    my $future     = IOKernel::Future->new($channel);
    $channel->submit(OP_CLOSE, 0, $self->{number}, $timeout_ms, int 1000 * $delay, '', $future);
    $channel->flush;
    if (defined $drain && $self->{loop}) {
        return $self->{loop}->promise($future->on_ready(sub ($done) { $self->_closed }));
    }
    $channel->await($future);
    my $why = $future->failure;
    $self->_closed;
    die $why->located if $why && !$why->isa('IOKernel::Closed') && !$why->isa('IOKernel::Timeout');
    return;
}

sub _closed ($self) {
    $self->_ended;
    $self->{channel}->close;
    return;
}

# Nothing comes any more.
sub _ended ($self) {
    $self->{is_over} = 1;
    defined $_ and $_->_lose for values $self->{live}->%*;
    $self->{live} = {};
    return;
}

sub DESTROY ($self) {
    return if ${^GLOBAL_PHASE} eq 'DESTRUCT' || !$self->{channel};
    local ($@, $!, $?);
    eval { $self->close; 1 } or warn "iokernel: a listener could not be closed: $@";
    return;
}

1;
