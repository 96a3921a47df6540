use v5.36;
no warnings qw(experimental::builtin);
use utf8;
use Test::More;
use builtin qw(created_as_number is_bool true false);
use Data::MessagePack;
use JSON::PP ();
use Math::BigInt;

use IOKernel;
use IOKernel::Values qw(bytes decode pack_request pack_value text unpack_value);

sub hex_of ($packed) { return unpack 'H*', $packed }
sub from   ($hex)    { return unpack_value(pack 'H*', $hex =~ s/ //gr) }
sub again  ($value)  { return unpack_value(pack_value($value)) }

subtest 'numbers stay what they are' => sub {
    my @numbers = (
        0, 1, 127, 128, 255, 256, 65535, 65536, 4294967295, 4294967296, 9007199254740993, 18446744073709551615,
        -1, -32, -33, -128, -129, -32768, -32769, -2147483648, -2147483649, -9223372036854775808, 0.5, -1.25e100, 1e300,
    );
    for my $number (@numbers) {
        my ($came, $theirs) = (again($number), hex_of(Data::MessagePack->pack($number)));
        ok $came == $number && created_as_number($came), "$number comes back";
        is hex_of(pack_value($number)), $theirs, "$number as Data::MessagePack has it";
    }
    my $printed = 7;
    my $text    = "$printed";
    is hex_of(pack_value($printed)), '07', 'a number that was printed is one';
    is hex_of(pack_value('7')), 'c40137', 'digits are bytes';
    ok again(9**9**9) == 9**9**9, 'infinity';
    my $none = again(9**9**9 / 9**9**9);
    ok $none != $none, 'not a number';
};

subtest 'text and bytes' => sub {
    is hex_of(pack_value('abc')), 'c403616263', 'no flag: bytes';
    is hex_of(pack_value(text('abc'))), 'a3616263', 'the flag: text';
    is hex_of(pack_value(text("\xFC"))), 'a2c3bc', 'text is UTF-8';
    is hex_of(pack_value(bytes('ü'))), 'c401fc', 'bytes of a text below 256';
    ok !eval { bytes('✓'); 1 }, 'no bytes of others';
    for my $length (0, 31, 32, 255, 256, 65535, 65536) {
        my ($plain, $flagged) = ('x' x $length, text('y' x $length));
        my ($first, $second) = again([$plain, $flagged])->@*;
        ok $first eq $plain && !utf8::is_utf8($first), "$length bytes";
        ok $second eq $flagged && utf8::is_utf8($second), "$length characters";
    }
    is decode(3, "gr\xC3\xBCn"), 'grün', 'bare text';
    my $broken = decode(3, "gr\xFCn");
    ok $broken eq "gr\xFCn" && !utf8::is_utf8($broken), 'bare text that is none stays bytes';
    ok utf8::is_utf8(decode(3, 'OK')), 'ASCII is text too';
    is decode(0, ''), undef, 'nothing';
};

subtest 'booleans and undef' => sub {
    is hex_of(pack_value([true, false, undef])), '93c3c2c0', 'of Perl';
    is hex_of(pack_value([JSON::PP::true(), JSON::PP::false(), \1, \0])), '94c3c2c3c2', 'of others';
    my ($yes, $no) = from('92c3c2')->@*;
    ok is_bool($yes) && $yes && is_bool($no) && !$no, 'they come as those of Perl';
};

subtest 'arrays and hashes' => sub {
    for my $count (0, 15, 16, 65535, 65536) {
        is scalar again([(1) x $count])->@*, $count, "an array of $count";
    }
    for my $count (0, 15, 16, 70000) {
        is scalar keys again({ map { $_ => 1 } 1 .. $count })->%*, $count, "a hash of $count";
    }
    is_deeply again({ 'ü' => [1, { b => undef }] }), { 'ü' => [1, { b => undef }] }, 'nested';
    is_deeply from('82 a161 01 c40162 02'), { a => 1, b => 2 }, 'keys of text and of bytes';
    is_deeply from('82 91 01 02 c0 03'), [[[1], 2], [undef, 3]], 'keys that no hash can have: pairs';
};

subtest 'exts' => sub {
    my $error = from('c7 12 01 92 a3455252 ac6e6f742070757265206f6e65' =~ s/ 12 / 12 /r);
    isa_ok $error, 'IOKernel::RemoteError';
    is join('|', $error->code, $error->message, $error->fate), 'ERR|not pure one|replied', 'its words';
    is again($error)->message, 'not pure one', 'an error goes both ways';
    my $big = Math::BigInt->new('123456789012345678901234567890');
    is again($big)->bstr, $big->bstr, 'a number of any size';
    is hex_of(pack_value(Math::BigInt->new(7))), '07', 'a small one is an integer';
    is from('c7 06 03 6d6b643a6162'), 'ab', 'verbatim text';
    is_deeply from('c7 03 04 920102'), [1, 2], 'a set';
    my $with = again(IOKernel::Attributed->new([1], { ttl => 5 }));
    is_deeply [$with->value, $with->attributes], [[1], { ttl => 5 }], 'attributes';
    my $other = again(IOKernel::Ext->new(17, 'abc'));
    is_deeply [$other->kind, $other->data], [17, 'abc'], 'any other';
    is_deeply [from('d4 11 61')->data, from('d8 11' . '61' x 16)->data], ['a', 'a' x 16], 'fixed sizes';
    is from('c8 0003 11 616263')->data, 'abc', 'two bytes of size';
};

subtest 'arrays of bytes and others' => sub {
    my @plain = map { [map { 'x' x $_ } @$_] } [1 .. 3], [0 .. 255], [250 .. 260];
    my @mixed = ([('a') x 9, 7], [7, ('a') x 9], [('a') x 4, text('b'), ('c') x 4], [('a') x 5, ['b'], undef, 'c']);
    for my $array (@plain, @mixed, [("\xC4") x 70], [('a') x 70_000]) {
        is_deeply again([$array, 'after']), [$array, 'after'], scalar @$array . ' elements';
    }
    for my $cut (1 .. 12) {
        my $packed = pack_value([('abc') x 5]);
        ok !eval { unpack_value(substr $packed, 0, -$cut); 1 }, "$cut bytes are missing";
    }
};

subtest 'why there is a codec of our own' => sub {
    my $theirs = Data::MessagePack->new;
    ok !eval { $theirs->unpack(pack 'H*', 'd40105'); 1 }, 'Data::MessagePack takes no ext';
    is hex_of($theirs->pack(['a', text('b')])), '92c40161c40162', 'it packs all strings alike';
    my $number  = 7;
    my $printed = "$number";
    is hex_of($theirs->pack($number)), 'c40137', 'and a number that was printed as bytes';
};

subtest 'what cannot be packed' => sub {
    my $within = [];
    push @$within, $within;
    my %wrong = (code => sub { }, glob => \*STDOUT, object => bless({}, 'Some'), itself => $within, number => \7);
    for my $name (sort keys %wrong) {
        ok !eval { pack_request(['GET', $wrong{$name}]); 1 }, $name;
        isa_ok $@, 'IOKernel::BadRequest';
        is join('|', $@->status_name, $@->fate), 'BAD_REQUEST|not_sent', 'its status and fate';
        like "$@", qr/expected .* at \S*values\.t line \d+\.$/, 'where it was';
    }
};

subtest 'what is no MessagePack' => sub {
    for my $hex ('', 'c1', '92 01', 'c4 05 61', 'cd 01', '01 01', 'dc 00', 'd4 01') {
        ok !eval { from($hex); 1 }, "'$hex'";
    }
};

done_testing;
