package IOKernel::Test;

# What most tests begin with: strict Perl, Test::More, and a redis-server of their own.
#
#     use IOKernel::Test;             my $redis = server();

use v5.36;

use Exporter 'import';
use Test::More;
use Time::HiRes qw(CLOCK_MONOTONIC clock_gettime);

use IOKernel;
use IOKernel::Test::Redis;

our @EXPORT = (qw(server caught now within), @Test::More::EXPORT);

# A server of this test's own; without the program the whole test is skipped.
sub server () {
    plan skip_all => 'redis-server is not installed' unless IOKernel::Test::Redis->is_there;
    return IOKernel::Test::Redis->new;
}

# What the code died of, or undef.
sub caught ($code) { return eval { $code->(); 1 } ? undef : $@ }

sub now () { return clock_gettime(CLOCK_MONOTONIC) }

# True once the code gives something true, within so many seconds.
sub within ($seconds, $code) {
    my $until = now() + $seconds;
    while (now() < $until) {
        return 1 if $code->();
        Time::HiRes::sleep(0.01);
    }
    return !!$code->();
}

1;
