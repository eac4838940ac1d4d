#!/usr/bin/python3
"""S8: contents are made public, play from their bare address, and are closed again.

    s8_public_access.py BASE API_KEY
"""

import subprocess
import sys
import tempfile
import time

import requests

BASE, API_KEY = sys.argv[1:3]
API = f"{BASE}/api/v1"
HEADERS = {"X-FileSpin-Api-Key": API_KEY}
KEYS = {"keys": ["original", "360p-video"]}


def expect(path, statuses):
    answer = requests.get(f"{API}/assets/{asset}/{path}", timeout=30)
    if answer.status_code not in statuses:
        sys.exit(f"{path} was answered {answer.status_code}, not {statuses}: {answer.text[:200]}")
    return answer


def call(what, body):
    answer = requests.post(f"{API}/assets/{asset}/{what}", headers=HEADERS, json=body, timeout=30)
    if answer.status_code not in (200, 202):
        sys.exit(f"{what} was answered {answer.status_code}: {answer.text[:200]}")
    return answer.json()


def wait(what, path, done):
    for _ in range(120):
        said = requests.get(f"{API}/{path}", headers=HEADERS, timeout=30).json()
        if said["status"] in done:
            return said
        time.sleep(0.5)
    sys.exit(f"{what} is still {said}")


with tempfile.NamedTemporaryFile(suffix=".mp4") as film:
    subprocess.run(
        ["ffmpeg", "-nostdin", "-v", "error", "-y", "-f", "lavfi", "-i", "testsrc2=size=640x360:rate=25:duration=2"]
        + ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", film.name],
        check=True,
    )
    answer = requests.post(f"{API}/assets/new/content/original/upload", headers=HEADERS, files={"file": open(film.name, "rb")})
answer.raise_for_status()
asset = answer.json()["assets"][0]["id"]
wait("the asset", f"assets/{asset}/data", ("OK",))
job = call("process", {"keys": ["360p-video"]})["job_id"]
if wait("the job", f"jobs/{job}", ("COMPLETED", "ERROR"))["status"] != "COMPLETED":
    sys.exit("the film was not made")

expect("transcodes/360p-video.mp4", (401, 403))
expect("content/original", (401, 403))
call("content/set_public_access", KEYS)
if expect("transcodes/360p-video.mp4", (200,)).headers["Content-Type"] != "video/mp4":
    sys.exit("a public film is not called video/mp4")
expect("content/original", (200,))
data = requests.get(f"{API}/assets/{asset}/data", headers=HEADERS, timeout=30).json()
if not data["public"] or not data["conversions"]["360p-video"]["public"]:
    sys.exit(f"what is public is not said to be: {data}")
call("content/remove_public_access", KEYS)
expect("transcodes/360p-video.mp4", (401, 403))
expect("content/original", (401, 403))
print("S8: public while it was said to be")
