package IOKernel::Inbox;

# What takes every completion of a tag, or of a listener: the channel puts them here, whole, and tells the owner.

use v5.36;

use Scalar::Util qw(weaken);

our $VERSION = '0.1.0';

use constant {
    COMPLETIONS => 0,
    OWNER       => 1,
};

# The owner, which is not kept, has a method `_take_all($completions)`; it shifts off what it has taken.
sub new ($class, $owner) {
    my $self = bless [[], $owner], $class;
    weaken($self->[OWNER]);
    return $self;
}

sub told ($self) {
    my $owner = $self->[OWNER];
    return $owner ? $owner->_take_all($self->[COMPLETIONS]) : splice $self->[COMPLETIONS]->@*;
}

1;
