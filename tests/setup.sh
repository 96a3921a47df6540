#!/usr/bin/env bash
# Brings a fresh machine to where `make test` can run: Debian's packages where we may install them, and a .venv.
# Quick when nothing changed: each part leaves a stamp that names what it was made from.
#
#   tests/setup.sh            everything
#   tests/setup.sh python     one part: system, python, statsd, node, native_perl; or bench, what `make bench` alone needs
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p .stamps

# A command that must be there, and the Debian package that brings it; `-` for a package without one.
needs="
  cc gcc
  cmake cmake
  pkg-config pkg-config
  redis-server redis-server
  valgrind valgrind
  dnsmasq dnsmasq-base
  named bind9
  nsupdate bind9-dnsutils
  ip iproute2
  chromium chromium
  promtool prometheus
  node nodejs
  npm npm
  nginx nginx-light
  haproxy haproxy
  tinyproxy tinyproxy
  microsocks microsocks
  openssl openssl
  pg_ctlcluster postgresql
  pgbouncer pgbouncer
  curl curl
  stunnel4 stunnel4
  c++ g++
  pypy3 pypy3
  - libhiredis-dev
  ruby ruby
  puma puma
  unicorn unicorn
  - ruby-dev
  - ruby-ffi
  - ruby-msgpack
  - ruby-minitest
  lua5.4 lua5.4
  luajit luajit
  - liblua5.4-dev
  - libluajit-5.1-dev
  - lua-luv
  - lua-posix
  - lua-cjson
  - libffi-platypus-perl
  - libdata-messagepack-perl
  - libanyevent-perl
  - libev-perl
  - libio-async-perl
  - libmojolicious-perl
"

main() {
  case "${1:-all}" in
    all) system; python; statsd; node; native_perl ;;
    system | python | statsd | node | native_perl | bench) "$1" ;;
    *) echo "usage: $0 [system|python|statsd|node|native_perl|bench]" >&2; exit 2 ;;
  esac
}

# Never fails: a test whose server or tool is missing says so and is skipped.
system() {
  local packages
  packages=$(missing 2)
  [ -n "$packages" ] || return 0
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    install_debian "$packages" || echo "setup: apt-get could not install $packages" >&2
  fi
  [ -z "$(missing 1)" ] || echo "setup: going on without: $(missing 1) (Debian: $(missing 2))" >&2
}

# The commands ($1 = 1) or packages ($1 = 2) that are not there, on one line.
missing() {
  local command package
  while read -r command package; do
    if [ -n "$command" ] && ! is_there "$command" "$package"; then
      [ "$1" = 1 ] && [ "$command" != - ] && echo "$command" || echo "$package"
    fi
  done <<<"$needs" | sort -u | xargs
}

# A package without a command is there if dpkg has the list of its files.
is_there() {
  [ "$1" = - ] || { command -v "$1" >/dev/null; return; }
  compgen -G "/var/lib/dpkg/info/$2.list" >/dev/null || compgen -G "/var/lib/dpkg/info/$2:*.list" >/dev/null
}

# Servers are installed to be started by tests, each a private instance: none may start by itself. A policy-rc.d
# that is already there is left alone.
install_debian() {
  local policy=/usr/sbin/policy-rc.d status=0 ours=
  if [ ! -e "$policy" ]; then
    ours=1
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
  fi
  # shellcheck disable=SC2086
  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $1 >/dev/null || status=$?
  [ -z "$ours" ] || rm -f "$policy"
  return "$status"
}

python() {
  local python=${PYTHON:-python3} want
  want=$("$python" --version; cat tests/requirements.txt bindings/python/pyproject.toml)
  [ -x .venv/bin/python ] && [ "$(cat .stamps/python 2>/dev/null)" = "$want" ] && return 0
  "$python" -m venv --clear .venv || { echo "setup: $python -m venv failed (Debian: python3-venv)" >&2; exit 1; }
  rm -f .stamps/bench
  .venv/bin/python -m pip install --quiet --disable-pip-version-check -r tests/requirements.txt
  # The binding from its source tree, so that what is edited is what is tested.
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --editable bindings/python
  echo "$want" >.stamps/python
}

# Clients, servers and a load generator to measure ours against. Never fails: a side that is missing is a row that says so.
bench() {
  local want clients="wrk nginx-light libev-dev ruby-redis ruby-hiredis lua-redis libredis-perl libredis-fast-perl"
  want=$(echo "$clients"; cat tests/bench/requirements.txt)
  [ "$(cat .stamps/bench 2>/dev/null)" = "$want" ] && command -v wrk >/dev/null && return 0
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    install_debian "$clients" || echo "setup: apt-get could not install $clients" >&2
  fi
  local server
  while read -r server; do
    .venv/bin/python -m pip install --quiet --disable-pip-version-check "$server" || echo "setup: going on without $server" >&2
  done < <(grep -v '^#' tests/bench/requirements.txt)
  echo "$want" >.stamps/bench
}

# The statsd daemon, in build/statsd. Never fails: the test that wants it is skipped where it is not there.
statsd() {
  local want=statsd@0.9.0
  [ -d build/statsd/node_modules/statsd ] && [ "$(cat .stamps/statsd 2>/dev/null)" = "$want" ] && return 0
  command -v npm >/dev/null || { echo "setup: going on without statsd: npm is missing" >&2; return 0; }
  mkdir -p build/statsd
  if npm install --prefix build/statsd --omit=optional --no-audit --no-fund --loglevel=error "$want" >/dev/null; then
    echo "$want" >.stamps/statsd
  else
    echo "setup: npm could not install $want" >&2
  fi
}

# What the binding of Node needs, and its tests, and its addon. Never fails: without them these do.
node() {
  local want
  want=$(cat bindings/node/package.json bindings/node/scripts/build.js bindings/node/src/* include/iokernel.h | sha256sum)
  [ -e bindings/node/build/iokernel.node ] && [ "$(cat .stamps/node 2>/dev/null)" = "$want" ] && return 0
  command -v npm >/dev/null || { echo "setup: going on without the binding of Node: npm is missing" >&2; return 0; }
  # `--ignore-scripts` is for its dependencies; it leaves out our own, too.
  if npm install --prefix bindings/node --ignore-scripts --no-audit --no-fund --no-package-lock --loglevel=error >/dev/null &&
    npm run --prefix bindings/node --silent build; then
    echo "$want" >.stamps/node
  else
    echo "setup: npm could not install what bindings/node needs, or build its addon" >&2
  fi
}

# What Perl's binding has in C. Never fails: without it, its Perl does the same.
native_perl() {
  local want
  command -v perl >/dev/null || return 0
  want=$(cat bindings/perl/Makefile.PL bindings/perl/lib/IOKernel/Native.*s; perl -V:version; perl -V:archname)
  want=$(sha256sum <<<"$want")
  [ -d bindings/perl/blib/arch ] && [ "$(cat .stamps/native_perl 2>/dev/null)" = "$want" ] && return 0
  if (cd bindings/perl && perl Makefile.PL && make) >/dev/null 2>&1; then
    echo "$want" >.stamps/native_perl
  else
    echo "setup: going on without the C of Perl's binding" >&2
  fi
}

main "$@"
