#!/usr/bin/env bash
# Prepr's contract by curl: a picture goes in under a token, is renamed, read and deleted; a token that may not
# is told 401; a receiver hears of it in order.
#
#   ps1_prepr_curl.sh BASE API_KEY
#
# The receiver listens on the loopback, so the box has to allow that (net.allow).
set -euo pipefail

base=$1 key=$2
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$(mktemp -d)
receiver=
trap '[ -z "$receiver" ] || kill "$receiver"; rm -rf "$work"' EXIT

fail() { echo "$*" >&2; exit 1; }
field() { python3 -c 'import json,sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }
admin() { curl -sS -f -H "X-FileSpin-Api-Key: $key" -H 'Content-Type: application/json' "$@"; }
token() { admin -d "{\"name\": \"script\", \"scopes\": $1}" "$base/api/v1/users/1/keys" | field token; }
# The answer's body goes to a file, its status to the output.
call() { local token=$1; shift; curl -sS -o "$work/answer" -w '%{http_code}' -H "Authorization: Bearer $token" "$@"; }
expect() { [ "$1" = "$2" ] || fail "$3: $1 instead of $2: $(cat "$work/answer")"; }

python3 - "$work" <<'PY' &
import http.server, json, pathlib, sys
work = pathlib.Path(sys.argv[1])
class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with open(work / "events", "a") as events:
            print(body["event"], body["payload"]["id"], file=events)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *_):
        pass
server = http.server.HTTPServer(("127.0.0.1", 0), Receiver)
(work / "port.new").write_text(str(server.server_port))
(work / "port.new").rename(work / "port")
server.serve_forever()
PY
receiver=$!
until [ -s "$work/port" ]; do read -rt 0.1 <> <(:) || :; done
admin -o /dev/null -d "{\"key\": \"prepr_webhook\", \"value\": {\"web_urls\": \"http://127.0.0.1:$(cat "$work/port")/\"}}" \
    "$base/api/v1/user/settings/update"

all=$(token '["assets", "assets_publish", "assets_delete"]')
reader=$(token '["assets"]')
PYTHONPATH=$here python3 -c 'import picture,sys; open(sys.argv[1], "wb").write(picture.png(40, 30))' "$work/p.png"

expect "$(call "$reader" -F source=@"$work/p.png" "$base/assets")" 401 'a token without assets_publish'
expect "$(call "$all" -F source=@"$work/p.png" -F name=x "$base/assets")" 201 'the upload'
id=$(field id < "$work/answer")
[ "$(field label < "$work/answer")" = Photo ] || fail 'a picture is no Photo'
expect "$(call "$all" -X PUT -d name=y "$base/assets/$id")" 200 'the new name'
expect "$(call "$reader" "$base/assets/$id")" 200 'reading'
[ "$(field name < "$work/answer")" = y ] || fail 'the new name is not there'
expect "$(call "$reader" -X PUT -d name=z "$base/assets/$id")" 401 'renaming with a token that reads'
expect "$(curl -sS -o "$work/answer" -w '%{http_code}' "$base/assets/$id?access_token=$reader")" 200 'a token in the query'
expect "$(call wrong "$base/assets/$id")" 401 'a wrong token'
expect "$(call "$reader" -X DELETE "$base/assets/$id")" 401 'deleting with a token that reads'
expect "$(call "$all" -X DELETE "$base/assets/$id")" 204 'deleting'
expect "$(call "$all" "$base/assets/$id")" 404 'what was deleted'

wanted=$(printf '%s\n' "asset.created $id" "asset.changed $id" "asset.deleted $id")
for _ in $(seq 100); do
    [ "$(cat "$work/events" 2>/dev/null)" != "$wanted" ] || exit 0
    read -rt 0.1 <> <(:) || :
done
fail "told: $(cat "$work/events")"
