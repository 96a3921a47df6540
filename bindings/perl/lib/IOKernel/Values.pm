package IOKernel::Values;

# Values between Perl and MessagePack.
#
# Data::MessagePack packs the requests of protocols that do not tell kinds of strings apart. For all others there is a
# codec of our own, because those that there are cannot carry what the kernel says: Data::MessagePack 1.02 makes of all
# strings of a value either text or bytes, makes bytes of a number once it was printed, and dies of any ext, as errors
# inside of replies are; Data::MessagePack::Stream 1.05 dies of them too. t/values.t shows that, and that it agrees with
# Data::MessagePack about everything else.

use v5.36;
no warnings qw(experimental::builtin experimental::for_list recursion);

use builtin qw(created_as_number is_bool true false reftype blessed);
use Data::MessagePack;
use Exporter 'import';

use IOKernel::Error;
use IOKernel::Record qw(ENCODING_MSGPACK ENCODING_NONE ENCODING_TEXT);

our $VERSION   = '0.1.0';
our @EXPORT_OK = qw(pack_value pack_request packer_for unpack_value decode text bytes);

use constant {
    EXT_ERROR      => 1,
    EXT_BIG_NUMBER => 2,
    EXT_VERBATIM   => 3,
    EXT_SET        => 4,
    EXT_ATTRIBUTED => 5,
    DEPTH_MAX      => 128,
    BYTES_MIN      => 4,    # Arrays below are read one by one.
};

my $ALIKE = Data::MessagePack->new;

my %BOOLEANS = map { $_ => 1 } qw(JSON::PP::Boolean Types::Serialiser::Boolean Data::MessagePack::Boolean);

# The heads of byte strings and arrays that are short.
my @BYTES = map { "\xC4" . chr } 0 .. 255;
my @ARRAY = map { chr 0x90 + $_ } 0 .. 15;

# Text: a copy that is sent as text, whatever the string's flag was.
sub text ($string) {
    utf8::upgrade($string);
    return $string;
}

# Bytes: a copy that is sent as bytes. Dies if a character is above 255: encode such text first.
sub bytes ($string) {
    utf8::downgrade($string);
    return $string;
}

# A request: an array of arguments. Throws BadRequest for what cannot be sent.
#
# Most arguments are plain strings, and are packed here: no reference, no flag, and no number, of which the empty string
# makes "0" where it makes an empty one of strings.
sub pack_request ($arguments, $depth = 0) {
    no feature 'bitwise';
    no warnings 'numeric';
    die _too_deep() if $depth > DEPTH_MAX;
    my $packed = $ARRAY[@$arguments] // _array_head(scalar @$arguments);
    for (@$arguments) {
        if (defined && !ref && !utf8::is_utf8($_) && !length('' & $_)) {
            $packed .= ($BYTES[length] // _bytes_head(length)) . $_;
        } else {
            # The commands of a batch are requests themselves.
            $packed .= ref eq 'ARRAY' && @$_ ? pack_request($_, $depth + 1) : _pack($_, $depth + 1);
        }
    }
    return $packed;
}

# The same for protocols to which text, bytes and numbers in decimal are one: Data::MessagePack's, in C. It refuses what
# is left to ours. No signature: most requests come through here.
sub pack_alike {
    return eval { $ALIKE->pack($_[0]) } // _refused(@_);
}

sub _refused ($arguments) {
    die $@ if ref $@ || $@ !~ /Data::MessagePack|msgpack|cannot encode|max_depth/;
    return pack_request($arguments);
}

# What packs the requests of an endpoint.
sub packer_for ($url) {
    return $url =~ /\A(?:rediss?|unix)[:+]/i ? \&pack_alike : \&pack_request;
}

# One value as MessagePack.
sub pack_value ($value) { return _pack($value, 0) }

sub _pack ($value, $depth) {
    return "\xC0"                               unless defined $value;
    return _pack_reference($value, $depth + 1)  if ref $value;
    return $value ? "\xC3" : "\xC2"             if is_bool($value);
    return _pack_number($value)                 if created_as_number($value);
    return _pack_text($value)                   if utf8::is_utf8($value);
    return ($BYTES[length $value] // _bytes_head(length $value)) . $value;
}

sub _pack_text ($text) {
    utf8::encode($text);
    my $length = length $text;
    my $head =
          $length < 32      ? chr 0xA0 + $length
        : $length < 1 << 8  ? pack 'CC',  0xD9, $length
        : $length < 1 << 16 ? pack 'Cn',  0xDA, $length
        :                     pack 'CN',  0xDB, $length;
    return $head . $text;
}

sub _bytes_head ($length) {
    return $length < 1 << 16 ? pack 'Cn', 0xC5, $length : pack 'CN', 0xC6, $length;
}

sub _array_head ($count) {
    return $count < 1 << 16 ? pack 'Cn', 0xDC, $count : pack 'CN', 0xDD, $count;
}

sub _map_head ($count) {
    return
          $count < 16      ? chr 0x80 + $count
        : $count < 1 << 16 ? pack 'Cn', 0xDE, $count
        :                    pack 'CN', 0xDF, $count;
}

sub _ext ($kind, $data) {
    my $length = length $data;
    return ($length < 1 << 8 ? pack 'CCc', 0xC7, $length, $kind : pack 'CNc', 0xC9, $length, $kind) . $data;
}

# What Perl prints as an integer is one; it prints no double of more than 15 digits so.
sub _pack_number ($number) {
    return $number =~ /^-?[0-9]+\z/a ? _pack_integer($number) : pack 'Cd>', 0xCB, $number;
}

sub _pack_integer ($number) {
    if ($number >= 0) {
        return
              $number < 128     ? chr $number
            : $number < 1 << 8  ? pack 'CC',  0xCC, $number
            : $number < 1 << 16 ? pack 'Cn',  0xCD, $number
            : $number < 1 << 32 ? pack 'CN',  0xCE, $number
            :                     pack 'CQ>', 0xCF, $number;
    }
    return
          $number >= -32       ? chr 0x100 + $number
        : $number >= -(1 << 7) ? pack 'Cc', 0xD0, $number
        : $number >= -0x8000   ? pack 'Cs>', 0xD1, $number
        : $number >= -0x8000_0000 ? pack 'Cl>', 0xD2, $number
        :                        pack 'Cq>', 0xD3, $number;
}

sub _pack_reference ($value, $depth) {
    die _too_deep() if $depth > DEPTH_MAX;
    my $class = blessed $value;
    return _pack_object($value, $class, $depth) if defined $class;
    my $type = ref $value;
    if ($type eq 'ARRAY') {
        return join '', $ARRAY[@$value] // _array_head(scalar @$value), map { _pack($_, $depth) } @$value;
    }
    if ($type eq 'HASH') {
        # The keys of a hash are text: Perl keeps no flag of theirs that could say otherwise.
        return join '', _map_head(scalar keys %$value),
            map { (_pack_text($_), _pack($value->{$_}, $depth)) } sort keys %$value;
    }
    if ($type eq 'SCALAR' && defined $$value && !ref $$value && $$value =~ /^[01]\z/) {
        return $$value ? "\xC3" : "\xC2";
    }
    die _cannot($value);
}

sub _pack_object ($value, $class, $depth) {
    return $value ? "\xC3" : "\xC2" if $BOOLEANS{$class};
    if ($value->isa('Math::BigInt')) {
        my $digits = $value->bstr;
        die _cannot($value) unless $digits =~ /^-?[0-9]+\z/a;
        return length $digits < 19 ? _pack_integer(0 + $digits) : _ext(EXT_BIG_NUMBER, $digits);
    }
    return _ext(EXT_ERROR, _pack([text($value->code || 'ERR'), text($value->message)], $depth))
        if $value->isa('IOKernel::Error');
    return _ext(EXT_ATTRIBUTED, _pack([$value->attributes, $value->value], $depth))
        if $value->isa('IOKernel::Attributed');
    return _ext($value->kind, $value->data) if $value->isa('IOKernel::Ext');
    return _pack_text($value->bstr)         if $value->isa('Math::BigFloat');
    die _cannot($value);
}

sub _too_deep () {
    return IOKernel::Error->of_value('too deep, or within itself: expected ' . DEPTH_MAX . ' levels at most')->located;
}

sub _cannot ($value) {
    my $what = (blessed $value) // lc(ref $value) . ' reference';
    my $expected = 'expected undef, a boolean, number, text or bytes, or an array or hash of them';
    return IOKernel::Error->of_value("$what: $expected")->located;
}

# Unpacking: the data, and where in it we are.
our ($DATA, $AT);

# One value. Dies if there is not exactly one.
sub unpack_value ($data) {
    local ($DATA, $AT) = ($data, 0);
    my $value = _value();
    die "MessagePack: $AT bytes: expected ${\length $data}\n" unless $AT == length $data;
    return $value;
}

# The payload of a completion.
sub decode ($encoding, $payload) {
    return unpack_value($payload) if $encoding == ENCODING_MSGPACK;
    return undef                  if $encoding == ENCODING_NONE;
    return $encoding == ENCODING_TEXT ? _text($payload) : $payload;
}

# Text as the peer sent it. What is no UTF-8 stays bytes.
sub _text ($text) {
    utf8::upgrade($text) if utf8::decode($text);
    return $text;
}

my %SIZED = (
    0xC4 => [C => 1, \&_take],
    0xC5 => [n => 2, \&_take],
    0xC6 => [N => 4, \&_take],
    0xC7 => [C => 1, \&_take_ext],
    0xC8 => [n => 2, \&_take_ext],
    0xC9 => [N => 4, \&_take_ext],
    0xD9 => [C => 1, \&_take_text],
    0xDA => [n => 2, \&_take_text],
    0xDB => [N => 4, \&_take_text],
    0xDC => [n => 2, \&_take_array],
    0xDD => [N => 4, \&_take_array],
    0xDE => [n => 2, \&_take_map],
    0xDF => [N => 4, \&_take_map],
);
my %NUMBERS = (
    0xCA => ['f>' => 4],
    0xCB => ['d>' => 8],
    0xCC => [C    => 1],
    0xCD => [n    => 2],
    0xCE => [N    => 4],
    0xCF => ['Q>' => 8],
    0xD0 => [c    => 1],
    0xD1 => ['s>' => 2],
    0xD2 => ['l>' => 4],
    0xD3 => ['q>' => 8],
);

sub _value () {
    die "MessagePack: the value is cut short\n" if $AT >= length $DATA;
    my $byte = ord substr $DATA, $AT++, 1;
    return $byte                             if $byte < 0x80;
    return _take(ord substr $DATA, $AT++, 1) if $byte == 0xC4;
    return $byte < 0xA0 ? $byte < 0x90 ? _take_map($byte & 15) : _take_array($byte & 15) : _take_text($byte & 31)
        if $byte < 0xC0;
    return $byte - 0x100 if $byte >= 0xE0;
    if (my $number = $NUMBERS{$byte}) {
        my ($template, $size) = @$number;
        return unpack $template, _take($size);
    }
    if (my $sized = $SIZED{$byte}) {
        my ($template, $size, $take) = @$sized;
        return $take->(unpack $template, _take($size));
    }
    return undef if $byte == 0xC0;
    return true  if $byte == 0xC3;
    return false if $byte == 0xC2;
    return _take_ext(1 << $byte - 0xD4) if $byte >= 0xD4 && $byte <= 0xD8;
    die "MessagePack: byte $byte: expected the head of a value\n";
}

sub _take ($length) {
    die "MessagePack: the value is cut short\n" if $AT + $length > length $DATA;
    $AT += $length;
    return substr $DATA, $AT - $length, $length;
}

sub _take_text ($length) { return _text(_take($length)) }

sub _take_array ($count) {
    return ($count >= BYTES_MIN && _take_bytes($count)) || [map { _value() } 1 .. $count];
}

# An array of short byte strings and nothing else, as most long ones are, is read at once; undef if it is another one.
sub _take_bytes ($count) {
    return undef if ord(substr $DATA, $AT, 1) != 0xC4;
    my (@bytes, @flat);
    if (!eval { @flat = unpack "x$AT (a C/a)$count .", $DATA; 1 }) {
        die $@ if $@ !~ / in unpack /;
        return undef;
    }
    my $end = pop @flat;
    for my ($head, $bytes) (@flat) {
        return undef if $head ne "\xC4";
        push @bytes, $bytes;
    }
    # The last one may be cut short.
    return undef if @bytes != $count || ord(substr $DATA, $end - 1 - length $bytes[-1], 1) != length $bytes[-1];
    $AT = $end;
    return \@bytes;
}

# A hash; pairs, if a key is none that a hash can have.
sub _take_map ($count) {
    my @flat = map { (_value(), _value()) } 1 .. $count;
    my @pairs;
    my $is_plain = 1;
    for my ($key, $value) (@flat) {
        $is_plain &&= defined $key && !ref $key;
        push @pairs, [$key, $value];
    }
    return $is_plain ? {@flat} : \@pairs;
}

sub _take_ext ($length) {
    my $kind = unpack 'c', _take(1);
    my $data = _take($length);
    if ($kind == EXT_ERROR) {
        my ($code, $message) = unpack_value($data)->@*;
        return IOKernel::RemoteError->new($message, code => $code, status => -301, fate => 'replied');
    }
    if ($kind == EXT_BIG_NUMBER) {
        require Math::BigInt;
        return Math::BigInt->new($data);
    }
    return _text(substr $data, 4) if $kind == EXT_VERBATIM;
    return unpack_value($data)    if $kind == EXT_SET;
    if ($kind == EXT_ATTRIBUTED) {
        my ($attributes, $value) = unpack_value($data)->@*;
        return IOKernel::Attributed->new($value, $attributes);
    }
    return IOKernel::Ext->new($kind, $data);
}

# A value that came with attributes.
package IOKernel::Attributed {
    sub new        ($class, $value, $attributes = {}) { return bless [$value, $attributes], $class }
    sub value      ($self) { return $self->[0] }
    sub attributes ($self) { return $self->[1] }
}

# An ext that this binding has no Perl value for, such as PostgreSQL's own types.
package IOKernel::Ext {
    sub new  ($class, $kind, $data) { return bless [$kind, $data], $class }
    sub kind ($self) { return $self->[0] }
    sub data ($self) { return $self->[1] }
}

1;
