package IOKernel;

use v5.36;

use IOKernel::Error;
use IOKernel::Kernel;
use IOKernel::Library;
use IOKernel::Values;

our $VERSION = '0.1.0';

use constant EXIT_DRAIN_S => 0.2;

my $default;

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

__END__

=encoding utf8

=head1 NAME

IOKernel - all the networking of a program in one I/O thread that its interpreter cannot stall

=head1 SYNOPSIS

    use IOKernel;

    my $cache = IOKernel->open('redis://cache.internal', heartbeat => '5s');     # returns at once
    $cache->call('SET', 'greeting', 'hello');                                    # blocks
    my $value = $cache->call({ timeout => 0.5, idempotent => 1 }, 'GET', 'greeting');

    my @asked = map { $cache->request('GET', "user:$_") } 1 .. 100;              # futures: one connection, no waiting
    my @users = map { $_->get } @asked;

    use IOKernel::Loop::Mojo;                                                    # or AnyEvent, IOAsync
    my $inside = IOKernel::Loop::Mojo->new->open('redis://cache.internal');
    $inside->request('GET', 'greeting')->then(sub ($value) { say $value });

=head1 DESCRIPTION

The library resolves names, connects, handshakes, heartbeats, frames, pipelines and measures in a thread of its own.
What this binding does is to encode requests, to submit them in batches, to wait, and to decode what completes. Which
protocol is spoken is the URL's scheme; C<docs/> of the source tree has what each one's requests and replies look
like, and all options.

Errors are thrown, as objects: L<IOKernel::Error>.

=head2 Functions

Class methods, of the default kernel, which starts at the first call; the environment variable C<IOKERNEL_ADMIN> gives
it an admin endpoint.

=over 4

=item IOKernel->open($url, %options)

Opens a service and returns at once. Options are those of the URL's query: sizes and times carry their unit. Throws
IOKernel::ConfigError for a URL or an option that is wrong; that the peer cannot be reached is seen by requests,
C<wait_ready> and C<state>.

=item IOKernel->listen($url, %options)

Listens: see L</Listeners>.

=item IOKernel->counter, sum, gauge, histogram, marker

See L</Counting> and L</Markers>.

=item IOKernel->text($string), IOKernel->bytes($string)

A copy of a string that is sent as text, or as bytes: see L</Values>. C<bytes> dies if a character is above 255.

=item IOKernel->kernel

The default kernel.

=back

=head2 Kernels

    my $kernel = IOKernel::Kernel->new(name => 'web-1', admin => 'auto', busy_limit => '30s');

An I/O thread with everything it owns; usually the default one is enough. Any thread may use it. In a forked child it
starts anew, with no connection of the parent's, at its first use. It is closed when the object goes.

=over 4

=item IOKernel::Kernel->new(%config)

C<%config>: what the library takes (C<docs/observability.md>). C<stack>: whether the admin endpoint's C</stack> may
ask for Perl frames, through C<%SIG> of the signal C<stack_signal> (URG); true where C<admin> is given. C<channel>:
options of its channels, such as C<< { ring => '4MiB' } >>.

=item open, listen, counter, sum, gauge, histogram, marker

As above, in this kernel.

=item state, watch(%options), wait_ready($timeout)

How it is: C<ready>, C<missing>, C<endpoints>; a subscription (see below) of that; and waiting until every endpoint that
was opened with C<< require => 1 >> is up.

=item flush

Sends the requests that this thread has gathered. One that is made while others are under way goes with those behind
it, when there are some or when the program waits for anything; this is for a program that computes for long instead.

=item close($drain_seconds), is_closed

Ends everything; what is under way may finish for so long, and fails with IOKernel::Closed then. Twice is harmless.

=back

=head2 Endpoints

=over 4

=item call(@request), call(\%options, @request)

One request, blocking until its reply. Options: C<timeout> in seconds (the endpoint's own, C<timeout=30s>, unless
given; C<'inf'>: none), C<idempotent> (it may be sent again when its fate is in doubt), C<route> (a number, text or
bytes: requests of one route go to one peer), C<trace> (a W3C C<traceparent>). Arrays as arguments are a batch, where
the protocol has such: C<< $cache->call(['SET', 'a', 1], ['GET', 'a']) >>; errors in its reply are
IOKernel::RemoteError elements. A handler of C<%SIG> runs while it waits; one that dies ends the wait and cancels the
request.

=item request(...)

The same, returning an L<IOKernel::Future> at once (see C<flush> of kernels); inside of a loop, what that loop awaits:
L<IOKernel::Loop>.

=item send(...)

The same, one-way: nobody waits for the reply. A failure is warned about.

=item subscribe(@request), subscribe(\%options, @request)

A request that keeps giving, as a subscription. It returns when the peer has accepted it; in a loop, at once. Options:
C<timeout> for that, and C<buffer>, the messages that may wait unread before more are dropped and counted.

    my $news = $cache->subscribe('SUBSCRIBE', 'news');
    while (defined(my $message = $news->next)) { ... }

=item lease(%options), lease($code, %options)

A connection of one's own: a lease, which has C<call>, C<request> and C<send>, and is given back by C<release>, or
when the object goes. With code, it is called with the lease, and its value returned. Options: C<timeout>, C<route>.

    $bank->lease(sub ($lease) { $lease->call('WATCH', 'a'); ... });

=item watch(%options), state, wait_ready($timeout)

A subscription of its state, at once and after every change; the state, a hash; and waiting until it is up, which throws
IOKernel::Unavailable when the time is over.

=item set_peers(@peers)

Tells the peers of an endpoint opened as C<scheme+app://label>: each is C<host:port>, or a hash with C<address>,
C<weight>, C<priority>, C<role>.

=item in($loop), close, is_closed, url, number, kernel

C<in>: the same endpoint for an L<IOKernel::Loop>. C<close>: what is under way fails with IOKernel::Closed; twice is
harmless.

=back

=head2 Subscriptions

=over 4

=item next($timeout)

The next message, waiting for it; undef after C<close>. Throws IOKernel::Timeout when the time is over, or what ended
it. In a loop: what the loop awaits.

=item each($code)

Calls the code with each message, until the end; in a loop, from here on.

=item lost, reconnects

Messages that were dropped because the program left too many unread, and how often the connection was made anew:
messages sent meanwhile are not delivered.

=item accepted, close, is_closed

C<accepted>, in a loop: what it awaits until the peer has accepted. A subscription that is let go of is closed.

=back

=head2 Listeners

    my $listener = IOKernel->listen('redis://127.0.0.1:0');
    $listener->serve(sub ($request) {
        my ($command, @arguments) = $request->args;
        return scalar reverse $arguments[0] if $command eq 'REVERSE';
        die IOKernel::RemoteError->new("$command is none", code => 'ERR');
    });

=over 4

=item serve($handler)

Gives every request to the handler, until the listener is closed. What it returns is the reply; of a future, what it
becomes, and in a loop, of the loop's promises too. An IOKernel::RemoteError that it dies of is the client's error,
anything else is warned about and becomes C<ERR>. In a loop it returns at once.

=item next($timeout)

The next request; undef after the end.

=item url, state, close($drain_seconds, $delay_seconds), is_closed

With C<$drain_seconds> it leaves politely: nobody new is let in after the delay, what is under way may finish.

=back

A request has C<args>, C<peer>, C<reply($value)>, C<error($code, $message)>, C<is_gone>. Where the protocol has
messages both ways, C<next> gives what else comes (undef at its end, C<last_word> then), and a reply may come in
parts: C<begin($value)>, C<send($piece)>, C<finish($last)>. A request that is let go of without a reply is answered
with an error.

=head2 Counting

    my $orders = $kernel->counter('orders', help => 'Orders that were paid.', labels => { shop => 'north' });
    $orders->inc;
    $kernel->gauge('depth', merge => 'max')->set(3);
    $kernel->histogram('render_seconds', unit => 'seconds', buckets => [0.01, 0.1, 1])->time(sub { ... });

Cells of shared memory, which the admin endpoint and other processes read while the program hangs. C<inc($n)> of
counters (whole numbers) and sums, C<set>, C<inc>, C<dec> of gauges, C<observe> and C<time> of histograms; C<value>.
Each change is a load and one store of 8 aligned bytes: a reader never sees half of one. Two threads that add to one
series at the same time need the lock that there is if C<threads> was loaded before this module.

=head2 Markers

    my $doing = $kernel->marker('render invoice 7');

Shown by the admin endpoint until the object goes (or C<leave>), and beside each request that is submitted meanwhile.
They may be nested; 56 bytes of text, 15 at a time for each thread.

=head2 Values

    undef                      nil
    true, false (Perl's own)   booleans; given: also those of JSON::PP, Types::Serialiser, and \1, \0
    numbers                    integers, if Perl prints them so, and floats
    strings with UTF-8 flag    text
    strings without            bytes
    arrays                     arrays
    hashes                     maps, whose keys are text; arrays of pairs, where a key is none that a hash can have
    Math::BigInt               integers of any size
    IOKernel::RemoteError      an error inside a reply
    IOKernel::Attributed       a value with attributes: value, attributes
    IOKernel::Ext              any other ext, such as PostgreSQL's own types: kind, data

A set comes as an array, verbatim text as text.

Perl has one kind of string, and its internal UTF-8 flag says which of the two it is sent as. Literals and what was
read from a file are bytes; what was decoded, and what holds a character above 255, is text. Where the protocol tells
them apart and the flag says the wrong thing, C<< IOKernel->text >> and C<< IOKernel->bytes >> make a copy that says
the right one. What comes is always told apart: text has the flag, also if it is ASCII alone, and bytes have not. Text
that is no UTF-8 comes as bytes. To Redis both are the same.

=head1 PROCESSES, THREADS, SIGNALS

A forked child opens its own kernel, connections and channels at its first use; the parent's futures and subscriptions
are not answered there, its leases are not held. With C<threads>, a new thread uses the kernels and endpoints of the
one that made it, through channels of its own; futures, leases, subscriptions, listeners and loops stay with the
thread that made them.

A handler of C<%SIG> runs while a call waits, and between the statements of this module, which keeps its books whole
if it dies. C</stack> shows Perl frames of a thread that runs Perl; while it is inside of one C call, Perl runs no
handler, and the library's native frames say where it is.

=head1 SEE ALSO

L<IOKernel::Future>, L<IOKernel::Loop>, L<IOKernel::Error>

=head1 LICENSE

Apache-2.0 or MIT, as you like.

=cut
