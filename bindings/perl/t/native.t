use v5.36;
no warnings qw(experimental::builtin recursion);
use lib 't/lib';
use builtin qw(created_as_number false is_bool reftype true);
use Math::BigInt;
use IOKernel::Test;

# What is in C does as what is in Perl, of which t/values.t says that it is right.

use IOKernel::Record qw(:all);
use IOKernel::Values qw(pack_request text);

plan skip_all => 'built without a compiler, or not wanted' unless $IOKernel::Native::LOADED;

my $kernel = IOKernel::Kernel->new;
my $echo   = bless { kernel => $kernel, key => 0, pack => \&pack_request }, 'IOKernel::Caller';
$kernel->thread_channel;
$echo->_numbered(0, OP_ECHO);

our $global = 'global';
tie my @tied, 'Tied';
my $deep = [];
$deep = [$deep] for 1 .. 105;   # Deeper than C goes.
my $number = '12' + 0;
my $shown  = "$number";
'match' =~ /(.*)/;
my %values = (
    'strings'   => ['GET', '', 'x' x 255, 'x' x 256, 'x' x 70_000, "\xFF", $1, $global, substr 'abc', 1],
    'texts'     => [map { text($_) } '', 'x' x 31, 'x' x 32, "\xFF" x 200, 'x' x 70_000, "\x{263A}"],
    'numbers'   => [map { ($_, -$_) } 0, 1, 31, 32, 33, 127, 128, 129, 255, 256, 32768, 32769, 65535, 65536, 1 << 31,
                    (1 << 31) + 1, 1 << 32, 1 << 53, 9223372036854775807, 18446744073709551615, 1.5, 1e300, 9**9**9],
    'printed'   => [$number, $shown, 3.0, '7'],
    'others'    => [undef, true, false, \1, \0, Math::BigInt->new('123456789012345678901234567890')],
    'batches'   => [['SET', 'a', 1], ['GET', text('a')], [[], [[]]], [(1) x 20], \@tied],
    'maps'      => ['x', { a => 1, "\x{263A}" => [2] }, { map { $_ => $_ } 1 .. 20 }],
    'many'      => [1 .. 70_000],
    'deep'      => $deep,
    'errors'    => [[IOKernel::RemoteError->new('no', code => 'ERR')], 'x'],
);

# Values, and what Perl tells apart about them.
sub described ($value) {
    my $type = reftype($value) // '';
    return [ref $value, map { described($_) } @$value] if $type eq 'ARRAY';
    return [ref $value, { map { $_ => described($value->{$_}) } keys %$value }] if $type eq 'HASH';
    my $kind = is_bool($value) ? 'boolean' : created_as_number($value) ? 'number' : '';
    return { ($kind || (utf8::is_utf8($value) ? 'text' : 'bytes')) => $value };
}

# What a run with one reply makes of its future, in C or in Perl.
sub taken ($hand_out, $encoding, $payload) {
    my $future = bless [0], 'IOKernel::Future';
    my ($tag, @channel) = pack 'Q', 7;
    @channel[IOKernel::Channel::PENDING, IOKernel::Channel::READY, IOKernel::Channel::RUN_COUNT] =
        ({ $tag => $future }, [], 0);
    my $size = COMPLETION_BYTES + length $payload;
    my $run  = pack 'L S S L l a8 L C C x2 L x36 a* x!8', $size, KIND_DONE, 0, 1, 0, $tag, 1, 0, $encoding,
        length $payload, $payload;
    my $count = $hand_out->(\@channel, \$run);
    die "nothing was taken\n" unless $count == 1 && $future->[IOKernel::Future::STATE] == IOKernel::Future::DONE;
    return described($future->[IOKernel::Future::VALUE]);
}

my @TWINS = (\&IOKernel::Channel::_hand_out_plain, \&IOKernel::Native::perl__hand_out_plain);

sub is_taken_alike ($encoding, $payload, $name) {
    my @took = map { taken($_, $encoding, $payload) } @TWINS;
    return is_deeply $took[0], $took[1], "$name: taken alike";
}

for my $name (sort keys %values) {
    my $arguments = $values{$name};
    my $packed    = pack_request($arguments);
    my $first     = $echo->request('first');
    ok $echo->request(@$arguments)->get eq $packed, "$name: packed alike";
    is $first->get, pack_request(['first']), "$name: what was before it";
    is_taken_alike(ENCODING_MSGPACK, $packed, $name);
}
is_taken_alike(ENCODING_MSGPACK, pack('H*', $_), $_)
    for qw(82c0c381010102 820102a13103 c70209ff01 d6ff00000001 ca3f800000 92c403616263a161 dc0001c0 dd00000001c0),
    qw(de000180a161), 'c70503' . unpack 'H*', 'txt:x';
is_taken_alike(ENCODING_TEXT,  $_, 'text') for 'OK', "gr\xC3\xBCn", "gr\xFCn", '';
is_taken_alike(ENCODING_BYTES, $_, 'bytes') for 'OK', "gr\xC3\xBCn", '';
is_taken_alike(ENCODING_NONE,  '', 'nothing');
for my $wrong (qw(c4 c405 92 dc0005 c1 0101 81a161), '') {
    my @died = map { my $hand_out = $_; caught(sub { taken($hand_out, ENCODING_MSGPACK, pack 'H*', $wrong) }) } @TWINS;
    is $died[0], $died[1], "$wrong: refused alike";
}

subtest 'what is left to Perl leaves nothing behind' => sub {
    my @asked = map { $echo->request("$_") } 1 .. 3;
    isa_ok caught(sub { $echo->request('x', sub { 1 }) }), 'IOKernel::BadRequest';
    isa_ok caught(sub { $echo->request('x', ['y', [sub { 1 }]]) }), 'IOKernel::BadRequest';
    push @asked, $echo->request('4');
    is join(' ', map { length $_->get } @asked), '4 4 4 4', 'those around it';
};

subtest 'callbacks' => sub {
    my @told;
    my $future = $echo->request('x');
    is $future->on_ready(sub ($f) { push @told, 'first' }), $future, 'it returns the future';
    $future->on_ready(sub ($f) { push @told, length $f->get });
    my $next = $echo->request('y')->on_ready(sub ($f) { push @told, length $echo->call('inner') });
    $_->get for $future, $next;
    is "@told", 'first 4 8', 'in their order';
    $future->on_ready(sub ($f) { push @told, 'late' });
    is $told[-1], 'late', 'at once when it is there';
    my $value = $future->get;
    $_ = 'changed' for $future->get;
    is $future->get, $value, 'nobody changes the reply of another';
};

done_testing;

package Tied {
    sub TIEARRAY  ($class) { return bless [], $class }
    sub FETCHSIZE ($self) { return 2 }
    sub FETCH     ($self, $at) { return "tied $at" }
}
