#!/usr/bin/env bash
# Runs every test: installs what is missing, builds once (debug), then cargo test.
#
#   packaging/test.sh [ARGUMENTS FOR cargo test]
#
# The tests start the real binary on free ports of the loopback and keep everything in temporary
# directories; some run the foreign clients of tests/scripts, which need Debian's python3-requests and
# `standardwebhooks` from PyPI and npm and `moto` from PyPI, or show pictures to the decoders of other people.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
. packaging/deps.sh

need_build_packages
need_video_packages
need_packages \
    'python3=test -x /usr/bin/python3' \
    'python3-requests=/usr/bin/python3 -c "import requests"' \
    'php-cli=command -v php' \
    'php-curl=php -r "exit(extension_loaded(\"curl\") ? 0 : 1);"' \
    'php-guzzlehttp-guzzle=test -f /usr/share/php/GuzzleHttp/autoload.php' \
    'nodejs=command -v node' \
    'unzip=command -v unzip' \
    'libjpeg-turbo-progs=command -v djpeg' \
    'pngcheck=command -v pngcheck' \
    'webp=command -v dwebp' \
    'libavif-bin=command -v avifdec' \
    'libimage-exiftool-perl=command -v exiftool' \
    'ffmpeg=command -v ffmpeg' \
    'chromium=command -v chromium' \
    'gstreamer1.0-tools=command -v gst-launch-1.0'
need_webhook_verifiers
need_schemathesis
need_foreign_bucket
need_tus_client
need_rust
need_node
(cd tests/scripts/node && npm ci --no-audit --no-fund --loglevel=error </dev/null)
build_web
say 'building'
cargo build --locked --all-targets
say 'testing'
cargo test --locked "$@"

# Before a release, once more with originals in a bucket of somebody else's server: BUCKET=1 packaging/test.sh
[ -n "${BUCKET:-}" ] || exit 0
say 'testing with originals in a bucket of moto'
foreign="${CARGO_TARGET_DIR:-$PWD/target}/foreign"
coproc MOTO { PYTHONPATH="$foreign/moto" exec /usr/bin/python3 tests/scripts/moto_server.py 2>/dev/null; }
read -r endpoint <&"${MOTO[0]}"
CLOAKROOM_TEST_S3="$endpoint" cargo test --locked --test api
CLOAKROOM_TEST_S3="$endpoint" cargo test --locked --lib homes::
