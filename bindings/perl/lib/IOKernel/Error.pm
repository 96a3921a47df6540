package IOKernel::Error;

use v5.36;

use IOKernel::Library;

our $VERSION = '0.1.0';

use overload
    '""'     => sub ($self, @) { $self->as_string },
    'bool'   => sub { 1 },
    fallback => 1;

my @FATES = (undef, 'not_sent', 'maybe_executed', 'replied');

my %KINDS = (
    -101 => 'BadRequest',
    -102 => 'Closed',
    -103 => 'Closed',
    -104 => 'Closed',
    -105 => 'ConfigError',
    -106 => 'BadRequest',
    -107 => 'BadRequest',
    -108 => 'BadRequest',
    -109 => 'Closed',
    -110 => 'Closed',
    -111 => 'Closed',
    -201 => 'Overloaded',
    -202 => 'Timeout',
    -203 => 'Cancelled',
    -204 => 'Overloaded',
    -206 => 'Overloaded',
    -301 => 'RemoteError',
    -302 => 'ConnectionLost',
    -303 => 'Unavailable',
    -304 => 'ConnectionLost',
    -305 => 'Unavailable',
);

sub new ($class, $message, %fields) {
    my $self = bless { code => '', status => 0, %fields, message => $message }, $class;
    return $self;
}

sub throw ($class, $message, %fields) {
    die $class->new($message, %fields)->located;
}

# The error of a status. `said` is a completion's payload, [code, message]; `text` stands in for it.
sub of_status ($class, $status, %about) {
    my ($code, $message) = ('', $about{text} // '');
    my $said = $about{said};
    if (ref $said eq 'IOKernel::RemoteError') {
        ($code, $message) = @$said{qw(code message)};
    } elsif (ref $said eq 'ARRAY' && @$said == 2) {
        ($code, $message) = map { "$_" } @$said;
    }
    $message = IOKernel::Library::status_text($status) unless length $message;
    my $kind = exists $KINDS{$status} ? "IOKernel::$KINDS{$status}" : __PACKAGE__;
    return $kind->new(
        $message,
        code     => $code,
        status   => $status,
        fate     => $FATES[$about{fate} // 0],
        endpoint => $about{endpoint},
        peer     => $about{peer} || undef,
    );
}

# What to throw when a value cannot be packed.
sub of_value ($class, $why) {
    return IOKernel::BadRequest->new("value: $why", code => 'BADREQUEST', status => -107, fate => 'not_sent');
}

# Remembers which line of the program it came to.
sub located ($self) {
    my $level = 0;
    while (my ($package, $file, $line) = caller $level++) {
        next if $package =~ /^IOKernel(?:::|$)/a;
        @$self{qw(file line)} = ($file, $line);
        last;
    }
    return $self;
}

sub message  ($self) { return $self->{message} }
sub code     ($self) { return $self->{code} }
sub status   ($self) { return $self->{status} }
sub fate     ($self) { return $self->{fate} }
sub endpoint ($self) { return $self->{endpoint} }
sub peer     ($self) { return $self->{peer} }

sub status_name ($self) { return IOKernel::Library::status_name($self->{status}) =~ s/^IOK_STATUS_//r }
sub retriable   ($self) { return !!IOKernel::Library::status_retriable($self->{status}) }

sub as_string ($self) {
    my $place = defined $self->{file} ? " at $self->{file} line $self->{line}.\n" : '';
    return $self->_said . $place;
}

sub _said ($self) {
    my $fate  = $self->{fate} // '';
    my @notes = grep { length } $self->{endpoint} // '', $fate eq 'replied' ? '' : $fate =~ tr/_/ /r;
    return $self->{message} . (@notes ? ' (' . join(', ', @notes) . ')' : '');
}

package IOKernel::RemoteError {
    our @ISA = 'IOKernel::Error';
    sub _said ($self) { return join ' ', grep { length } @$self{qw(code message)} }
}

package IOKernel::Timeout        { our @ISA = 'IOKernel::Error' }
package IOKernel::Unavailable    { our @ISA = 'IOKernel::Error' }
package IOKernel::ConnectionLost { our @ISA = 'IOKernel::Error' }
package IOKernel::Overloaded     { our @ISA = 'IOKernel::Error' }
package IOKernel::Cancelled      { our @ISA = 'IOKernel::Error' }
package IOKernel::Closed         { our @ISA = 'IOKernel::Error' }

package IOKernel::BadRequest {
    our @ISA = 'IOKernel::Error';
    sub _said ($self) { return $self->{message} }
}

package IOKernel::ConfigError {
    our @ISA = 'IOKernel::BadRequest';

    sub new ($class, $message, %fields) {
        my $self = $class->SUPER::new($message, %fields);
        if (my ($key, $value, $expected) = $message =~ /^([^:]+): (.*?): expected (.*)/s) {
            @$self{qw(key value expected)} = ($key, $value =~ s/^["']|["']$//gr, $expected);
        }
        return $self;
    }

    sub key      ($self) { return $self->{key} }
    sub value    ($self) { return $self->{value} }
    sub expected ($self) { return $self->{expected} }
}

1;

__END__

=encoding utf8

=head1 NAME

IOKernel::Error - what can go wrong, and what is known of the request then

=head1 SYNOPSIS

    use IOKernel;

    eval { $cache->call({ timeout => 0.3 }, 'GET', 'key'); 1 } or do {
        my $error = $@;
        die $error unless ref $error && $error->isa('IOKernel::Unavailable');
        retry_later() if $error->fate eq 'not_sent';
    };

=head1 CLASSES

All are IOKernel::Error.

    IOKernel::RemoteError      the peer answered with an error; code and message are its words.
                               Inside a reply (a batch, a transaction) it is an element, not thrown
    IOKernel::Timeout          the deadline passed
    IOKernel::Unavailable      no connection in time, or the peer refused the handshake
    IOKernel::ConnectionLost   the connection went before the reply, or its peer broke the protocol
    IOKernel::Overloaded       a limit of the endpoint or the channel was reached
    IOKernel::Cancelled        the program ended it
    IOKernel::BadRequest       the call itself is wrong; nothing was sent
    IOKernel::ConfigError      a BadRequest: a URL or option is wrong; key, value, expected say which
    IOKernel::Closed           the kernel, endpoint, listener or lease is closed, or the process is another

=head1 METHODS

=over 4

=item message

A sentence for people. The object as a string has the endpoint, the fate and the line of the program as well.

=item code

A word for programs, such as C<WRONGTYPE>; empty if there is none.

=item status, status_name, retriable

The ABI's number (negative; 0 inside a reply), its name such as C<TIMEOUT>, and whether the same request may succeed
later.

=item fate

C<not_sent> (sending again is safe), C<maybe_executed>, C<replied>; undef where no request was.

=item endpoint, peer

The endpoint's URL without its secrets, and the number of the connection; undef if there was none.

=back

=cut
