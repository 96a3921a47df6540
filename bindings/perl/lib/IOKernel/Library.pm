package IOKernel::Library;

# Finds and loads the library, and attaches its functions: each once, for all of the binding.

use v5.36;

use File::Spec;
use FFI::Platypus 2.00;
use FFI::Platypus::Memory qw(free malloc);

our $VERSION = '0.1.0';

use constant {
    ABI_VERSION => 1,
    NAME        => 'libiokernel.so',
};

# Name, arguments, result. Handles and pointers are numbers; `string` passes the bytes of a scalar, whatever is in them.
my @FUNCTIONS = (
    [iok_abi_version      => [],                                          'uint32'],
    [iok_features         => [],                                          'uint64'],
    [iok_kernel_open      => ['string', 'opaque'],                        'sint32'],
    [iok_kernel_close     => ['opaque', 'uint32'],                        'sint32'],
    [iok_channel_open     => ['opaque', 'string', 'opaque'],              'sint32'],
    [iok_channel_close    => ['opaque'],                                  'sint32'],
    [iok_channel_fd       => ['opaque'],                                  'sint32'],
    [iok_channel_status   => ['opaque'],                                  'sint32'],
    [iok_submit_batch     => ['opaque', 'string', 'size_t', 'opaque'],    'sint32'],
    [iok_wait             => ['opaque', 'sint32'],                        'sint32'],
    [iok_poll             => ['opaque', 'opaque', 'opaque'],              'size_t'],
    [iok_advance          => ['opaque', 'size_t'],                        'sint32'],
    [iok_cells            => ['opaque', 'string', 'opaque', 'opaque'],    'sint32'],
    [iok_marker_slot      => ['opaque', 'opaque'],                        'sint32'],
    [iok_stack_open       => ['opaque', 'opaque', 'opaque'],              'sint32'],
    [iok_stack_arm        => ['opaque', 'uint32'],                        'sint32'],
    [iok_stack_close      => ['opaque', 'opaque'],                        'sint32'],
    [iok_status_name      => ['sint32'],                                  'string'],
    [iok_status_text      => ['sint32'],                                  'string'],
    [iok_status_retriable => ['sint32'],                                  'bool'],
    [iok_last_error       => [],                                          'string'],
);

our $PATH = _find();
_attach($PATH);

# Where the library may be: IOKERNEL_LIBRARY, the installation's own share, the source tree that this file is in, the
# system's folders.
sub _candidates () {
    my ($volume, $folders) = File::Spec->splitpath(File::Spec->rel2abs(__FILE__));
    my @found = File::Spec->catpath($volume, $folders, NAME);
    my @up    = File::Spec->splitdir(File::Spec->canonpath($folders));
    while (@up > 1) {
        my $root = File::Spec->catpath($volume, File::Spec->catdir(@up));
        if (-f File::Spec->catfile($root, 'Cargo.toml')) {
            my $target = $ENV{CARGO_TARGET_DIR} // File::Spec->catdir($root, 'target');
            push @found, File::Spec->catfile($target, 'release', NAME);
            last;
        }
        pop @up;
    }
    return @found;
}

sub _find () {
    if (length(my $given = $ENV{IOKERNEL_LIBRARY} // '')) {
        -f $given or die "IOKERNEL_LIBRARY: \"$given\": expected the path of " . NAME . "\n";
        return $given;
    }
    my @tried = _candidates();
    for my $path (@tried) {
        return $path if -f $path;
    }
    require FFI::CheckLib;
    my $installed = FFI::CheckLib::find_lib(lib => 'iokernel');
    return $installed if $installed;
    my $listed = join ', ', @tried;
    die NAME . " was not found ($listed, the system's folders): "
        . "build it with `cargo build --release`, or set IOKERNEL_LIBRARY to its path\n";
}

sub _attach ($path) {
    my $ffi     = FFI::Platypus->new(api => 2, lib => [$path]);
    my $version = eval { $ffi->function(iok_abi_version => [] => 'uint32')->call }
        // die "$path: cannot be loaded: it is no " . NAME . "\n";
    $version == ABI_VERSION
        or die "$path: ABI version $version: expected ${\ABI_VERSION}, as this binding was made for\n";
    $ffi->attach([$_->[0] => $_->[0] =~ s/^iok_//r], $_->[1] => $_->[2]) for @FUNCTIONS;
    my $libc = FFI::Platypus->new(api => 2, lib => [undef]);
    $libc->attach([memcpy => 'store'], ['opaque', 'string', 'size_t'] => 'opaque');
    return;
}

# Where a function is, for C that calls it.
sub address ($name) {
    return FFI::Platypus->new(api => 2, lib => [$PATH])->find_symbol("iok_$name");
}

# The text of this thread's last error.
sub last_text () {
    my $text = last_error();
    utf8::decode($text);
    return $text;
}

# Room for words that calls fill in, to be read with `words`. It lives as long as the process.
sub allocate ($count) { return malloc(8 * $count) }

# Words of memory, as numbers.
sub words ($address, $count) {
    return unpack 'Q*', unpack 'P' . 8 * $count, pack 'J', $address;
}

1;
