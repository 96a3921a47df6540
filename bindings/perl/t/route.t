use v5.36;
use utf8;
no warnings 'portable';
use Test::More;

use IOKernel::Route qw(blake2b_64 route_key);

# Of BLAKE2b with a digest of 8 bytes, as hashlib has them.
my %KNOWN = (
    ''          => '13020603013274838756',
    'abc'       => '6455300059550759896',
    'x' x 128   => '154496675747142800',
    'x' x 129   => '11792093813925010968',
    'y' x 300   => '17954614675875514879',
    'y' x 16    => '5935654722169865220',
    'grün✓'     => '6459389253125262130',
);
is sprintf('%u', blake2b_64($_)), $KNOWN{$_}, length . ' characters' for sort keys %KNOWN;

is route_key(7), 7, 'a number is itself';
is route_key(0), ~0, '0 means none in a record';
is route_key(-1), ~0, 'a negative one modulo 2**64';
isnt route_key('7'), 7, 'digits are text';
utf8::encode(my $bytes = 'grün✓');
is route_key('grün✓'), route_key($bytes), 'text is its UTF-8';

done_testing;
