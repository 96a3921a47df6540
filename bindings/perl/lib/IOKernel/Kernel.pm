package IOKernel::Kernel;

use v5.36;

use IOKernel::Cells;
use IOKernel::Channel;
use IOKernel::Endpoint;
use IOKernel::Error;
use IOKernel::Future;
use IOKernel::Library;
use IOKernel::Listener;
use IOKernel::Marker;
use IOKernel::Native;
use IOKernel::Process;
use IOKernel::Record qw(:all);
use IOKernel::Stack;
use IOKernel::Subscription;
use IOKernel::URL qw(query shown with_options);

our $VERSION = '0.1.0';

sub new ($class, %config) {
    my $stack   = delete $config{stack};
    my $channel = delete $config{channel};
    my $self    = bless {
        stack          => $stack // !!$config{admin},
        config         => query(\%config),
        channel_config => ref $channel ? query($channel) : $channel // '',
        closed         => 0,
    }, $class;
    $self->_reset;
    $self->_handle;
    IOKernel::Process::watch($self);
    return $self;
}

# Nothing of a process is left: it opens again at its first use.
sub _reset ($self) {
    @$self{qw(handle channel names is_borrowed)} = (0, undef, {}, 0);
    return;
}

sub _handle ($self) {
    ord $IOKernel::Process::HERE or IOKernel::Process::begin_anew();
    return $self->{handle} if $self->{handle};
    if ($self->{closed}) {
        my $text = 'the kernel is closed';
        die IOKernel::Error->of_status(STATUS_CLOSED, fate => 1, text => $text)->located;
    }
    $self->{handle} = _out(sub ($cells) { IOKernel::Library::kernel_open($self->{config}, $cells) });
    IOKernel::Stack::begin($self->{handle}) if $self->{stack};
    return $self->{handle};
}

# What a call gave through a pointer to a word. Throws what it failed with.
sub _out ($call) {
    my $cells  = IOKernel::Library::allocate(1);
    my $status = $call->($cells);
    my $text   = $status ? IOKernel::Library::last_text() : '';
    my ($word) = IOKernel::Library::words($cells, 1);
    IOKernel::Library::free($cells);
    die IOKernel::Error->of_status($status, fate => 1, text => $text)->located if $status;
    return $word;
}

# Channels

# A channel of nobody in particular.
sub open_channel ($self) {
    return IOKernel::Channel->new($self->_handle, $self->{names}, $self->{channel_config});
}

# The channel of this thread, for what blocks.
sub thread_channel ($self) {
    ord $IOKernel::Process::HERE or IOKernel::Process::begin_anew();
    my $channel = $self->{channel};
    return $channel if $channel && !$channel->ended;
    return $self->{channel} = $self->open_channel;
}

# Sends what this thread has gathered.
sub flush ($self) {
    $self->{channel}->flush if $self->{channel};
    return;
}

# One operation, waiting for its end. Its completion; throws what it failed with.
sub block ($self, $op, $endpoint, $payload, %how) {
    return $self->thread_channel->operate($op, $how{flags} // 0, $endpoint, $how{timeout_ms} // 0, 0, $payload);
}

# Opens a service. Its number.
sub open_number ($self, $url) {
    my $bytes = $url;
    utf8::encode($bytes);
    my $number = $self->block(OP_OPEN, 0, $bytes)->{endpoint};
    $self->{names}{$number} = shown($url);
    return $number;
}

# The surface

sub open ($self, $url, %options) {
    return IOKernel::Endpoint->new($self, with_options($url, \%options));
}

sub listen ($self, $url, %options) {
    return IOKernel::Listener->new($self, $self->open_channel, with_options($url, \%options));
}

sub counter   ($self, $name, %about) { return IOKernel::Counter->new($self, $name, %about) }
sub sum       ($self, $name, %about) { return IOKernel::Sum->new($self, $name, %about) }
sub gauge     ($self, $name, %about) { return IOKernel::Gauge->new($self, $name, %about) }
sub histogram ($self, $name, %about) { return IOKernel::Histogram->new($self, $name, %about) }
sub marker    ($self, $text)         { return IOKernel::Marker->new($self, $text) }

sub state ($self) {
    return $self->block(OP_STATE, 0, '')->value;
}

sub watch ($self, %options) {
    return IOKernel::Subscription->watch($self, 0, %options);
}

sub wait_ready ($self, $timeout = undef) {
    return $self->wait_until_up(0, timeout_ms($timeout // 'inf'));
}

# Waits until an endpoint is up; 0: every one that must be. A wait that timed out says why it is not.
sub wait_until_up ($self, $endpoint, $timeout_ms) {
    return if eval { $self->block(OP_STATE, $endpoint, '', flags => FLAG_UNTIL_UP, timeout_ms => $timeout_ms); 1 };
    my $error = $@;
    die $error unless ref $error && $error->isa('IOKernel::Timeout');
    IOKernel::Unavailable->throw(
        $error->message,
        code     => $error->code,
        status   => STATUS_UNAVAILABLE,
        fate     => 'not_sent',
        endpoint => $error->endpoint,
    );
}

sub close ($self, $drain = 0) {
    ord $IOKernel::Process::HERE or IOKernel::Process::begin_anew();
    $self->{closed} = 1;
    my $handle = $self->{handle} or return;
    $self->{handle} = 0;
    $self->flush;
    IOKernel::Stack::end($handle) if $self->{stack};
    my $status = IOKernel::Library::kernel_close($handle, 1000 * $drain);
    my $text   = $status ? IOKernel::Library::last_text() : '';
    if (my $channel = $self->{channel}) {
        1 while $channel->poll;
    }
    return if !$status || $status == STATUS_BAD_HANDLE || $status == STATUS_FORKED;
    die IOKernel::Error->of_status($status, text => $text)->located;
}

sub is_closed ($self) { return !!$self->{closed} }

# A forked child begins anew; a thread has the kernel of the one that made it, and channels of its own.
sub _forked ($self) {
    IOKernel::Stack::forget();
    $self->_reset;
    return;
}

sub _cloned ($self) {
    @$self{qw(channel is_borrowed)} = (undef, 1);
    return;
}

sub DESTROY ($self) {
    IOKernel::Process::forget($self);
    return if ${^GLOBAL_PHASE} eq 'DESTRUCT' || !$self->{handle} || $self->{is_borrowed};
    return unless ord $IOKernel::Process::HERE;
    local ($@, $!, $?);
    eval { $self->close; 1 } or warn "iokernel: a kernel could not be closed: $@";
    return;
}

1;
