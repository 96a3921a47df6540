package IOKernel::Record;

# The numbers and shapes of records, as the ABI has them (version 1).

use v5.36;

use Exporter 'import';
use Scalar::Util qw(looks_like_number);

our $VERSION = '0.1.0';

use constant CONSTANTS => {
    OP_ECHO    => 1,
    OP_OPEN    => 2,
    OP_LISTEN  => 3,
    OP_CLOSE   => 4,
    OP_REQUEST => 5,
    OP_STREAM  => 6,
    OP_CANCEL  => 7,
    OP_LEASE   => 8,
    OP_RELEASE => 9,
    OP_REPLY   => 10,
    OP_STATE   => 11,
    OP_PEERS   => 12,
    OP_WATCH   => 13,
    OP_SEND    => 14,
    OP_CREDIT  => 15,

    FLAG_MORE       => 1,
    FLAG_IDEMPOTENT => 2,
    FLAG_QUIET      => 4,
    FLAG_UNTIL_UP   => 8,
    FLAG_ROUTE      => 16,
    FLAG_TRACE      => 32,

    KIND_DONE     => 1,
    KIND_PUSH     => 2,
    KIND_REQUEST  => 3,
    KIND_LOST     => 4,
    KIND_ACCEPTED => 5,
    KIND_GONE     => 6,
    KIND_TICK     => 7,
    KIND_END      => 8,

    ENCODING_NONE    => 0,
    ENCODING_MSGPACK => 1,
    ENCODING_BYTES   => 2,
    ENCODING_TEXT    => 3,
    ENCODING_RAW     => 4,

    STATUS_OK          => 0,
    STATUS_BAD_HANDLE  => -102,
    STATUS_CLOSED      => -103,
    STATUS_FORKED      => -104,
    STATUS_BAD_CONFIG  => -105,
    STATUS_BAD_REQUEST => -107,
    STATUS_TOO_LARGE   => -108,
    STATUS_NO_LEASE    => -110,
    STATUS_FULL        => -201,
    STATUS_TIMEOUT     => -202,
    STATUS_CANCELLED   => -203,
    STATUS_INTERRUPTED => -205,
    STATUS_REMOTE      => -301,
    STATUS_LOST        => -302,
    STATUS_UNAVAILABLE => -303,

    SUBMISSION_BYTES => 40,
    COMPLETION_BYTES => 72,
    TIMEOUT_NONE     => 0xFFFF_FFFF,
    TIMEOUT_MS_MAX   => 0xFFFF_FFFE,

    # size, op, flags, endpoint, timeout_ms, tag, key, bytes_total, marker (0: the library's own), payload, padding
    # Tags are kept as records have them: 8 bytes.
    SUBMISSION => 'L S S L L a8 Q L x4 a* x!8',

    # What stands before the tag: op, flags, endpoint, timeout_ms; and after it: key, bytes_total, marker
    BEFORE_TAG => 'S S L L',
    AFTER_TAG  => 'Q x8',

    # size, op, flags, endpoint, tag
    SUBMISSION_HEAD => 'L S S L x4 a8',

    # size, kind, flags, endpoint, status, tag, peer, fate, encoding
    COMPLETION => 'L S S L l a8 L C C',

    # Of each record of a run of whole messages: kind and flags together, endpoint and status together (above 2**32 with
    # any other status than OK), tag, encoding, payload
    RUN => '(x4 L Q a8 x5 C x2 L x36/a x!8)*',
};
use constant CONSTANTS();

our @EXPORT_OK   = (keys CONSTANTS()->%*, 'timeout_ms');
our %EXPORT_TAGS = (all => \@EXPORT_OK);

# Seconds as a record holds them: undef is the endpoint's default, infinity none.
#
# Throws Timeout if the time is over already, BadRequest if it is no time.
sub timeout_ms ($timeout) {
    return 0 unless defined $timeout;
    require IOKernel::Error;
    if (!looks_like_number($timeout) || $timeout != $timeout) {
        IOKernel::BadRequest->throw(
            "timeout: \"$timeout\": expected seconds, undef (the endpoint's default) or 'inf'",
            status => STATUS_BAD_REQUEST,
            fate   => 'not_sent',
        );
    }
    if ($timeout <= 0) {
        IOKernel::Timeout->throw(
            'the time was over before the request began',
            status => STATUS_TIMEOUT,
            fate   => 'not_sent',
        );
    }
    return TIMEOUT_NONE if $timeout >= TIMEOUT_MS_MAX / 1000;
    my $ms = int $timeout * 1000;
    return $ms < $timeout * 1000 ? $ms + 1 : $ms;
}

1;
