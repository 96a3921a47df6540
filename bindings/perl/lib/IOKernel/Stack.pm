package IOKernel::Stack;

# Lets the admin endpoint's /stack show Perl frames. Perl runs handlers of %SIG between its ops, so the frames come when
# it does: from a loop in Perl at once, from inside a C call never, and there the library's native frames tell.

use v5.36;

use Config;
use POSIX ();

use IOKernel::Error;
use IOKernel::Library;

our $VERSION = '0.1.0';

use constant {
    LATE       => 1,
    FRAMES_MAX => 200,
};

my @SIGNALS = split ' ', $Config{sig_name};

# The descriptor that frames are written to, and the name of the signal that asks for them.
my ($fd, $signal) = (-1, '');

# Opens the door to this process's stacks for a kernel. Without it, /stack says what is missing.
sub begin ($handle) {
    my $out    = IOKernel::Library::allocate(2);
    my $status = IOKernel::Library::stack_open($handle, $out, $out + 8);
    my ($number, $to) = map { $_ & 0xFFFF_FFFF } IOKernel::Library::words($out, 2);
    IOKernel::Library::free($out);
    return if $status;
    ($fd, $signal) = ($to, $SIGNALS[$number]);
    $SIG{$signal} = \&_tell;
    IOKernel::Library::stack_arm($handle, LATE);
    return;
}

# Before the kernel is closed.
sub end ($handle) {
    my $out    = IOKernel::Library::allocate(1);
    my $status = IOKernel::Library::stack_close($handle, $out);
    my ($word) = IOKernel::Library::words($out, 1);
    IOKernel::Library::free($out);
    forget() if !$status && $word & 0xFF;
    return;
}

# Takes the handler away. In a forked child: the descriptor that it would write to is closed.
sub forget () {
    return if $fd < 0;
    my $was = $SIG{$signal};
    $SIG{$signal} = 'DEFAULT' if ref $was && $was == \&_tell;
    ($fd, $signal) = (-1, '');
    return;
}

# The handler. No argument of any call is told: there may be secrets among them.
sub _tell ($name) {
    local ($!, $@);
    my $told = '';
    # Perl calls handlers inside of an eval of its own.
    my ($level, undef, $file, $line) = (1, caller 1);
    while ($level++ < FRAMES_MAX) {
        my @frame = caller $level;
        my $within = @frame ? $frame[3] : 'main';
        $told .= qq(  File "$file", line $line in $within\n);
        last unless @frame;
        ($file, $line) = @frame[1, 2];
    }
    utf8::encode($told) if utf8::is_utf8($told);
    POSIX::write($fd, "$told\0", 1 + length $told) if $fd >= 0;
    return;
}

1;
