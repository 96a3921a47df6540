package IOKernel::Completion;

# One completion, its payload whole: a hash of kind, endpoint, status, tag, peer, fate, encoding, payload.

use v5.36;

use IOKernel::Error;
use IOKernel::Future;
use IOKernel::Record qw(ENCODING_NONE KIND_DONE);
use IOKernel::Values qw(decode);

our $VERSION = '0.1.0';

sub new ($class, $kind, $endpoint, $status, $tag, $peer, $fate, $encoding, $payload) {
    return bless {
        kind     => $kind,
        endpoint => $endpoint,
        status   => $status,
        tag      => $tag,
        peer     => $peer,
        fate     => $fate,
        encoding => $encoding,
        payload  => $payload,
    }, $class;
}

# What the kernel would say, had it been asked.
sub of_status ($class, $status, $endpoint, $tag, $fate) {
    return $class->new(KIND_DONE, $endpoint, $status, $tag, 0, $fate, ENCODING_NONE, '');
}

sub value ($self) { return decode(@$self{qw(encoding payload)}) }

# State and value of the future that waited for it.
sub outcome ($self, $names) {
    return (IOKernel::Future::FAILED, $self->error($names)) if $self->{status};
    my ($value, $why) = $self->_decoded;
    return defined $why ? (IOKernel::Future::FAILED, $why) : (IOKernel::Future::DONE, $value);
}

# The value, or undef and why there is none. What a signal's handler dies of is not ours to keep.
sub _decoded ($self) {
    my $value;
    return $value if eval { $value = $self->value; 1 };
    die $@ if ref $@ || $@ !~ /^MessagePack: /;
    return (undef, $@);
}

# `names`: the URLs of endpoints by their numbers.
sub error ($self, $names) {
    return IOKernel::Error->of_status(
        $self->{status},
        fate     => $self->{fate},
        endpoint => $names->{ $self->{endpoint} },
        peer     => $self->{peer},
        said     => ($self->_decoded)[0],
    );
}

1;
