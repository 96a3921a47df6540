package IOKernel::Route;

# The 64 bits by which requests of one route go to one peer: the same in every process, on every machine and, as the
# hash is that of every binding, in every language.

use v5.36;
no warnings qw(experimental::builtin portable);

use builtin qw(created_as_number);
use Exporter 'import';

our $VERSION   = '0.1.0';
our @EXPORT_OK = qw(route_key blake2b_64);

use constant BLOCK_BYTES => 128;

my @IV = (
    0x6A09E667F3BCC908, 0xBB67AE8584CAA73B, 0x3C6EF372FE94F82B, 0xA54FF53A5F1D36F1,
    0x510E527FADE682D1, 0x9B05688C2B3E6C1F, 0x1F83D9ABFB41BD6B, 0x5BE0CD19137E2179,
);

# RFC 7693, section 2.7; the last two rounds are the first two again.
my @SIGMA = map { [map { hex } split //] } qw(
    0123456789abcdef ea489fd61c02b753 b8c052fdae367194 7931dcbe265a40f8 905724afe1bc683d
    2c6a0b834d75fe19 c51fed4a0763928b db7ec13950f4862a 6fe9b308c2d714a5 a2847615fb9e3cd0
    0123456789abcdef ea489fd61c02b753
);

# A number is taken as it is. Text (as UTF-8) and bytes are hashed: BLAKE2b with a digest of 8 bytes, read as a
# little-endian number. 0 means "no key" in a record, so a route of 0 becomes the greatest one.
sub route_key ($route) {
    return blake2b_64($route) || ~0 unless created_as_number($route) && $route =~ /^-?[0-9]+\z/a;
    return ($route < 0 ? unpack 'Q', pack 'q', $route : $route) || ~0;
}

# BLAKE2b (RFC 7693) of a string, 8 bytes of it as a number.
sub blake2b_64 ($data) {
    utf8::encode($data) if utf8::is_utf8($data);
    use integer;
    my @state = @IV;
    $state[0] ^= 0x01010000 ^ 8;
    my $length = length $data;
    my $blocks = ($length + BLOCK_BYTES - 1) / BLOCK_BYTES || 1;
    for my $block (0 .. $blocks - 1) {
        my $is_last = $block == $blocks - 1;
        my $part    = substr $data, $block * BLOCK_BYTES, BLOCK_BYTES;
        _compress(\@state, $part, $is_last ? $length : ($block + 1) * BLOCK_BYTES, $is_last);
    }
    return unpack 'Q', pack 'q', $state[0];
}

sub _compress ($state, $part, $counted, $is_last) {
    use integer;
    my @m = unpack 'q16', $part . "\0" x (BLOCK_BYTES - length $part);
    my @v = (@$state, @IV);
    $v[12] ^= $counted;
    $v[14] = ~$v[14] if $is_last;
    for my $round (@SIGMA) {
        my @s = @$round;
        _mix(\@v, 0, 4, 8,  12, @m[@s[0,  1]]);
        _mix(\@v, 1, 5, 9,  13, @m[@s[2,  3]]);
        _mix(\@v, 2, 6, 10, 14, @m[@s[4,  5]]);
        _mix(\@v, 3, 7, 11, 15, @m[@s[6,  7]]);
        _mix(\@v, 0, 5, 10, 15, @m[@s[8,  9]]);
        _mix(\@v, 1, 6, 11, 12, @m[@s[10, 11]]);
        _mix(\@v, 2, 7, 8,  13, @m[@s[12, 13]]);
        _mix(\@v, 3, 4, 9,  14, @m[@s[14, 15]]);
    }
    $state->[$_] ^= $v[$_] ^ $v[$_ + 8] for 0 .. 7;
    return;
}

sub _mix ($v, $a, $b, $c, $d, $x, $y) {
    use integer;
    $v->[$a] += $v->[$b] + $x;
    $v->[$d] = _rotated($v->[$d] ^ $v->[$a], 32);
    $v->[$c] += $v->[$d];
    $v->[$b] = _rotated($v->[$b] ^ $v->[$c], 24);
    $v->[$a] += $v->[$b] + $y;
    $v->[$d] = _rotated($v->[$d] ^ $v->[$a], 16);
    $v->[$c] += $v->[$d];
    $v->[$b] = _rotated($v->[$b] ^ $v->[$c], 63);
    return;
}

# To the right. Shifts of unsigned words: `use integer` would draw the sign in.
sub _rotated ($word, $bits) {
    no integer;
    $word &= 0xFFFF_FFFF_FFFF_FFFF;
    return $word >> $bits | $word << 64 - $bits;
}

1;
