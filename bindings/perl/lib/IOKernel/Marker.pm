package IOKernel::Marker;

# What the program is doing: text in the thread's slot of shared memory, entered and left by plain stores.
#
# The slot is the header's `iok_markers`: 64 bytes of a head (tid, current, last, overflows), then 15 places of 64 bytes
# (serial, length, 56 bytes of text).

use v5.36;

use IOKernel::Library;
use IOKernel::Process;

our $VERSION = '0.1.0';

use constant {
    PLACES      => 15,
    PLACE_BYTES => 64,
    TEXT_BYTES  => 56,
    ACTIVE      => 1 << 31,
    COUNT_MASK  => (1 << 26) - 1,
};

# This thread's slots by its kernels' handles, and which markers it is in there, the innermost last.
my %slots;
my %entered;

sub CLONE { (%slots, %entered) = (); return }

# Enters one, which is left when the object goes, or by `leave`.
sub new ($class, $kernel, $text) {
    my $handle = $kernel->_handle;
    my $slot   = _slot($handle);
    my $self   = bless { kernel => $kernel, handle => $handle, slot => $slot, place => undef, serial => 0 }, $class;
    $self->{thread} = $IOKernel::Process::THREAD;
    $kernel->flush;    # Requests go with the marker that they were made in.
    $self->_enter(_shown($text)) if $slot;
    push $entered{$handle}->@*, $self->{serial};
    return $self;
}

# As UTF-8, cut at the start of a character.
sub _shown ($text) {
    utf8::encode($text) if utf8::is_utf8($text) || $text =~ /[^\x00-\x7F]/;
    $text =~ tr/\0/ /;
    return $text if length $text <= TEXT_BYTES;
    my $cut = substr $text, 0, TEXT_BYTES;
    $cut =~ s/(?:[\xC0-\xFF][\x80-\xBF]*)\z// if substr($text, TEXT_BYTES, 1) =~ /[\x80-\xBF]/;
    return $cut;
}

# The address of this thread's slot; 0 if there is none: then nothing is shown of it.
sub _slot ($handle) {
    my $slot = $slots{$handle};
    return $slot if $slot && _halves($slot, 1);
    my $out = IOKernel::Library::allocate(1);
    my $status = IOKernel::Library::marker_slot($handle, $out);
    ($slot) = $status ? 0 : IOKernel::Library::words($out, 1);
    IOKernel::Library::free($out);
    # Those that a fork left behind have no place here.
    $entered{$handle} = [];
    return $slots{$handle} = $slot;
}

sub _halves ($address, $count) {
    return unpack 'L*', unpack 'P' . 4 * $count, pack 'J', $address;
}

# Takes the place that was left first, as the header says.
sub _enter ($self, $text) {
    my $slot = $self->{slot};
    my (undef, undef, $last, $overflows) = _halves($slot, 4);
    my $count  = $last + 1 & COUNT_MASK || 1;
    my $serial = $last & ~COUNT_MASK | $count;
    my $place;
    for my $each (0 .. PLACES - 1) {
        my $address = $slot + PLACE_BYTES * (1 + ($count + $each) % PLACES);
        my (undef, $length) = _halves($address, 2);
        next if $length & ACTIVE;
        $place = $address;
        last;
    }
    if (!$place) {
        IOKernel::Library::store($slot + 12, pack('L', $overflows + 1), 4);
        return;
    }
    IOKernel::Library::store($slot + 8, pack('L', $serial), 4);
    IOKernel::Library::store($place,     pack('Q', 0), 8);
    IOKernel::Library::store($place + 8, $text, length $text);
    IOKernel::Library::store($place,     pack('L L', $serial, length($text) | ACTIVE), 8);
    IOKernel::Library::store($slot + 4,  pack('L', $serial), 4);
    @$self{qw(place serial)} = ($place, $serial);
    return;
}

# Leaves it. Twice is harmless.
sub leave ($self) {
    my $serial = delete $self->{serial};
    return unless defined $serial && ord $IOKernel::Process::HERE && $self->{thread} == $IOKernel::Process::THREAD;
    $self->{kernel}->flush;
    my $around = $entered{ $self->{handle} } // [];
    for my $at (reverse 0 .. $#$around) {
        next if $around->[$at] != $serial;
        splice @$around, $at, 1;
        last;
    }
    my $place = $self->{place} or return;
    my ($now, $length) = _halves($place, 2);
    IOKernel::Library::store($place, pack('L L', $serial, $length & ~ACTIVE), 8) if $now == $serial;
    my ($inner) = grep { $_ } reverse @$around;
    IOKernel::Library::store($self->{slot} + 4, pack('L', $inner // 0), 4);
    return;
}

sub DESTROY ($self) {
    $self->leave if ${^GLOBAL_PHASE} ne 'DESTRUCT';
    return;
}

1;
