package IOKernel::Cells;

# Counters, sums, gauges and histograms: cells of shared memory that count without a call into the library.
#
# A cell is 8 aligned bytes. It is read through a scalar that is a window onto it, and written by memcpy of 8 bytes,
# which the C library does by one store: readers see the value before or the value after. Adding is a load and a store,
# so that one thread at a time may add to a series; where `threads` was loaded before, a lock sees to that.

use v5.36;

use FFI::Platypus::Buffer qw(window);
use Scalar::Util qw(looks_like_number);

use IOKernel::Error;
use IOKernel::Library;
use IOKernel::Record qw(STATUS_BAD_CONFIG);
use IOKernel::URL qw(quote);

our $VERSION = '0.1.0';

use constant DEFAULT_BUCKETS => [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10];

my %OPTIONS = map { $_ => 1 } qw(help unit labels buckets merge);

my $lock = 0;
if ($INC{'threads.pm'}) {
    require threads::shared;
    threads::shared::share(\$lock);
}

# `about`: help, unit, labels (a hash), and what the kind has beside them.
sub new ($class, $kernel, $name, %about) {
    for my $option (sort keys %about) {
        next if $OPTIONS{$option};
        my $known = join ', ', sort keys %OPTIONS;
        die IOKernel::Error->of_status(STATUS_BAD_CONFIG, text => qq($option: "": expected one of $known), fate => 1)
            ->located;
    }
    my $labels = $about{labels} // {};
    my %spec   = (
        kind => $class->_kind,
        name => $name,
        unit => $about{unit} // '',
        help => $about{help} // '',
        map { ("label.$_" => $labels->{$_}) } keys %$labels,
    );
    $spec{merge} = $about{merge} if defined $about{merge};
    my $bounds = $about{buckets};
    if ($spec{kind} eq 'histogram') {
        $bounds //= DEFAULT_BUCKETS;
        $spec{buckets} = join ',', @$bounds;
    }
    my $self = bless { kernel => $kernel, name => $name, labels => {%$labels}, spec => \%spec }, $class;
    $self->{bounds} = $bounds;
    $self->_attach;
    return $self;
}

sub name   ($self) { return $self->{name} }
sub labels ($self) { return { $self->{labels}->%* } }

# Where the cells are. A forked child has the same addresses: its own cells are behind them.
sub _attach ($self) {
    my $spec   = $self->{spec};
    my $text   = join '&', map { quote($_) . '=' . quote($spec->{$_}) } sort keys %$spec;
    my $out    = IOKernel::Library::allocate(2);
    my $status = IOKernel::Library::cells($self->{kernel}->_handle, $text, $out, $out + 8);
    my $why    = $status ? IOKernel::Library::last_text() : '';
    my ($address, $count) = IOKernel::Library::words($out, 2);
    IOKernel::Library::free($out);
    die IOKernel::Error->of_status($status, text => $why, fate => 1)->located if $status;
    @$self{qw(address count)} = ($address, $count & 0xFFFF_FFFF);
    window my $memory, $address, 8 * $self->{count};
    $self->{memory} = \$memory;
    return;
}

# Adds to a cell: whole numbers (`Q`), or doubles (`d`).
sub _add ($self, $cell, $type, $more) {
    lock $lock;
    my $at = 8 * $cell;
    IOKernel::Library::store($self->{address} + $at, pack($type, $more + unpack "x$at $type", $self->{memory}->$*), 8);
    return;
}

sub _finite ($self, $what, $value) {
    return $value if looks_like_number($value) && $value - $value == 0;
    die IOKernel::Error->of_value(qq($what: "$value": expected a finite number))->located;
}

sub _growing ($self, $more) {
    return $more if $self->_finite(inc => $more) >= 0;
    die IOKernel::Error->of_value(qq(inc: "$more": below 0: what counts only grows))->located;
}

package IOKernel::Counter {
    our @ISA = 'IOKernel::Cells';

    sub _kind ($class) { return 'counter' }

    sub inc ($self, $more = 1) {
        if ($more !~ /\A[0-9]+\z/a || length $more > 18) {
            die IOKernel::Error->of_value(qq(inc: "$more": expected a whole number from 0 on))->located;
        }
        return $self->_add(0, Q => $more);
    }

    sub value ($self) { return unpack 'Q', $self->{memory}->$* }
}

package IOKernel::Sum {
    our @ISA = 'IOKernel::Cells';

    sub _kind ($class) { return 'sum' }
    sub inc   ($self, $more = 1) { return $self->_add(0, d => $self->_growing($more)) }
    sub value ($self) { return unpack 'd', $self->{memory}->$* }
}

package IOKernel::Gauge {
    our @ISA = 'IOKernel::Cells';

    sub _kind ($class) { return 'gauge' }
    sub inc   ($self, $more = 1) { return $self->_add(0, d => $self->_finite(inc => $more)) }
    sub dec   ($self, $less = 1) { return $self->_add(0, d => -$self->_finite(dec => $less)) }
    sub value ($self) { return unpack 'd', $self->{memory}->$* }

    sub set ($self, $value) {
        IOKernel::Library::store($self->{address}, pack('d', $value), 8);
        return;
    }
}

package IOKernel::Histogram {
    use Time::HiRes qw(clock_gettime CLOCK_MONOTONIC);

    our @ISA = 'IOKernel::Cells';

    sub _kind ($class) { return 'histogram' }

    sub observe ($self, $value) {
        $self->_finite(observe => $value);
        my $bounds = $self->{bounds};
        my ($low, $high) = (0, scalar @$bounds);
        while ($low < $high) {
            my $middle = $low + $high >> 1;
            $bounds->[$middle] < $value ? ($low = $middle + 1) : ($high = $middle);
        }
        $self->_add($low, Q => 1);
        return $self->_add($self->{count} - 1, d => $value);
    }

    # Calls the code and observes how long it took, in seconds, also when it dies.
    sub time ($self, $code) {
        my $start      = clock_gettime(CLOCK_MONOTONIC);
        my $wants_list = wantarray;
        my @values;
        my $is_done = eval { @values = $wants_list ? $code->() : scalar $code->(); 1 };
        my $why     = $@;
        $self->observe(clock_gettime(CLOCK_MONOTONIC) - $start);
        die $why unless $is_done;
        return $wants_list ? @values : $values[0];
    }
}

1;
