use v5.36;
use Test::More;

use IOKernel;
use IOKernel::Record qw(timeout_ms);

sub caught ($code) { return eval { $code->(); 1 } ? undef : $@ }

my %CLASSES = (
    -101 => 'BadRequest',
    -102 => 'Closed',
    -103 => 'Closed',
    -104 => 'Closed',
    -105 => 'ConfigError',
    -107 => 'BadRequest',
    -108 => 'BadRequest',
    -109 => 'Closed',
    -110 => 'Closed',
    -201 => 'Overloaded',
    -202 => 'Timeout',
    -203 => 'Cancelled',
    -204 => 'Overloaded',
    -301 => 'RemoteError',
    -302 => 'ConnectionLost',
    -303 => 'Unavailable',
    -304 => 'ConnectionLost',
    -305 => 'Unavailable',
);
for my $status (sort keys %CLASSES) {
    my $error = IOKernel::Error->of_status($status);
    isa_ok $error, "IOKernel::$CLASSES{$status}";
    ok $error->isa('IOKernel::Error') && length $error->message, "$status has words: " . $error->message;
}
is ref(IOKernel::Error->of_status(-401)), 'IOKernel::Error', 'others are plain ones';
is(IOKernel::Error->of_status(-202)->status_name, 'TIMEOUT', 'the name of a status');
ok IOKernel::Error->of_status(-303)->retriable, 'retriable';
ok !IOKernel::Error->of_status(-107)->retriable, 'not retriable';

my $error = IOKernel::Error->of_status(-302, fate => 2, endpoint => 'redis://a', peer => 3, said => ['X', 'gone']);
is "$error", 'gone (redis://a, maybe executed)', 'the text has endpoint and fate';
is join('|', $error->code, $error->fate, $error->peer, $error->endpoint), 'X|maybe_executed|3|redis://a', 'the fields';
my $remote = IOKernel::Error->of_status(-301, fate => 3, said => ['WRONGTYPE', 'no list']);
is "$remote", 'WRONGTYPE no list', 'of a peer';

my $wrong = caught(sub { IOKernel->open('redis://127.0.0.1:1', timeout => 'soon') });
isa_ok $wrong, 'IOKernel::ConfigError';
is join('|', $wrong->key, $wrong->value), 'timeout|soon', 'key and value';
like $wrong->expected, qr/\S/, 'what was expected';
like "$wrong", qr/ at \S*errors\.t line \d+\.$/, 'where it was';

like caught(sub { IOKernel->open('redis://:secret@127.0.0.1:1?colour=red') }), qr/colour/, 'a wrong option in the URL';
like caught(sub { IOKernel->open('redis://127.0.0.1:1', pool => [2]) }), qr/pool: .*expected/, 'an array is no option';
like caught(sub { IOKernel::Kernel->new(colour => 'red') }), qr/colour/, 'of a kernel';
like caught(sub { IOKernel->counter('a b') }), qr/name/, 'of a counter';

my $nobody = IOKernel->open('redis://user:secret@127.0.0.1:1', connect_timeout => '100ms');
is $nobody->url, 'redis://user:***@127.0.0.1:1', 'a URL is shown without its secrets';
my $unavailable = caught(sub { $nobody->call({ timeout => 0.3 }, 'PING') });
isa_ok $unavailable, 'IOKernel::Unavailable';
unlike "$unavailable", qr/secret/, 'nor in errors';
isa_ok caught(sub { $nobody->wait_ready(0.2) }), 'IOKernel::Unavailable';

for my $option ({ tiemout => 1 }, { timeout => 'soon' }, { timeout => 'nan' }, { trace => 'x' }) {
    isa_ok caught(sub { $nobody->call($option, 'PING') }), 'IOKernel::BadRequest', join ' ', %$option;
}
isa_ok caught(sub { $nobody->call({ timeout => 0 }, 'PING') }), 'IOKernel::Timeout', 'no time at all';

is timeout_ms(undef), 0, 'the default';
is timeout_ms('inf'), 0xFFFF_FFFF, 'none';
is timeout_ms(0.0001), 1, 'upwards';
is timeout_ms(1.5), 1500, 'in milliseconds';
is timeout_ms(1e12), 0xFFFF_FFFF, 'more than there is';

done_testing;
