package IOKernel::Test::Admin;

# Asks the admin endpoint of a process from another one, while the first hangs.

use v5.36;

use Exporter 'import';
use IO::Socket::UNIX;
use POSIX ();
use Time::HiRes qw(sleep);

our @EXPORT_OK = qw(ask ask_while);

# The body that a unix socket answers to GET.
sub ask ($socket, $path) {
    my $conn = IO::Socket::UNIX->new(Peer => $socket) or die "$socket: $!\n";
    print $conn "GET $path HTTP/1.0\r\n\r\n";
    local $/;
    my (undef, $body) = split /\r\n\r\n/, <$conn> // '', 2;
    return $body // '';
}

# A busy machine may let a thread miss its time: then it is asked again.
sub patiently ($socket, $path) {
    my $said;
    for (1 .. 20) {
        $said = ask($socket, $path);
        last if $said !~ /has not answered|was cut short/;
        sleep 0.02;
    }
    return $said;
}

# What a child is told `after` seconds, while `hang` runs here.
sub ask_while ($socket, $path, $after, $hang) {
    pipe my $read, my $write or die "pipe: $!\n";
    my $child = fork // die "fork: $!\n";
    if (!$child) {
        sleep $after;
        my $said = eval { patiently($socket, $path) } // "$@";
        syswrite $write, $said;
        POSIX::_exit(0);
    }
    close $write;
    $hang->();
    local $/;
    my $said = <$read>;
    waitpid $child, 0;
    return $said;
}

1;
