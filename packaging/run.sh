#!/usr/bin/env bash
# Builds Cloakroom and serves it from this checkout.
#
#   packaging/run.sh [--listen ADDR]… [--data-dir DIR]
#
# On a fresh Debian with git and curl it installs what the build needs (packaging/deps.sh), builds the
# release binaries and becomes the server, so Ctrl-C stops it gracefully. Defaults: http://127.0.0.1:8080
# and assets-store/ in the checkout. On an empty data directory the server makes the first administrator
# and prints the credentials once, with a ready-to-paste upload; this script neither sees nor keeps them.
set -euo pipefail

start=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. packaging/deps.sh

usage='usage: packaging/run.sh [--listen ADDR]… [--data-dir DIR]'

main() {
    local listen=() data_dir="$PWD/assets-store"
    while [ $# -gt 0 ]; do
        case $1 in
        --listen=* | --data-dir=*)
            set -- "${1%%=*}" "${1#*=}" "${@:2}"
            ;;
        --listen)
            listen+=("${2:?$usage}")
            shift 2
            ;;
        --data-dir)
            data_dir=${2:?$usage}
            # A relative directory is the caller's, not the checkout's.
            [[ $data_dir = /* ]] || data_dir=$start/$data_dir
            shift 2
            ;;
        -h | --help)
            printf '%s\n' "$usage"
            exit 0
            ;;
        *)
            die "unknown argument $1 ($usage)"
            ;;
        esac
    done
    [ "${#listen[@]}" -gt 0 ] || listen=(http://127.0.0.1:8080)

    refuse_second "$data_dir" "${listen[@]}"
    need_build_packages
    need_video_packages
    need_rust
    build_web
    say 'building the release binaries (the first time takes some minutes)'
    cargo build --release --locked --bin cloakroom --bin cloakroom-media --bin cloakroom-video
    # The build may have taken minutes in which another one was started.
    refuse_second "$data_dir" "${listen[@]}"
    say "serving $data_dir; Ctrl-C stops it"
    exec "${CARGO_TARGET_DIR:-target}/release/cloakroom" serve --data-dir "$data_dir" "${listen[@]/#/--listen=}"
}

# Says so, and stops, when a Cloakroom already runs from this directory or on one of these addresses.
refuse_second() {
    local data_dir=$1 address
    shift
    for address in "$@"; do
        [[ $address = *://* ]] || address=http://$address
        address=${address/0.0.0.0/127.0.0.1}
        # A port of 0 is for the system to choose and cannot be taken.
        [[ $address = *:0 ]] && continue
        # Only a Cloakroom of our own is asked, so its self-made certificate is accepted.
        if curl -ksf -m 2 -o /dev/null "$address/livez"; then
            say "Cloakroom is already running on $address; stop that one first (Ctrl-C where it was started),"
            say 'or choose another --listen and --data-dir'
            exit 0
        fi
    done
    # The server holds this lock for as long as it lives; the kernel drops it with the process.
    if [ -e "$data_dir/LOCK" ] && ! flock --nonblock "$data_dir/LOCK" true; then
        say "Cloakroom is already running from $data_dir on another address; stop that one first,"
        say 'or choose another --data-dir'
        exit 0
    fi
}

main "$@"
