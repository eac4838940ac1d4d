#!/usr/bin/python3
"""S3: assets of files that lie elsewhere, with `requests`.

    s3_url_ingest.py BASE API_KEY

The elsewhere is a server of this script's own on the loopback, which the box has to be allowed to call
(`net.allow`). Two of its files lie in a bucket that asks for AWS's signature, version 4.
"""

import hashlib
import hmac
import http.server
import sys
import threading
import time

import requests

import picture

BASE, API_KEY = sys.argv[1:3]
API = f"{BASE}/api/v1"
HEADERS = {"X-FileSpin-Api-Key": API_KEY}
PHOTO = picture.jpeg(800, 600)
ACCESS_KEY, SECRET_KEY, REGION = "TESTKEY", "TESTSECRET", "eu-central-1"


def signature(path, headers):
    """What the Authorization header of a GET has to be, computed as Amazon documents it."""
    stamp = headers["x-amz-date"]
    names = ["host", "x-amz-content-sha256", "x-amz-date"]
    nothing = hashlib.sha256(b"").hexdigest()
    lines = "".join(f"{name}:{headers[name]}\n" for name in names)
    request = f"GET\n{path}\n\n{lines}\n{';'.join(names)}\n{nothing}"
    scope = f"{stamp[:8]}/{REGION}/s3/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    key = f"AWS4{SECRET_KEY}".encode()
    for part in (stamp[:8], REGION, "s3", "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    signed = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    return (
        f"AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/{scope}, SignedHeaders={';'.join(names)}, Signature={signed}"
    )


class Elsewhere(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path.startswith("/venue/"):
            if self.headers.get("authorization") != signature(self.path, self.headers):
                return self.answer(403, b"SignatureDoesNotMatch")
        elif self.path == "/moved.jpg":
            self.send_response(302)
            self.send_header("Location", "/photo.jpg")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        elif self.path != "/photo.jpg":
            return self.answer(404, b"not here")
        self.answer(200, PHOTO)

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def ingest(name, key):
    answer = requests.post(f"{API}/assets/new/content/original/external", headers=HEADERS, json={"name": name, "key": key})
    answer.raise_for_status()
    said = answer.json()
    if said["status"] != "QUEUED" or not said["id"]:
        sys.exit(f"expected QUEUED and an id: {said}")
    for _ in range(60):
        data = requests.get(f"{API}/assets/{said['id']}/data", headers=HEADERS).json()
        if data["status"] in ("OK", "ERROR"):
            return data
        time.sleep(0.5)
    sys.exit(f"neither OK nor ERROR: {data}")


server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[3]) if len(sys.argv) > 3 else 0), Elsewhere)
threading.Thread(target=server.serve_forever, daemon=True).start()
there = f"http://127.0.0.1:{server.server_port}"

for key in (f"{there}/photo.jpg", f"{there}/moved.jpg", "s3://venue/fotos/a b+ü.jpg"):
    data = ingest("test.jpg", key)
    want = ("OK", "test.jpg", len(PHOTO), hashlib.md5(PHOTO).hexdigest(), 800)
    got = (data["status"], data["name"], data["size"], data["checksum"], data["metadata"].get("width"))
    if got != want:
        sys.exit(f"{key}: expected {want}, got {got}: {data}")
    print(f"fetched: {key}")

for key in (f"{there}/absent.jpg", "http://127.0.0.1:1/photo.jpg"):
    data = ingest("test.jpg", key)
    if data["status"] != "ERROR" or not data["errors"]["original"]:
        sys.exit(f"{key}: expected ERROR and a sentence: {data}")
    print(f"refused: {key}: {data['errors']['original']}")
