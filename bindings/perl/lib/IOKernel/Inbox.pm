package IOKernel::Inbox;

# What takes every completion of a tag, or of a listener: the channel puts them here, whole, and tells the owner.

use v5.36;

use Scalar::Util qw(weaken);

our $VERSION = '0.1.0';

use constant {
    COMPLETIONS => 0,
    OWNER       => 1,
};

# The owner, which is not kept, has a method `_take_all($completions)`; it shifts off what it has taken. Without one the
# completions stay here.
sub new ($class, $owner) {
    my $self = bless [[], $owner], $class;
    weaken($self->[OWNER]) if $owner;
    return $self;
}

sub told ($self) {
    $self->[OWNER]->_take_all($self->[COMPLETIONS]) if $self->[OWNER];
    return;
}

1;
