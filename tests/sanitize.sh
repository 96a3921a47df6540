#!/bin/sh
# Runs the library's own tests and the fault tests under a sanitizer: tests/sanitize.sh asan|tsan [test filter...]
#
# ThreadSanitizer does not know standalone fences. The wake is built on them (src/ring/wake.rs), but on atomics alone: no
# plain memory is published by a fence, so that TSan has nothing to misread. Records are published by Release and Acquire
# on the cursors. std is not built with the sanitizer; what it would misread there is named in tests/tsan.supp.
set -eu
export IOKERNEL_SANITIZER=1
cd "$(dirname "$0")/.."
which=${1:?asan or tsan}
shift
target=$(rustc -vV | sed -n 's/^host: //p')
export RUSTC_BOOTSTRAP=1
case $which in
asan)
    export RUSTFLAGS="-Zsanitizer=address"
    export ASAN_OPTIONS="detect_leaks=1:detect_stack_use_after_return=1"
    ;;
tsan)
    export RUSTFLAGS="-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer"
    export TSAN_OPTIONS="suppressions=$PWD/tests/tsan.supp second_deadlock_stack=1 die_after_fork=0"
    ;;
*)
    echo "asan or tsan, not $which" >&2
    exit 2
    ;;
esac
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/$which"
cargo test --target "$target" --lib --test faults "$@"
