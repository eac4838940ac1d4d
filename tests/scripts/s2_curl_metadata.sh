#!/usr/bin/env bash
# Script S2: uploads with curl, as the guide shows them – with custom metadata, several files at once, odd names.
#
#   s2_curl_metadata.sh BASE API_KEY
#
# Ends with 0, or with a sentence that says what went wrong.
set -euo pipefail

[ $# -eq 2 ] || {
    echo 'usage: s2_curl_metadata.sh BASE API_KEY' >&2
    exit 2
}
base=$1
key=$2
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT
cd "$work"

fail() {
    printf 'S2: %s\n' "$*" >&2
    exit 1
}

# Prints what a Python expression over `j`, the JSON on standard input, comes to.
json() { /usr/bin/python3 -c "import json, sys; j = json.load(sys.stdin); print($1)"; }

upload() {
    curl -sS --fail-with-body -X POST "$base/api/v1/assets/new/content/original/upload" \
        -H "X-FileSpin-Api-Key: $key" "$@" || fail "an upload was refused: curl $*"
}

data() { curl -sS --fail-with-body "$base/api/v1/assets/$1/data" -H "X-FileSpin-Api-Key: $key"; }

/usr/bin/python3 "$here/picture.py" p.jpg 640 480 1
/usr/bin/python3 "$here/picture.py" q.jpg 480 640 2

answer=$(upload -F 'file=@p.jpg' -F 'custom_metadata={"data": {"project": "X", "status": "draft"}, "data_schema_id": 1}')
id=$(json 'j["assets"][0]["id"]' <<<"$answer")
[ "$(data "$id" | json 'j["data"]["project"], j["data"]["status"], j["data_schema_id"]')" = 'X draft 1' ] ||
    fail "the metadata did not come back: $(data "$id")"
echo 'metadata sent along with the file is there'

answer=$(upload -F 'custom_metadata={"data": {"project": "Y"}}' -F 'file=@p.jpg')
id=$(json 'j["assets"][0]["id"]' <<<"$answer")
[ "$(data "$id" | json 'j["data"]["project"]')" = Y ] || fail "metadata before the file is lost: $(data "$id")"
echo 'metadata sent before the file is there'

answer=$(upload -F 'file1=@p.jpg' -F 'file2=@q.jpg')
[ "$(json '[a["name"] for a in j["assets"]], len({a["id"] for a in j["files"]})' <<<"$answer")" = "['p.jpg', 'q.jpg'] 2" ] ||
    fail "two files did not become two assets: $answer"
echo 'two files in one request are two assets'

# curl cannot say it, but a published client really names its field `file=@`.
{
    printf -- '--b\r\nContent-Disposition: form-data; name="file=@"; filename="p.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
    cat p.jpg
    printf '\r\n--b--\r\n'
} >body
answer=$(upload -H 'Content-Type: multipart/form-data; boundary=b' --data-binary @body)
[ "$(json 'j["assets"][0]["size"]' <<<"$answer")" = "$(stat -c %s p.jpg)" ] || fail "an odd field name: $answer"
echo 'a field with an odd name is a file like any other'

# The guide's own example is malformed: the schema's number stands inside the wrong quotes. Refused or
# ignored are both fine; what must not happen is a server error.
code=$(curl -s -o answer -w '%{http_code}' -X POST "$base/api/v1/assets/new/content/original/upload" \
    -H "X-FileSpin-Api-Key: $key" -F 'file=@p.jpg' \
    -F 'custom_metadata={"data": {"project": "Summer Campaign", "status": "draft"}, "data_schema_id=1"}')
case $code in
200 | 202 | 400) echo "the guide's malformed metadata is answered $code" ;;
*) fail "the guide's malformed metadata is answered $code: $(cat answer)" ;;
esac

code=$(curl -s -o answer -w '%{http_code}' -X POST "$base/api/v1/assets/new/content/original/upload" \
    -H 'X-FileSpin-Api-Key: 00000000000000000000000000000000' -F 'file=@p.jpg')
[ "$code" = 401 ] || fail "a wrong key is answered $code: $(cat answer)"
echo 'a wrong key is answered 401'
echo 'S2: all promises kept'
