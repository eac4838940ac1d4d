#!/usr/bin/env bash
# Prepr's upload in phases by hand: a film is split by split(1), its parts are transferred, the end is said.
#
#   ps2_prepr_chunks.sh BASE API_KEY
#
# The film is padded with a `free` box of zeros, so that two parts that follow one another are the same.
set -euo pipefail

base=$1 key=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fail() { echo "$*" >&2; exit 1; }
field() { python3 -c 'import json,sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }
call() { curl -sS -o "$work/answer" -w '%{http_code}' -H "Authorization: Bearer $key" "$@"; }
expect() { [ "$1" = "$2" ] || fail "$3: $1 instead of $2: $(cat "$work/answer")"; }

film=$work/film.mp4
ffmpeg -v error -f lavfi -i testsrc=s=320x180:d=2:r=25 -pix_fmt yuv420p "$film"
python3 - "$film" <<'PY'
import struct, sys
with open(sys.argv[1], "ab") as film:
    film.write(struct.pack(">I4s", 17_000_000, b"free"))
    film.truncate(film.tell() + 17_000_000 - 8)
PY
size=$(stat -c %s "$film")
(cd "$work" && split -b5m film.mp4 part.)

expect "$(call -H 'Content-Type: application/json' \
    -d "{\"label\": \"Video\", \"upload_phase\": \"start\", \"file_size\": \"$size\"}" "$base/assets")" 201 start
id=$(field id < "$work/answer")
for part in "$work"/part.*; do
    expect "$(call -F upload_phase=transfer -F original_name=film.mp4 -F file_chunk=@"$part" \
        "$base/assets/$id/multipart")" 200 "$part"
done
[ "$(field start_offset < "$work/answer")" = "$size" ] || fail "not all is there: $(cat "$work/answer")"
expect "$(call -H 'Content-Type: application/json' -d '{"upload_phase": "finish"}' "$base/assets/$id/multipart")" 200 finish
[ "$(field label < "$work/answer")" = Video ] || fail "no film: $(cat "$work/answer")"

plain=${id//-/}
for _ in $(seq 300); do
    data=$(curl -sS -f -H "X-FileSpin-Api-Key: $key" "$base/api/v1/assets/$plain/data")
    [ "$(field status <<< "$data")" = NOT_READY ] || break
    read -rt 0.1 <> <(:) || :
done
[ "$(field status <<< "$data")" = OK ] || fail "not readable: $data"
[ "$(field size <<< "$data")" = "$size" ] || fail "another size than $size: $data"
url=$(curl -sS -f -H "Authorization: $key" "$base/assets/$id" |
    python3 -c 'import json,sys; print(json.load(sys.stdin)["cdn_files"]["items"][0]["url"].replace("{format}/", ""))')
curl -sS -f "$url" | cmp - "$film" || fail 'other bytes came back'
frames=$(ffprobe -v error -count_frames -select_streams v -show_entries stream=nb_read_frames -of csv=p=0 "$url")
[ "${frames%,}" = 50 ] || fail "$frames frames are played instead of 50"
