#!/usr/bin/env perl

# First steps: one service, called by a program that waits, and a hundred requests on their way at once.
#
# $ perl first.pl redis://127.0.0.1:6379
# hello
# 100 requests, one connection: 100 replies

use v5.36;
use IOKernel;

# Returns at once. Names, the connection, its heartbeats: all of that lives in the I/O thread from here on.
my $cache = IOKernel->open(shift // 'redis://127.0.0.1:6379');

$cache->call({ timeout => 5 }, 'SET', 'greeting', 'hello');
say $cache->call('GET', 'greeting');

my @asked   = map { $cache->request('GET', 'greeting') } 1 .. 100;
my $replies = grep { $_->get eq 'hello' } @asked;
say "100 requests, one connection: $replies replies";

eval { $cache->call('LPUSH', 'greeting', 'x') };
die $@ unless ref $@ && $@->code eq 'WRONGTYPE';

$cache->call('DEL', 'greeting');
$cache->close;
