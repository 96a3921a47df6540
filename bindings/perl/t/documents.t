use v5.36;
use lib 't/lib';
use File::Temp  ();
use Pod::Checker ();
use IOKernel::Test;

my $EXAMPLES = '../../examples/perl';
plan skip_all => 'the examples are in the source tree' unless -d $EXAMPLES;
my $server = server();

# The output that the comment of an example says.
sub expected ($path) {
    open my $file, '<', $path or die "$path: $!\n";
    my @lines = grep { /^#/ .. /^$/ } <$file>;
    my ($command, @said) = map { s/^# ?//r } grep { /^# \$ perl/ .. !/^#/ } @lines;
    return join '', grep { /\S/ } @said;
}

sub output (@command) {
    open my $program, '-|', @command or die "$command[0]: $!\n";
    my $said = do { local $/; <$program> };
    close $program;
    return ($said // '', $?);
}

for my $path (sort glob "$EXAMPLES/*.pl") {
    my ($said, $status) = output($^X, '-Ilib', $path, $server->url);
    is $said, expected($path), $path;
    is $status, 0, 'its exit status';
}

subtest 'README.md' => sub {
    open my $file, '<', 'README.md' or die "README.md: $!\n";
    my $readme = do { local $/; <$file> };
    my @programs = $readme =~ /^```perl\n(.*?)^```/gms;
    ok scalar @programs, 'it has programs';
    for my $program (@programs) {
        my $script = File::Temp->new(SUFFIX => '.pl');
        print $script $program =~ s{redis://127\.0\.0\.1:6379}{$server->url}ger;
        close $script;
        my ($said, $status) = output($^X, '-Ilib', "$script");
        is $status, 0, (split /\n/, $program)[0] . ' ...';
        for my $line ($program =~ /# prints: (.*)$/gm) {
            like $said, qr/^\Q$line\E$/m, "prints $line";
        }
    }
};

subtest 'POD' => sub {
    for my $path (map { "lib/IOKernel$_.pm" } '', qw(/Error /Future /Loop)) {
        my $checker = Pod::Checker->new(-warnings => 1, -quiet => 1);
        open my $nowhere, '>', \my $said;
        $checker->parse_from_file($path, $nowhere);
        is $checker->num_errors + $checker->num_warnings, 0, $path or diag $said;
    }
    open my $file, '<', 'lib/IOKernel.pm' or die;
    my $pod = do { local $/; <$file> };
    my @classes = qw(Caller Counter Endpoint Gauge Histogram Kernel Lease Listener Request Subscription Sum);
    for my $class ('IOKernel', map { "IOKernel::$_" } @classes) {
        no strict 'refs';
        my @public = grep { /^[a-z]/ && defined &{"${class}::$_"} } keys %{"${class}::"};
        my %imported = map { $_ => 1 } qw(
            text bytes pack_value pack_request decode timeout_ms weaken blessed refaddr shown query with_options
            window looks_like_number route_key clock_gettime quote packer_for open_channel thread_channel block
            open_number remember forget wait_until_up new is_begun is_settled acquire endpoint loop is_held name labels
        );
        for my $method (sort grep { !$imported{$_} } @public) {
            ok $pod =~ /\b\Q$method\E\b/, "${class}->$method is documented";
        }
    }
};

done_testing;
