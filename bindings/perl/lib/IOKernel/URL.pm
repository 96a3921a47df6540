package IOKernel::URL;

# URLs and their options.

use v5.36;
no warnings qw(experimental::builtin);

use Exporter 'import';

use IOKernel::Error;
use IOKernel::Record qw(STATUS_BAD_CONFIG);

our $VERSION   = '0.1.0';
our @EXPORT_OK = qw(query quote shown with_options);

# Percent-encoded, as UTF-8.
sub quote ($text) {
    utf8::encode($text);
    return $text =~ s/([^A-Za-z0-9_.~-])/sprintf '%%%02X', ord $1/gear;
}

# Options as `key=value&key=value`. undef leaves an option out.
sub query ($options) {
    my @given = grep { defined $options->{$_} } sort keys %$options;
    return join '&', map { quote($_) . '=' . quote(_option($_, $options->{$_})) } @given;
}

sub _option ($key, $value) {
    return $value ? 'true' : 'false' if builtin::is_bool($value) || ref($value) =~ /Boolean\z/;
    return "$value" unless ref $value;
    die IOKernel::Error->of_status(
        STATUS_BAD_CONFIG,
        text => qq($key: "$value": expected text, a number or a boolean, as in heartbeat => '5s'),
        fate => 1,
    )->located;
}

# A URL whose query has these options too.
sub with_options ($url, $options) {
    my $more = query($options) or return $url;
    my $joint = $url =~ /[?&]\z/ ? '' : $url =~ /\?/ ? '&' : '?';
    return "$url$joint$more";
}

# A URL without its query and password.
sub shown ($url) {
    my ($before) = split /\?/, $url, 2;
    return $before =~ s{^([^/]*//[^/:@]*)(?::[^/]*)?@}{$1:***@}r;
}

1;
