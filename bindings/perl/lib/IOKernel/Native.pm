package IOKernel::Native;

# What every request and reply goes through, in C, where a compiler was there when this was installed. Without it, or
# with IOKERNEL_PURE_PERL, the subs in Perl do the same.

use v5.36;

use File::Spec;
use XSLoader;

use IOKernel::Caller;
use IOKernel::Channel;
use IOKernel::Future;
use IOKernel::Library;
use IOKernel::Process;
use IOKernel::Record;

our $VERSION = '0.1.0';

# Whether it is there.
our $LOADED = !$ENV{IOKERNEL_PURE_PERL} && _load();
if ($LOADED) {
    _use(map { IOKernel::Library::address($_) } qw(submit_batch poll advance));
    _replace(map { "Channel::$_" } qw(_submit poll _hand_out_plain _tell));
    _replace(qw(Caller::request Future::get Future::on_ready));
}

# In a source tree it is where `make` leaves it.
sub _load () {
    my ($volume, $folder) = File::Spec->splitpath(File::Spec->rel2abs(__FILE__));
    my $built = File::Spec->catpath($volume, File::Spec->catdir($folder, ('..') x 2, qw(blib arch)));
    local @INC = -d $built ? ($built, @INC) : @INC;
    local $@;
    return eval { XSLoader::load(__PACKAGE__, $VERSION); 1 };
}

# The twins in Perl stay within reach, for what is not plain.
sub _replace (@names) {
    no strict 'refs';
    no warnings 'redefine';
    for my $name (@names) {
        my ($package, $sub) = split /::/, $name;
        *{"perl_$sub"} = \&{"IOKernel::$name"};
        *{"IOKernel::$name"} = \&$sub;
    }
    return;
}

1;
