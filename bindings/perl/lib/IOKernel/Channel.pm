package IOKernel::Channel;

# The way of one thread, or of one event loop, to the kernel: submissions are gathered for one call, completions are
# copied out at once and given to who waits for them.
#
# Handlers of %SIG run between statements, also inside of this file, and may die. So what must happen together stands in
# one statement, and a run of completions stays in the ring until all of it was handed out: one that is seen twice finds
# its plain replies taken already, and `HANDED` says which of the other records were.

use v5.36;
no warnings qw(experimental::for_list);

use List::Util qw(min);
use Time::HiRes qw(clock_gettime CLOCK_MONOTONIC);

use IOKernel::Completion;
use IOKernel::Error;
use IOKernel::Future;
use IOKernel::Inbox;
use IOKernel::Library;
use IOKernel::Process;
use IOKernel::Record qw(:all);
use IOKernel::Values qw(pack_request unpack_value);

our $VERSION = '0.1.0';

use constant {
    # Tags from here on belong to requests that nobody waits for.
    QUIET_TAG => 1 << 62,
    # The longest single sleep, so that a signal that another thread took is handled soon.
    SLICE_MS => 1000,
    # How long a channel that closes waits for its one-way submissions to be written.
    SETTLE_S => 1,
    # A program that submits faster than the kernel takes is held when it has left this much.
    UNSENT_BYTES_MAX => 4 << 20,
    # So much is given to the kernel without waiting for more.
    GATHERED_BYTES  => 16 << 10,
    RING_BYTES      => 1 << 20,
    WHOLE_BYTES_MAX => 16 << 10,    # A quarter of the smallest ring.
};

# The fields of a channel.
use constant {
    HANDLE       => 0,
    NAMES        => 1,   # URLs by the numbers of endpoints
    PENDING      => 2,   # futures by tags: who waits for DONE
    SINKS        => 3,   # inboxes by tags: who takes everything else of a tag
    LISTENER     => 4,   # an inbox: who takes what has no tag of ours
    OUT          => 5,   # records to be submitted
    NEXT_TAG     => 6,
    NEXT_LOOSE   => 7,
    LOOSE        => 8,   # endpoints that one-way submissions went to
    ENDED        => 9,   # the status that ended it, or 0
    READY        => 10,  # futures and inboxes that are to be told
    RUN_COUNT    => 11,  # runs that were handed out
    HANDED       => 12,  # how far into the present run other records than plain replies were handed out
    PARTS        => 13,  # fragments of a message that is not whole yet
    SCHEDULE     => 14,  # code of a loop: sees to it that what is queued is sent at the end of the turn
    CELLS        => 15,  # three words for what calls give back: the run's address and bytes, how much was taken
    PACKED_CELLS => 16,  # their address, as unpack wants it
    PAYLOAD_MAX  => 17,
    ENDING       => 18,  # code: told once when it ends
};

# What is OK in a run: kind DONE without flags.
use constant PLAIN => unpack 'L', pack 'SS', KIND_DONE, 0;

# What most records begin and end with, by their sizes.
my @SIZES = map { pack 'L', $_ } 0 .. 511;
my @PADS  = map { "\0" x (-$_ & 7) } 0 .. 7;

my %RING_UNITS = ('' => 1, KiB => 1 << 10, MiB => 1 << 20, GiB => 1 << 30);

# `kernel`: a handle. `names`: the URLs of its endpoints by their numbers.
sub new ($class, $kernel, $names, $config = '') {
    my $cells  = IOKernel::Library::allocate(4);
    my $status = IOKernel::Library::channel_open($kernel, $config, $cells);
    if ($status) {
        my $text = IOKernel::Library::last_text();
        IOKernel::Library::free($cells);
        die IOKernel::Error->of_status($status, text => $text, fate => 1)->located;
    }
    my ($handle) = IOKernel::Library::words($cells, 1);
    my $ring = $config =~ /(?:^|&)ring=([0-9]+)([KMG]iB|)/a ? $1 * $RING_UNITS{$2} : RING_BYTES;
    my $self = bless [], $class;
    $self->@[HANDLE, NAMES, PENDING, SINKS, OUT, NEXT_TAG, NEXT_LOOSE, LOOSE, ENDED] =
        ($handle, $names, {}, {}, '', 0, QUIET_TAG, {}, 0);
    $self->@[READY, RUN_COUNT, HANDED, PARTS, CELLS, PACKED_CELLS, PAYLOAD_MAX] =
        ([], 0, 0, [], $cells, pack('J', $cells), $ring / 4 - SUBMISSION_BYTES);
    IOKernel::Process::watch($self);
    return $self;
}

sub ended ($self) { return $self->[ENDED] }

# Readable while completions wait.
sub fd ($self) { return IOKernel::Library::channel_fd($self->[HANDLE]) }

# An event loop watches it: `schedule` sees to it that what is queued is sent, `ending` is told when the channel ends.
sub watch ($self, $schedule, $ending) {
    $self->@[SCHEDULE, ENDING] = ($schedule, $ending);
    return;
}

sub is_watched ($self) { return defined $self->[SCHEDULE] }

# The inbox of who takes what clients ask.
sub listen ($self, $inbox) {
    $self->[LISTENER] = $inbox;
    return;
}

# Submitting

# Queues one request, and gives its future. Those that come one after the other go together: the first at once, those
# behind it when there are some, or when the program waits for anything; in a loop, at the end of its turn. What most
# requests of an endpoint have in common is packed already: `before` stands before the tag, `after` behind it. No
# signature: this is what a request costs.
sub request {
    my ($self, $before, $after, $payload) = @_;
    my $size = SUBMISSION_BYTES + length $payload;
    return $self->_large_request($before, $after, $payload) if $size > WHOLE_BYTES_MAX || $self->[ENDED];
    $self->[SCHEDULE] && $self->[OUT] eq '' && $self->[SCHEDULE]->();
    my $number = ++$self->[NEXT_TAG];
    my $tag    = pack 'Q', $number;
    my $future = bless [IOKernel::Future::PENDING, undef, $self, $number], 'IOKernel::Future';
    $self->[PENDING]{$tag} = $future,
        $self->[OUT] .= ($SIZES[$size] // pack 'L', $size) . $before . $tag . $after . $payload . $PADS[$size & 7];
    $self->_submit_gathered if length $self->[OUT] > GATHERED_BYTES || keys $self->[PENDING]->%* == 1;
    return $future;
}

# The first request goes at once.
sub _submit_gathered ($self) {
    if (keys $self->[PENDING]->%* == 1 && !$self->[SCHEDULE]) {
        $self->_submit == STATUS_OK or $self->flush;
    } elsif (length $self->[OUT] > GATHERED_BYTES) {
        $self->send_now;
    }
    return;
}

sub _large_request ($self, $before, $after, $payload) {
    my $future = IOKernel::Future->new($self);
    my ($op, $flags, $endpoint, $timeout_ms) = unpack BEFORE_TAG, $before;
    $self->submit($op, $flags, $endpoint, $timeout_ms, unpack('Q', $after), $payload, $future);
    $self->send_now;
    return $future;
}

# Queues one submission of any kind and size. DONE goes to `future`, everything else to the inbox. Returns its tag.
sub submit ($self, $op, $flags, $endpoint, $timeout_ms, $key, $payload, $future = undef, $inbox = undef, $tag = undef) {
    die $self->ended_error if $self->[ENDED];
    $self->[LOOSE]{$endpoint} = 1 if $flags & FLAG_QUIET;
    $tag //= pack 'Q', $future || $inbox ? ++$self->[NEXT_TAG] : ++$self->[NEXT_LOOSE];
    my ($total, $step) = (length $payload, $self->[PAYLOAD_MAX]);
    my $is_whole = $total <= $step;
    my $records  = '';
    for (my $at = 0; $at < ($total || 1); $at += $step) {
        my $part = $is_whole ? $payload : substr $payload, $at, $step;
        my $more = $at + $step >= $total ? 0 : FLAG_MORE;
        my $head = $is_whole || $at ? 0 : $total;
        my $size = SUBMISSION_BYTES + length $part;
        $records .= pack SUBMISSION, $size, $op, $flags | $more, $endpoint, $timeout_ms, $tag, $key, $head, $part;
    }
    $self->[SCHEDULE] && $self->[OUT] eq '' && $self->[SCHEDULE]->();
    $self->[PENDING]{$tag} = $future if $future;
    $self->[SINKS]{$tag}   = $inbox  if $inbox;
    $future->[IOKernel::Future::TAG] = unpack 'Q', $tag if $future;
    $self->[OUT] .= $records;
    return $tag;
}

# Asks to end what is under way; who waited hears no more of it. `instead` takes what comes all the same.
sub cancel ($self, $tag, $instead = undef) {
    my $future = delete $self->[PENDING]{$tag};
    my $sink   = delete $self->[SINKS]{$tag};
    return !!0 unless $future || $sink;
    $self->[PENDING]{$tag} = $instead if $instead;
    return !!1 if $self->[ENDED];
    $self->[SCHEDULE] && $self->[OUT] eq '' && $self->[SCHEDULE]->();
    $self->[OUT] .= pack SUBMISSION, SUBMISSION_BYTES, OP_CANCEL, 0, 0, 0, $tag, 0, 0, '';
    return !!1;
}

# Submits what is queued, as much as fits, in one call.
sub flush ($self) {
    until ($self->[OUT] eq '' || $self->[ENDED]) {
        my $status = $self->_submit;
        next if $status == STATUS_OK;
        last if $status == STATUS_FULL;
        if ($status == STATUS_TOO_LARGE) {
            $self->_drop_first;
        } else {
            $self->_end($status);
        }
    }
    return;
}

sub _submit ($self) {
    # One statement: nothing is sent twice, whatever a signal's handler does.
    return (
        IOKernel::Library::submit_batch($self->[HANDLE], $self->[OUT], length $self->[OUT], $self->[CELLS] + 16),
        substr $self->[OUT], 0, unpack('x16 Q', unpack 'P24', $self->[PACKED_CELLS]), ''
    )[0];
}

# The first record cannot be taken: whoever waits for it is told.
sub _drop_first ($self) {
    my ($size, undef, $flags, $endpoint, $tag) = unpack SUBMISSION_HEAD, $self->[OUT];
    my $at = _padded($size);
    while ($flags & FLAG_MORE) {
        ($size, undef, $flags) = unpack "x$at " . SUBMISSION_HEAD, $self->[OUT];
        $at += _padded($size);
    }
    substr $self->[OUT], 0, $at, '';
    my $refused = IOKernel::Completion->of_status(STATUS_TOO_LARGE, $endpoint, $tag, 1);
    $self->_complete($refused, $self->[HANDED]);
    $self->_tell;
    return;
}

sub _padded ($size) { return $size + 7 & ~7 }

# Outside of loops: submits what is queued. A program that is far ahead of the kernel is held here.
sub send_now ($self) {
    $self->flush if !$self->[SCHEDULE] || length $self->[OUT] > GATHERED_BYTES;
    while (!$self->[SCHEDULE] && length $self->[OUT] > UNSENT_BYTES_MAX && !$self->[ENDED]) {
        $self->turn(undef);
    }
    return;
}

# Completing

# Hands out what has completed: one run of the ring. Returns how many completions there were.
sub poll ($self) {
    my $handle = $self->[HANDLE] or return 0;
    my $cells  = $self->[CELLS];
    my $count  = IOKernel::Library::poll($handle, $cells, $cells + 8) or return $self->_poll_empty;
    my $words  = unpack 'P16', $self->[PACKED_CELLS];
    my $bytes = unpack 'x8 Q', $words;
    my $run   = unpack "P$bytes", $words;
    my $round = $self->[RUN_COUNT];
    my $done  = $self->[PARTS]->@* ? 0 : $self->_hand_out_plain(\$run);
    $self->_hand_out(\$run, $done, $round) if $done < $count;
    if ($self->[RUN_COUNT] == $round && $self->[HANDLE]) {
        $self->@[RUN_COUNT, HANDED] = ($round + 1, 0), IOKernel::Library::advance($self->[HANDLE], $bytes);
    }
    $self->_tell if $self->[READY]->@*;
    return $count;
}

# Replies as most are, until a record is something else. Returns how many there were. IOKernel::Native has a twin.
sub _hand_out_plain ($self, $run) {
    my ($pending, $ready, $count) = ($self->@[PENDING, READY], 0);
    # Unpacking dies where fragments stand between: then nothing is handed out here.
    for my ($word, $head, $tag, $encoding, $payload) (eval { unpack RUN, $$run }) {
        last if $word != PLAIN || $head >> 32;
        if ($encoding != ENCODING_BYTES) {
            if ($encoding == ENCODING_TEXT) {
                utf8::upgrade($payload) if utf8::decode($payload);
            } elsif ($encoding == ENCODING_MSGPACK) {
                $payload = unpack_value($payload);
            } elsif ($encoding == ENCODING_NONE) {
                $payload = undef;
            }
        }
        my $future = $pending->{$tag} or last;
        # One statement, see above.
        delete $pending->{$tag},
            $future->[IOKernel::Future::VALUE] = $payload,
            $future->[IOKernel::Future::STATE] = IOKernel::Future::DONE;
        push @$ready, $future if $future->[IOKernel::Future::CALLBACKS];
        ++$count;
    }
    die $@ if !$count && $@ ne '' && $@ !~ / in unpack /;
    return $count;
}

# Everything else, from the record `number` on.
sub _hand_out ($self, $run, $number, $round) {
    my ($at, $end) = (0, length $$run);
    while ($at < $end) {
        my ($size, $kind, $flags, @rest) = unpack "x$at " . COMPLETION, $$run;
        my $from = $at + COMPLETION_BYTES;
        my $next = $at + _padded($size);
        my $is_handed = $number-- > 0 || $self->[RUN_COUNT] != $round || $at < $self->[HANDED];
        $at = $next;
        next if $is_handed || $kind == KIND_TICK;
        my $payload = substr $$run, $from, $size - COMPLETION_BYTES;
        if ($flags & FLAG_MORE) {
            $self->[HANDED] = $next, push $self->[PARTS]->@*, $payload;
            next;
        }
        $payload = join '', $self->[PARTS]->@*, $payload if $self->[PARTS]->@*;
        $self->_complete(IOKernel::Completion->new($kind, @rest, $payload), $next);
    }
    return;
}

# Hands out one completion; the run is handed out up to `next` then.
sub _complete ($self, $completion, $next) {
    my ($kind, $tag) = @$completion{qw(kind tag)};
    my ($ready, $pending) = $self->@[READY, PENDING];
    if ($kind == KIND_DONE && $pending->{$tag}) {
        my $future = $pending->{$tag};
        my @result = $completion->outcome($self->[NAMES]);
        # One statement, see above; so below.
        delete $pending->{$tag}, delete $self->[SINKS]{$tag},
            $future->@[IOKernel::Future::STATE, IOKernel::Future::VALUE] = @result,
            push(@$ready, $future), $self->@[PARTS, HANDED] = ([], $next);
        return;
    }
    my $inbox = $kind == KIND_DONE ? delete $self->[SINKS]{$tag} : $self->[SINKS]{$tag};
    if ($inbox //= $self->[LISTENER]) {
        push($inbox->[IOKernel::Inbox::COMPLETIONS]->@*, $completion), push(@$ready, $inbox),
            $self->@[PARTS, HANDED] = ([], $next);
        return;
    }
    $self->@[PARTS, HANDED] = ([], $next);
    warn 'iokernel: a one-way request failed: ' . $completion->error($self->[NAMES]) . "\n"
        if unpack('Q', $tag) > QUIET_TAG && $completion->{status} && !$self->[ENDED];
    return;
}

# Tells what became ready; its callbacks may wait for this channel themselves.
sub _tell ($self) {
    my $ready = $self->[READY];
    while (my $each = $ready->[0]) {
        $each->told;
        shift @$ready if @$ready && $ready->[0] == $each;
    }
    return;
}

# Nothing was there: has the channel ended?
sub _poll_empty ($self) {
    my $status = IOKernel::Library::channel_status($self->[HANDLE]);
    $self->_end($status) if $status;
    return 0;
}

# Waiting

# Submits what is queued, sleeps until something has completed or there is room, and hands it out. False if the
# deadline (seconds of CLOCK_MONOTONIC; undef: none) is over, or the channel has ended.
sub turn ($self, $deadline) {
    ord $IOKernel::Process::HERE or IOKernel::Process::begin_anew();
    if ($self->[READY]->@*) {    # An exception has left them.
        $self->_tell;
        return !!1;
    }
    return !!0 if $self->[ENDED];
    $self->flush if $self->[OUT] ne '';
    my $slice = SLICE_MS;
    if (defined $deadline) {
        my $left_ms = 1000 * ($deadline - clock_gettime(CLOCK_MONOTONIC));
        if ($left_ms <= 0) {
            $self->poll;    # What came while nobody waited is there, however short the time.
            return !!0;
        }
        $slice = min $slice, 1 + int $left_ms;
    }
    my $status = IOKernel::Library::wait($self->[HANDLE], $slice);
    if ($status == STATUS_OK) {
        $self->poll;
    } elsif ($status != STATUS_TIMEOUT && $status != STATUS_INTERRUPTED) {
        $self->_end($status);
    }
    return !!1;
}

# One operation, waiting for its end. Its completion; throws what it failed with.
sub operate ($self, $op, $flags, $endpoint, $timeout_ms, $key, $payload) {
    my $inbox = IOKernel::Inbox->new(undef);
    my $tag   = $self->submit($op, $flags, $endpoint, $timeout_ms, $key, $payload, undef, $inbox);
    my $came  = $inbox->[IOKernel::Inbox::COMPLETIONS];
    if (!eval { $self->turn(undef) until @$came || $self->[ENDED]; 1 }) {
        my $why = $@;
        $self->cancel($tag);
        $self->send_now;
        die $why;
    }
    my $completion = $came->[0] or die $self->ended_error;
    die $completion->error($self->[NAMES])->located if $completion->{status};
    return $completion;
}

# Waits for a future, whatever becomes of it. What interrupts the wait cancels what it was for.
sub await ($self, $future) {
    return if $future->[IOKernel::Future::STATE];
    return if eval {
        until ($future->[IOKernel::Future::STATE]) { $self->turn(undef) }
        1;
    };
    my $why = $@;
    $self->cancel(pack('Q', $future->[IOKernel::Future::TAG]), $future->[IOKernel::Future::INSTEAD]);
    $self->send_now;
    die $why;
}

# Ending

sub ended_error ($self) {
    my $status = $self->[ENDED];
    return IOKernel::Error->of_status($status, fate => 1, text => $self->_why($status))->located;
}

# What a status alone does not say.
sub _why ($self, $status) {
    return 'it belongs to another thread' if $status == STATUS_BAD_HANDLE;
    return $status == STATUS_CLOSED || $status == STATUS_FORKED ? '' : IOKernel::Library::last_text();
}

# The channel is of no use any more: whoever waits is told.
sub _end ($self, $status) {
    return if $self->[ENDED];
    $self->[ENDED] = $status, $self->[OUT] = '';
    my ($pending, $sinks) = $self->@[PENDING, SINKS];
    $self->@[PENDING, SINKS] = ({}, {});
    for my $future (values %$pending) {
        $future->_settle(IOKernel::Future::FAILED, IOKernel::Error->of_status($status, fate => 2));
    }
    my $last = IOKernel::Completion->of_status($status, 0, '', 2);
    for my $inbox (values %$sinks, $self->[LISTENER] // ()) {
        push $inbox->[IOKernel::Inbox::COMPLETIONS]->@*, $last;
        $inbox->told;
    }
    my $ending = $self->[ENDING];
    $self->@[SCHEDULE, ENDING] = ();
    $ending->() if $ending;
    return;
}

# One-way submissions are written before the channel goes: once their endpoints are up, they are.
sub _settle ($self) {
    my @answers = map {
        my $answer = IOKernel::Future->new($self);
        $self->submit(OP_STATE, FLAG_UNTIL_UP, $_, 1000 * SETTLE_S, 0, '', $answer);
        $answer;
    } sort keys $self->[LOOSE]->%*;
    my $deadline = clock_gettime(CLOCK_MONOTONIC) + SETTLE_S;
    while (grep { !$_->[IOKernel::Future::STATE] } @answers) {
        $self->turn($deadline) or last;
    }
    return;
}

# Ends everything under way. Twice is harmless.
sub close ($self) {
    return unless $self->[HANDLE];
    $self->_settle if $self->[LOOSE]->%* && !$self->[ENDED];
    $self->_end(STATUS_CLOSED);
    $self->_free;
    return;
}

# In a forked child: what the parent has under way is the parent's.
sub _forked ($self) {
    my $handle = $self->_abandon(STATUS_FORKED) or return;
    IOKernel::Library::channel_close($handle);
    return;
}

# In another thread: the channel is that of the one that made it.
sub _cloned ($self) {
    $self->_abandon(STATUS_BAD_HANDLE);
    return;
}

sub _abandon ($self, $status) {
    for my $future (values $self->[PENDING]->%*) {
        # Nobody here is called about it.
        $future->[IOKernel::Future::CALLBACKS] = undef;
        my $error = IOKernel::Error->of_status($status, fate => 2, text => $self->_why($status));
        $future->@[IOKernel::Future::STATE, IOKernel::Future::VALUE] = (IOKernel::Future::FAILED, $error);
    }
    $self->@[PENDING, SINKS, READY, LISTENER] = ({}, {}, [], undef);
    $self->@[SCHEDULE, ENDING] = ();
    $self->[ENDED] ||= $status;
    $self->[OUT] = '';
    my $handle = $self->[HANDLE];
    $self->[HANDLE] = 0;
    return $handle;
}

sub _free ($self) {
    my $handle = $self->[HANDLE] or return;
    $self->[HANDLE] = 0;
    IOKernel::Library::channel_close($handle);
    IOKernel::Library::free($self->[CELLS]);
    return;
}

sub DESTROY ($self) {
    IOKernel::Process::forget($self);
    return if ${^GLOBAL_PHASE} eq 'DESTRUCT';
    local ($@, $!, $?);
    eval { $self->close; 1 } or warn "iokernel: a channel could not be closed: $@";
    return;
}

1;
