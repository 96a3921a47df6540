package IOKernel::Process;

# Notices forks without a system call: a page that the system wipes in a forked child, seen through a read-only scalar.

use v5.36;

use FFI::Platypus 2.00;
use FFI::Platypus::Buffer qw(window);
use Scalar::Util qw(refaddr weaken);

use IOKernel::Library;

our $VERSION = '0.1.0';

use constant {
    PAGE_BYTES          => 4096,
    PROT_READ_AND_WRITE => 3,
    MAP_PRIVATE_OF_NONE => 0x22,
    MADV_WIPEONFORK     => 18,
};

# "\1" in the process that loaded this or began anew, "\0" in a child of it: `ord $HERE or begin_anew()`.
our $HERE;
my $page = _page();
_mark();
window $HERE, $page, 1;

# Grows with each thread that begins: an object that another thread made has a smaller one.
our $THREAD = 0;

# Whatever has handles: told by its method `_forked` in a forked child, by `_cloned` in another thread.
my %holders;

sub _page () {
    my $libc    = FFI::Platypus->new(api => 2, lib => [undef]);
    my $mmap    = $libc->function(mmap => ['opaque', 'size_t', 'int', 'int', 'int', 'sint64'] => 'sint64');
    my $madvise = $libc->function(madvise => ['opaque', 'size_t', 'int'] => 'int');
    my $address = $mmap->call(undef, PAGE_BYTES, PROT_READ_AND_WRITE, MAP_PRIVATE_OF_NONE, -1, 0);
    if ($address == -1 || $madvise->call($address, PAGE_BYTES, MADV_WIPEONFORK) != 0) {
        die "a page that forks wipe: $!: expected Linux 4.14 or later\n";
    }
    return $address;
}

sub _mark () {
    IOKernel::Library::store($page, "\1", 1);
    return;
}

# Tells `holder` of forks and threads for as long as it lives.
sub watch ($holder) {
    weaken($holders{ refaddr $holder } = $holder);
    return;
}

sub forget ($holder) {
    delete $holders{ refaddr $holder };
    return;
}

# In a forked child: nothing of the parent's is touched; everything opens again at its first use.
sub begin_anew () {
    _mark();
    my @holders = grep { defined } values %holders;
    $_->_forked for @holders;
    return;
}

# Perl calls this in each thread that begins, with a copy of everything.
sub CLONE ($class) {
    ++$THREAD;
    my @copied = grep { defined } values %holders;
    %holders = ();
    for my $holder (@copied) {
        watch($holder);
        $holder->_cloned;
    }
    return;
}

1;
