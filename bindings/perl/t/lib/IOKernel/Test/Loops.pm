package IOKernel::Test::Loops;

# Every way to wait that there is, with one face for tests: a thread, and the loops that are installed.

use v5.36;

use IOKernel;
use Time::HiRes ();

# Classes of what is there.
sub available () {
    return 'IOKernel::Test::Thread', grep { $_->is_there } map { "IOKernel::Test::$_" } qw(AnyEvent IOAsync Mojo);
}

package IOKernel::Test::Thread {
    sub name     ($class) { return $class =~ s/.*:://r }
    sub is_there ($class) { return 1 }
    sub is_loop  ($class) { return 0 }
    sub new ($class, $kernel) { return bless { kernel => $kernel }, $class }
    sub open     ($self, $url, %options) { return $self->{kernel}->open($url, %options) }
    sub await    ($self, $promise) { return $promise->get }
    sub sleep    ($self, $seconds) { Time::HiRes::sleep($seconds); return }
    sub close    ($self) { return }
}

package IOKernel::Test::Looped {
    our @ISA = 'IOKernel::Test::Thread';
    sub is_loop ($class) { return 1 }

    sub open  ($self, $url, %options) { return $self->{bridge}->open($url, %options) }
    sub close ($self) { $self->{bridge}->close; return }
}

package IOKernel::Test::AnyEvent {
    our @ISA = 'IOKernel::Test::Looped';
    sub is_there ($class) { return eval { require EV; require IOKernel::Loop::AnyEvent; 1 } }

    sub new ($class, $kernel) {
        return bless { bridge => IOKernel::Loop::AnyEvent->new(kernel => $kernel) }, $class;
    }
    sub await ($self, $promise) { return $promise->recv }

    sub sleep ($self, $seconds) {
        my $over  = AnyEvent->condvar;
        my $timer = AnyEvent->timer(after => $seconds, cb => $over);
        $over->recv;
        return;
    }

    sub every ($self, $seconds, $code) { return AnyEvent->timer(interval => $seconds, after => $seconds, cb => $code) }
}

package IOKernel::Test::IOAsync {
    our @ISA = 'IOKernel::Test::Looped';
    sub is_there ($class) { return eval { require IO::Async::Timer::Periodic; require IOKernel::Loop::IOAsync; 1 } }

    sub new ($class, $kernel) {
        my $loop   = IO::Async::Loop->really_new;
        my $bridge = IOKernel::Loop::IOAsync->new(kernel => $kernel, loop => $loop);
        return bless { loop => $loop, bridge => $bridge }, $class;
    }
    sub await ($self, $promise) { return $promise->get }
    sub sleep ($self, $seconds) { $self->{loop}->delay_future(after => $seconds)->get; return }

    sub every ($self, $seconds, $code) {
        my $timer = IO::Async::Timer::Periodic->new(interval => $seconds, on_tick => $code);
        $timer->start;
        $self->{loop}->add($timer);
        return $timer;
    }
}

package IOKernel::Test::Mojo {
    our @ISA = 'IOKernel::Test::Looped';
    sub is_there ($class) { return eval { require IOKernel::Loop::Mojo; 1 } }

    sub new ($class, $kernel) {
        my $loop = Mojo::IOLoop->new;
        return bless { loop => $loop, bridge => IOKernel::Loop::Mojo->new(kernel => $kernel, ioloop => $loop) }, $class;
    }

    sub await ($self, $promise) {
        my ($value, $why);
        $promise->then(sub ($came = undef, @) { $value = $came }, sub ($error, @) { $why = $error })->wait;
        die $why if defined $why;
        return $value;
    }

    sub sleep ($self, $seconds) {
        $self->{loop}->timer($seconds => sub ($loop) { $loop->stop });
        $self->{loop}->start;
        return;
    }

    sub every ($self, $seconds, $code) { return $self->{loop}->recurring($seconds => $code) }
}

1;
