#!/usr/bin/env bash
# Builds the fuzz targets with coverage instrumentation and runs them, one after the other.
#
#   tests/fuzz/run.sh [SECONDS FOR EACH] [TARGET…]
#
# Stable Rust: the instrumentation that `cargo fuzz` asks a nightly compiler for is asked of LLVM here, and
# libFuzzer comes with the crate libfuzzer-sys. The decoders written in C are exercised, but not instrumented.
# Seeds are the golden set; what was learnt is kept in target/fuzz/corpus, so that the next run goes on from it,
# and what crashed in target/fuzz/crashes. Ends with 1 when anything crashed.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. packaging/deps.sh

SECONDS_EACH=${1:-60}
[ "$#" -eq 0 ] || shift
OUT="${CARGO_TARGET_DIR:-$PWD/target}/fuzz"
HOST=$(rustc -vV | sed -n 's/^host: //p')
# By target, the inputs of the golden set to begin with.
TARGETS=(
    recipe metadata container reduced=jpeg_
    jpeg=jpeg_ png=png_ gif=gif_ webp=webp_ avif=avif_ heic=heic_ tiff=tiff_ bmp=bmp_ ico=ico_ psd=psd_ svg=svg_
    pdf=pdf_ jxl=jxl_ pnm=pnm_ tga=tga_ qoi=qoi_ jp2=jp2_ raw=raw_
)

# A target directory of its own: these flags change every crate. With --target, they leave build scripts alone.
build() {
    RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing" \
        cargo build --locked --release --manifest-path tests/fuzz/Cargo.toml --target "$HOST" --target-dir "$OUT"
}

# run TARGET SEEDS – fails when the target crashed.
run() {
    local target=$1 seeds=$2 corpus="$OUT/corpus/$1" log="$OUT/$1.log"
    mkdir -p "$corpus" "$OUT/crashes"
    [ ! -d "tests/fuzz/seeds/$target" ] || cp -n tests/fuzz/seeds/"$target"/* "$corpus"/ 2>/dev/null || true
    [ -z "$seeds" ] || cp -n tests/golden/inputs/"$seeds"* "$corpus"/
    # Memory is bounded as in the sandbox, and no input may keep a worker for long.
    if FUZZ_TARGET=$target "$OUT/$HOST/release/fuzz" "$corpus" -artifact_prefix="$OUT/crashes/$target-" \
        -max_total_time="$SECONDS_EACH" -rss_limit_mb=1536 -timeout=20 -max_len=65536 -print_final_stats=1 \
        -use_value_profile=0 -verbosity=1 -close_fd_mask=1 >"$log" 2>&1; then
        say "$target: $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") inputs, \
$(grep -o 'cov: [0-9]*' "$log" | tail -1 || true), nothing found"
    elif grep -q 'no interesting inputs' "$log"; then
        say "$target: NOT FUZZED, none of its seeds is recognised"
    else
        say "$target CRASHED; the end of $log:"
        grep -v '^#' "$log" | tail -25
        return 1
    fi
}

main() {
    local pair target failed=0
    build
    for pair in "${TARGETS[@]}"; do
        target=${pair%%=*}
        if [ "$#" -gt 0 ] && [[ " $* " != *" $target "* ]]; then continue; fi
        run "$target" "$(sed -n 's/^[^=]*=//p' <<<"$pair")" || failed=1
    done
    exit "$failed"
}

main "$@"
