#!/usr/bin/env perl

# Publish and subscribe inside Mojolicious' loop: a subscription shares the connection with requests.
#
# $ perl pubsub.pl redis://127.0.0.1:6379
# weather: sun
# weather: rain
# weather: snow

use v5.36;
use IOKernel::Loop::Mojo;

my $loop   = IOKernel::Loop::Mojo->new;
my $cache  = $loop->open(shift // 'redis://127.0.0.1:6379');
my $stream = $cache->subscribe({ timeout => 5 }, 'SUBSCRIBE', 'weather');
my $seen   = 0;

$stream->each(sub ($message) {
    my ($kind, $channel, $weather) = @$message;
    say "$channel: $weather";
    Mojo::IOLoop->stop if ++$seen == 3;
});

# What is published once the server has accepted the subscription is seen.
$stream->accepted->then(sub ($) {
    $cache->send('PUBLISH', 'weather', $_) for qw(sun rain snow);
})->catch(sub ($error) {
    warn $error;
    Mojo::IOLoop->stop;
});

Mojo::IOLoop->start;
$stream->close;
$cache->close;
exit($seen == 3 ? 0 : 1);
