package IOKernel::Completion;

# One completion, its payload whole: a hash of kind, endpoint, status, tag, peer, fate, encoding, payload.

use v5.36;

use IOKernel::Error;
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

# `names`: the URLs of endpoints by their numbers.
sub error ($self, $names) {
    return IOKernel::Error->of_status(
        $self->{status},
        fate     => $self->{fate},
        endpoint => $names->{ $self->{endpoint} },
        peer     => $self->{peer},
        said     => scalar eval { $self->value },
    );
}

1;
