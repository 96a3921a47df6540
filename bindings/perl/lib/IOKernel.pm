package IOKernel;

use v5.36;

use IOKernel::Error;
use IOKernel::Kernel;
use IOKernel::Library;
use IOKernel::Values;

our $VERSION = '0.1.0';

use constant EXIT_DRAIN_S => 0.2;

my $default;

sub CLONE {
    # Another thread's kernel is used, and closed by who made it.
    return;
}

sub kernel ($class) {
    if (!$default || $default->is_closed) {
        $default = IOKernel::Kernel->new(name => 'iokernel', admin => $ENV{IOKERNEL_ADMIN} || undef);
    }
    return $default;
}

sub open      ($class, $url, %options)  { return $class->kernel->open($url, %options) }
sub listen    ($class, $url, %options)  { return $class->kernel->listen($url, %options) }
sub counter   ($class, $name, %about)   { return $class->kernel->counter($name, %about) }
sub sum       ($class, $name, %about)   { return $class->kernel->sum($name, %about) }
sub gauge     ($class, $name, %about)   { return $class->kernel->gauge($name, %about) }
sub histogram ($class, $name, %about)   { return $class->kernel->histogram($name, %about) }
sub marker    ($class, $text)           { return $class->kernel->marker($text) }
sub text      ($class, $string)         { return IOKernel::Values::text($string) }
sub bytes     ($class, $string)         { return IOKernel::Values::bytes($string) }

# What is under way may finish for a moment.
END {
    if ($default && !$default->is_closed && !$default->{is_borrowed} && ord $IOKernel::Process::HERE) {
        local ($@, $!, $?);
        eval { $default->close(EXIT_DRAIN_S); 1 };
    }
}

1;
