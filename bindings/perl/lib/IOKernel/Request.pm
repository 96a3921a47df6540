package IOKernel::Request;

use v5.36;

use IOKernel::Error;
use IOKernel::Future;
use IOKernel::Record qw(:all);
use IOKernel::Values qw(pack_value text);

our $VERSION = '0.1.0';

use constant {
    # What may be sent before the kernel has said that it is on its way.
    SEND_AHEAD_BYTES => 256 << 10,
    # What is taken of a stream that has more in store is given back in portions of this.
    CREDIT_BYTES => 64 << 10,
};

sub new ($class, $listener, $tag, $peer, $arguments) {
    return bless {
        listener   => $listener,
        tag        => $tag,
        peer       => $peer,
        args       => $arguments,
        pieces     => [],
        taken      => 0,
        unsent     => 0,
        is_begun   => 0,
        is_settled => 0,
        is_lost    => 0,
        is_ended   => 0,
    }, $class;
}

sub args       ($self) { return $self->{args}->@* }
sub peer       ($self) { return $self->{peer} }
sub is_gone    ($self) { return !!$self->{is_lost} }
sub is_settled ($self) { return !!$self->{is_settled} }
sub is_begun   ($self) { return !!$self->{is_begun} }
sub last_word  ($self) { return $self->{last_word} }

# Its tag as a record's key.
sub _key ($self) { return unpack 'Q', $self->{tag} }

sub reply ($self, $value) {
    my $payload = pack_value($value);
    return if $self->{is_settled};
    $self->{is_settled} = 1;
    $self->_reply($payload);
    return;
}

sub error ($self, $code, $message) {
    my $error = IOKernel::RemoteError->new($message, code => $code);
    return $self->reply($error) unless $self->{is_begun};
    return if $self->{is_settled};
    $self->{is_settled} = 1;
    $self->{listener}->_submit(OP_SEND, pack_value($error), $self->_key, undef);
    $self->{listener}->_forget($self->{tag});
    return;
}

sub _reply ($self, $payload) {
    $self->{listener}->_submit(OP_REPLY, $payload, 0, $self->{tag});
    $self->{listener}->_forget($self->{tag}) if $self->{is_settled};
    return;
}

# A reply in parts.

sub begin ($self, $value) {
    $self->{is_begun} = 1;
    $self->_reply(pack_value($value));
    return;
}

sub send ($self, $value) {
    return $self->_send($value, SEND_AHEAD_BYTES);
}

sub finish ($self, $last = undef) {
    my $sent = $self->_send($last, 0);
    $self->{is_settled} = 1;
    $self->{listener}->_forget($self->{tag});
    return $sent;
}

# Sends one part; waits, outside of loops, until no more than `ahead` bytes are under way.
sub _send ($self, $value, $ahead) {
    my $payload = pack_value($value);
    $self->_check;
    my $channel = $self->{listener}{channel};
    my $sent    = IOKernel::Future->new($channel);
    my $weight  = length $payload;
    $self->{unsent} += $weight;
    $sent->on_ready(sub ($done) {
        $self->{unsent} -= $weight;
        my $failed = $done->[IOKernel::Future::STATE] == IOKernel::Future::FAILED;
        $self->{refused} //= $done->[IOKernel::Future::VALUE] if $failed;
    });
    $channel->submit(OP_SEND, 0, $self->{listener}{number}, 0, $self->_key, $payload, $sent);
    if ($channel->is_watched) {
        return $self->{listener}{loop}->promise($sent);
    }
    $channel->send_now;
    while ($self->{unsent} > $ahead && !$self->{is_lost} && !$self->{refused}) {
        $channel->turn(undef) or last;
    }
    $self->_check if $self->{unsent} > $ahead || $self->{refused};
    return;
}

sub _check ($self) {
    die $self->{refused}->located if $self->{refused};
    die $self->_left if $self->{is_lost};
    return if $self->{is_begun} && !$self->{is_settled};
    my $why = $self->{is_settled} ? 'the reply is over' : 'the reply has not begun: expected begin before';
    IOKernel::Closed->throw($why, status => STATUS_CLOSED, fate => 'not_sent');
}

sub _left ($self) {
    return IOKernel::Error->of_status(STATUS_LOST, fate => 2, text => 'the client has left')->located;
}

# The next piece of a request that comes in pieces; undef at its end.
sub next ($self) {
    my ($pieces, $channel) = ($self->{pieces}, $self->{listener}{channel});
    until (@$pieces || $self->{is_ended} || $self->{is_lost}) {
        $channel->turn(undef) or last;
    }
    if (my $piece = shift @$pieces) {
        $self->{taken} += length($piece->{payload}) || 1;
        $self->_credit if $self->{taken} >= CREDIT_BYTES || !@$pieces;
        return $piece->value;
    }
    die $self->_left unless $self->{is_ended};
    return undef;
}

# Gives back what was taken of the window.
sub _credit ($self) {
    return if $self->{is_lost};
    my $taken = $self->{taken};
    $self->{taken} = 0;
    $self->{listener}->_submit(OP_CREDIT, '', $self->_key, pack 'Q', $taken);
    return;
}

# What the listener hands over.
sub _take ($self, $completion) {
    my $kind = $completion->{kind};
    if ($kind == KIND_PUSH) {
        push $self->{pieces}->@*, $completion;
    } elsif ($kind == KIND_END) {
        @$self{qw(is_ended last_word)} = (1, $completion->value);
    } else {
        $self->_lose;
    }
    return;
}

# The client has left, or the listener has ended.
sub _lose ($self) {
    @$self{qw(is_settled is_lost)} = (1, 1);
    return;
}

# One that nobody can answer any more is answered.
sub DESTROY ($self) {
    return if ${^GLOBAL_PHASE} eq 'DESTRUCT' || $self->{is_settled} || !$self->{listener};
    local ($@, $!, $?);
    eval { $self->error('ERR', 'no reply was given'); 1 };
    return;
}

1;
