#!/bin/sh
# Builds every fuzz target and runs each for so many seconds: tests/fuzz/run.sh [SECONDS] [TARGET...]
# Needs a nightly compiler, or a stable one that is told to behave like it.
set -eu
cd "$(dirname "$0")"
seconds=${1:-60}
[ $# -gt 0 ] && shift
[ $# -gt 0 ] || set -- protocol config value source admin websocket http_client http_server

triple=$(rustc -vV | sed -n 's/^host: //p')
target=${CARGO_TARGET_DIR:-$PWD/target}
if cargo +nightly --version >/dev/null 2>&1; then toolchain=+nightly; else toolchain=; export RUSTC_BOOTSTRAP=1; fi

# What cargo-fuzz sets: coverage counters for libFuzzer, and the address sanitizer.
export CARGO_TARGET_DIR="$target"
export RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Zsanitizer=address --cfg fuzzing -Ccodegen-units=1"
# shellcheck disable=SC2086 # no toolchain is no word
cargo $toolchain build --release --locked --target "$triple"

for name in "$@"; do
    mkdir -p "corpus/$name" "artifacts/$name"
    "$target/$triple/release/$name" -max_total_time="$seconds" -max_len=600 -print_final_stats=1 \
        -artifact_prefix="artifacts/$name/" "corpus/$name"
done
