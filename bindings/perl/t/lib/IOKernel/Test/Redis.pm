package IOKernel::Test::Redis;

# A redis-server of one's own, on a free port of this machine, that goes with the object.

use v5.36;

use File::Temp ();
use IO::Socket::INET;
use POSIX ();
use Time::HiRes qw(sleep time);

use IOKernel::Process;

use constant WAIT_S => 10;

# True if the program is there.
sub is_there ($class) {
    return !!grep { -x "$_/redis-server" } split /:/, $ENV{PATH};
}

sub new ($class) {
    for (1 .. 5) {
        my $self = bless { folder => File::Temp->newdir, owner => $$, port => _free_port() }, $class;
        $self->{thread} = $IOKernel::Process::THREAD;
        return $self if $self->_start;
    }
    die "redis-server does not start\n";
}

sub port ($self) { return $self->{port} }
sub url  ($self) { return "redis://127.0.0.1:$self->{port}" }
sub pid  ($self) { return $self->{pid} }

sub _free_port () {
    my $socket = IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1') or die "a free port: $@\n";
    return $socket->sockport;
}

sub _start ($self) {
    my @options = (
        '--port' => $self->{port},
        '--bind' => '127.0.0.1',
        '--dir'  => "$self->{folder}",
        '--save' => '',
        '--appendonly'           => 'no',
        '--enable-debug-command' => 'yes',
    );
    $self->{pid} = fork // die "fork: $!\n";
    if (!$self->{pid}) {
        open STDOUT, '>', "$self->{folder}/log";
        open STDERR, '>&', \*STDOUT;
        { exec 'redis-server', @options }
        POSIX::_exit(127);
    }
    my $until = time + WAIT_S;
    while (time < $until && !waitpid $self->{pid}, POSIX::WNOHANG) {
        return 1 if IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $self->{port}, Timeout => 1);
        sleep 0.02;
    }
    return 0;
}

sub DESTROY ($self) {
    return unless $self->{pid} && $self->{owner} == $$ && $self->{thread} == $IOKernel::Process::THREAD;
    local ($?, $!);
    kill KILL => $self->{pid};
    waitpid $self->{pid}, 0;
    return;
}

1;
