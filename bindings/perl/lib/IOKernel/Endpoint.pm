package IOKernel::Endpoint;

use v5.36;

use parent 'IOKernel::Caller';

use IOKernel::Error;
use IOKernel::Lease;
use IOKernel::Record qw(:all);
use IOKernel::Subscription;
use IOKernel::URL qw(shown);
use IOKernel::Values qw(pack_value packer_for text);

our $VERSION = '0.1.0';

sub new ($class, $kernel, $url) {
    my $self = bless { kernel => $kernel, url => $url, key => 0, loop => undef, pack => packer_for($url) }, $class;
    $self->_numbered($kernel->open_number($url));
    IOKernel::Process::watch($self);
    return $self;
}

# The same endpoint for a loop: its requests give what the loop awaits.
sub in ($self, $loop) {
    my $bound = bless { kernel => $self->{kernel}, origin => $self->_origin, key => 0, loop => $loop }, ref $self;
    $bound->{pack} = $self->{pack};
    $bound->_numbered($self->_number);
    IOKernel::Process::watch($bound);
    return $bound;
}

sub url    ($self) { return shown($self->_origin->{url}) }
sub kernel ($self) { return $self->{kernel} }
sub loop   ($self) { return $self->{loop} }
sub number ($self) { return $self->_number }

sub _origin ($self) { return $self->{origin} // $self }

# Its number in the kernel. Opens it in this process if that has not happened.
sub _number ($self) {
    ord $IOKernel::Process::HERE or IOKernel::Process::begin_anew();
    my $origin = $self->_origin;
    if ($origin->{closed}) {
        IOKernel::Closed->throw(
            'the endpoint is closed',
            status   => STATUS_CLOSED,
            fate     => 'not_sent',
            endpoint => $self->url,
        );
    }
    if (!$origin->{number}) {
        $origin->_numbered($self->{kernel}->open_number($origin->{url}));
        $self->{kernel}->block(OP_PEERS, $origin->{number}, $origin->{told}) if defined $origin->{told};
    }
    return $self->_numbered($origin->{number});
}

sub _forked ($self) {
    $self->_numbered(0);
    return;
}

sub _cloned ($self) { return }

sub subscribe ($self, @request) {
    return IOKernel::Subscription->subscribe($self, @request);
}

sub watch ($self, %options) {
    return IOKernel::Subscription->watch($self->{kernel}, $self->_number, %options, loop => $self->{loop});
}

sub lease ($self, @arguments) {
    my $block = ref $arguments[0] eq 'CODE' ? shift @arguments : undef;
    my $lease = IOKernel::Lease->new($self, @arguments);
    return $lease->acquire unless $block;
    my $held       = $lease->acquire;
    my $wants_list = wantarray;
    my @values;
    my $is_done = eval { @values = $wants_list ? $block->($held) : scalar $block->($held); 1 };
    my $why     = $@;
    $held->release;
    die $why unless $is_done;
    return $wants_list ? @values : $values[0];
}

sub set_peers ($self, @peers) {
    my $told = pack_value([map { _peer($_) } @peers]);
    $self->{kernel}->block(OP_PEERS, $self->_number, $told);
    $self->_origin->{told} = $told;
    return;
}

# Texts, and numbers where they are.
sub _peer ($peer) {
    return text($peer) unless ref $peer eq 'HASH';
    return { map { $_ => $peer->{$_} =~ /\A[0-9]+\z/a ? 0 + $peer->{$_} : text($peer->{$_}) } keys %$peer };
}

sub wait_ready ($self, $timeout = undef) {
    return $self->{kernel}->wait_until_up($self->_number, timeout_ms($timeout));
}

sub state ($self) {
    return $self->{kernel}->block(OP_STATE, $self->_number, '')->value;
}

sub close ($self) {
    my $origin = $self->_origin;
    return if $origin->{closed}++;
    my $number = $origin->{number};
    $_->_numbered(0) for $self, $origin;
    return if !$number || $self->{kernel}->is_closed || !ord $IOKernel::Process::HERE;
    return if eval { $self->{kernel}->block(OP_CLOSE, $number, ''); 1 };
    die $@ unless ref $@ && $@->isa('IOKernel::Closed');
    return;
}

sub is_closed ($self) { return !!$self->_origin->{closed} }

sub DESTROY ($self) {
    IOKernel::Process::forget($self);
    return;
}

1;
