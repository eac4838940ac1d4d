#!/usr/bin/python3
"""S10: a receiver of callbacks, as an integrator writes one with the standard library.

    s10_webhooks.py BASE API_KEY [VERIFIERS]

The box has to let callbacks come to the loopback (CLOAKROOM_NET__ALLOW=127.0.0.0/8) and to repeat them soon
(CLOAKROOM_WEBHOOKS__SCHEDULE_SECONDS=1,1,1,1,1,1,1). VERIFIERS is where `standardwebhooks` from PyPI (python/)
and from npm (node/node_modules/) lie; with it, every callback has to verify with both, and nothing that was
tampered with may.
"""

import datetime
import http.server
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading

import requests

import picture

BASE, API_KEY = sys.argv[1:3]
API = f"{BASE}/api/v1"
HEADERS = {"X-FileSpin-Api-Key": API_KEY}
EVENTS = ["file-saved", "file-processed", "file-data-updated", "addon-processed", "file-deleted", "file-undeleted"]
# Names that break whoever puts a body together by hand.
NAMES = ['"quoted".jpg', "Zoë & Łukasz.jpg", "back\\slash.jpg", "表ポあA鷗.jpg", "😍🏳️‍🌈.jpg", "<script>alert(1)<_script>.jpg"]

CAME = queue.Queue()
SAMPLES = []
# What the first callbacks about a save are answered.
ANSWERS = [500, 500]


class Receiver(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        said = json.loads(body)
        SAMPLES.append((dict(self.headers.items()), body.decode()))
        status = ANSWERS.pop(0) if ANSWERS and said["event"] == "file-saved" else 200
        CAME.put((said, body, self.headers["webhook-id"], status))
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def main():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    value = {
        "web_urls": f"http://127.0.0.1:{server.server_port}/callback",
        "callback_events": dict.fromkeys(EVENTS, True),
    }
    set_up = requests.patch(
        f"{API}/user/settings/update",
        params={"update_key": "webhook"},
        json={"key": "webhook", "value": value},
        headers=HEADERS,
    )
    expect(set_up.status_code, 200, set_up.text)
    expect(requests.get(f"{API}/user/settings", headers=HEADERS).json()["webhook"], value, "the settings")

    began = datetime.datetime.now(datetime.UTC) if hasattr(datetime, "UTC") else datetime.datetime.utcnow()
    asset = upload("p.jpg")
    saved, others = [], []
    while len(saved) < 3 or not others:
        said, body, identity, status = CAME.get(timeout=60)
        expect(said["id"], asset, "whom it is about")
        (saved if said["event"] == "file-saved" else others).append((body, identity, status))
    expect([status for _, _, status in saved], [500, 500, 200], "the attempts")
    expect(len({(body, identity) for body, identity, _ in saved}), 1, "one id and the same bytes every time")
    data = json.loads(saved[0][0])
    expect((data["status"], data["name"], data["content_type"]), ("OK", "p.jpg", "image/jpeg"), "asset data")
    expect([json.loads(body)["event"] for body, _, _ in others], ["file-processed"], "what came after it was saved")

    updated = requests.post(
        f"{API}/assets/{asset}/data/update", json={"data": {"table": 7}, "mode": "APPEND"}, headers=HEADERS
    )
    expect(updated.status_code, 200, updated.text)
    said = CAME.get(timeout=60)[0]
    expect((said["event"], said["id"], said["data"]["table"]), ("file-data-updated", asset, 7), "an update")

    # Left alone: what comes next is about something else.
    ids = [upload(name) for name in NAMES]
    heard = set()
    while len(heard) < 2 * len(ids):
        said = CAME.get(timeout=60)[0]
        expect(said["id"] in ids, True, f"{said['event']} of {said['id']} came again")
        heard.add((said["id"], said["event"]))

    span = {"start_date": stamp(began), "end_date": stamp(began + datetime.timedelta(minutes=10))}
    again = requests.post(f"{API}/callbacks/reissue", json=span, headers=HEADERS)
    expect(again.status_code, 202, again.text)
    text = f"Re-issue callbacks started for assets uploaded from {span['start_date']} to {span['end_date']}"
    expect(again.json(), text, "the answer")
    heard = set()
    while len(heard) < 2 * len(ids) + 3:
        said = CAME.get(timeout=60)[0]
        heard.add((said["id"], said["event"]))
    expect((asset, "file-data-updated") in heard, True, "the first asset is told again")
    # The second in which it was uploaded, as its data tells it.
    at = requests.get(f"{API}/assets/{asset}/data", headers=HEADERS).json()["upload_time"]
    again = requests.post(f"{API}/callbacks/reissue", json={"start_date": at, "end_date": at}, headers=HEADERS)
    expect(again.status_code, 202, again.text)
    heard = {(said["id"], said["event"]) for said in (CAME.get(timeout=60)[0] for _ in range(3))}
    expect(heard, {(asset, event) for event in ("file-saved", "file-processed", "file-data-updated")}, "one second")
    too_long = {"start_date": "2017-06-01T00:00:00Z", "end_date": "2017-06-09T00:00:00Z"}
    expect(requests.post(f"{API}/callbacks/reissue", json=too_long, headers=HEADERS).status_code, 400, "eight days")

    # Nothing is made of a text, and whoever waits for the end of it hears of it all the same.
    note = upload("note.txt", b"some words\n")
    expect(next_about(note, 2), ["file-saved", "file-processed"], "a text")

    # A storyboard is an add-on: it is told by itself, before the job that it was made in.
    film = upload("film.mp4", movie())
    expect(next_about(film, 2), ["file-saved", "file-processed"], "a film")
    asked = requests.post(f"{API}/assets/{film}/process", json={"keys": ["storyboard"]}, headers=HEADERS)
    expect(asked.status_code, 202, asked.text)
    expect(next_about(film, 2), ["addon-processed", "file-processed"], "a storyboard")
    told = json.loads(SAMPLES[-1][1])
    expect("storyboard" in told["conversions"], True, f"the storyboard is in {told}")
    job = requests.get(f"{API}/jobs/{asked.json()['job_id']}", headers=HEADERS).json()
    expect((job["status"], job["callback"]["event"]), ("COMPLETED", "file-processed"), "the job")
    expect((job["callback"]["id"], job["callback"]["keys"]), (film, ["storyboard"]), "what it was about")

    if len(sys.argv) > 3:
        rotated = requests.post(f"{API}/callbacks/secret", headers=HEADERS).json()["secrets"]
        upload("rotated.jpg")
        while json.loads(CAME.get(timeout=60)[1])["event"] != "file-processed":
            pass
        new, old = (secret["secret"] for secret in rotated)
        verify(sys.argv[3], SAMPLES, old)
        verify(sys.argv[3], [s for s in SAMPLES if " " in s[0]["webhook-signature"]], new)
    print(f"S10: {len(SAMPLES)} callbacks, all as promised")


def upload(name, content=None):
    answer = requests.post(
        f"{API}/assets/new/content/original/upload",
        headers=HEADERS,
        files={"file": (name, content or picture.jpeg(640, 480))},
    )
    answer.raise_for_status()
    return answer.json()["assets"][0]["id"]


def next_about(asset, count):
    """The next events, all of which have to be about this asset."""
    told = [CAME.get(timeout=60)[0] for _ in range(count)]
    expect({said["id"] for said in told}, {asset}, "whom it is about")
    return [said["event"] for said in told]


def movie():
    """Two seconds of ffmpeg's test picture."""
    with tempfile.NamedTemporaryFile(suffix=".mp4") as file:
        subprocess.run(
            ["ffmpeg", "-nostdin", "-v", "error", "-y", "-f", "lavfi", "-i", "testsrc2=size=320x240:rate=10:duration=2"]
            + ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", file.name],
            check=True,
        )
        return file.read()


def verify(verifiers, samples, secret):
    """With the libraries of others: each sample verifies; with anything changed it does not."""
    expect(bool(samples), True, "something to verify")
    sys.path.insert(0, os.path.join(verifiers, "python"))
    from standardwebhooks import Webhook

    webhook = Webhook(secret)
    for headers, body in samples:
        headers = {name.lower(): value for name, value in headers.items()}
        webhook.verify(body, headers)
        for name, value in (
            ("body", body + " "),
            ("webhook-id", headers["webhook-id"][::-1]),
            ("webhook-timestamp", str(int(headers["webhook-timestamp"]) + 1)),
        ):
            changed = (value, headers) if name == "body" else (body, {**headers, name: value})
            try:
                webhook.verify(*changed)
            except Exception:
                continue
            sys.exit(f"with another {name} it verifies, too")
    here = os.path.dirname(os.path.abspath(__file__))
    node = subprocess.run(
        ["node", os.path.join(here, "s10_verify.cjs"), os.path.join(verifiers, "node"), secret],
        input=json.dumps(samples),
        capture_output=True,
        text=True,
        check=False,
    )
    expect(node.returncode, 0, node.stdout + node.stderr)


def stamp(when):
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")


def expect(came, wanted, what):
    if came != wanted:
        sys.exit(f"{what}: expected {wanted!r}, came {came!r}")


if __name__ == "__main__":
    main()
