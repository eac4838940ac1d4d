#!/usr/bin/python3
"""S5: a film is uploaded, processed, linked to and played, as the vendor's guide has its readers do it with `requests`.

    s5_video.py BASE API_KEY

Nothing in here knows Cloakroom: with the vendor's base URLs it would run against the vendor. The film is ffmpeg's test
picture, and ffprobe is the player.
"""

import subprocess
import sys
import tempfile
import time

import requests

import picture

BASE, API_KEY = sys.argv[1:3]
API = f"{BASE}/api/v1"
CDN = f"{BASE}/api/v1"
HEADERS = {"X-FileSpin-Api-Key": API_KEY}

with tempfile.NamedTemporaryFile(suffix=".mp4") as film:
    subprocess.run(
        ["ffmpeg", "-nostdin", "-v", "error", "-y", "-f", "lavfi", "-i", "testsrc2=size=1280x720:rate=25:duration=3"]
        + ["-f", "lavfi", "-i", "sine=duration=3", "-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", film.name],
        check=True,
    )
    answer = requests.post(f"{API}/assets/new/content/original/upload", headers=HEADERS, files={"file": open(film.name, "rb")})
answer.raise_for_status()
asset = answer.json()["assets"][0]["id"]
print(f"uploaded: {asset}")

for _ in range(30):
    data = requests.get(f"{API}/assets/{asset}/data", headers=HEADERS).json()
    if data["status"] == "OK":
        break
    time.sleep(1)
else:
    sys.exit(f"the asset did not become OK: {data}")

keys = ["smart_imaging", "720p-video", "1080p-video", "hls-video", "no-such-key"]
queued = requests.post(f"{API}/assets/{asset}/process", headers=HEADERS, json={"keys": keys})
queued.raise_for_status()
if queued.json()["status"] != "QUEUED":
    sys.exit(f"it was not queued: {queued.json()}")
job_id = queued.json()["job_id"]

for _ in range(300):
    job = requests.get(f"{API}/jobs/{job_id}", headers=HEADERS).json()
    if job["status"] in ("COMPLETED", "ERROR"):
        break
    time.sleep(1)
if job["status"] != "COMPLETED":
    sys.exit(f"the job did not complete: {job}")
if job["type"] != "VIDEO_TRANSCODE" or job["job_steps"]["transcodes"]["720p-video"]["percent_complete"] != 100:
    sys.exit(f"the job is said to be {job}")

data = requests.get(f"{API}/assets/{asset}/data", headers=HEADERS).json()
made = data["conversions"]["720p-video"]
if (made["width"], made["height"], made["key"][-14:]) != (1280, 720, "720p-video.mp4") or abs(made["duration"] - 3) > 0.2:
    sys.exit(f"720p-video is said to be {made}")
if not data["conversions"]["hls-video"]["key"].endswith("playlist.m3u8"):
    sys.exit(f"hls-video is said to be {data['conversions']['hls-video']}")

# Links play without the key.
query = {"key": "720p-video", "link_type": "cdn", "delivery": "display"}
link = requests.get(f"{API}/assets/{asset}/get_link", headers=HEADERS, params=query).json()["url"]
part = requests.get(link, headers={"Range": "bytes=0-99"})
if part.status_code != 206 or len(part.content) != 100 or part.headers["Content-Type"] != "video/mp4":
    sys.exit(f"a range of the film was answered {part.status_code} {part.headers}")
if not part.headers["Content-Disposition"].startswith("inline"):
    sys.exit(f"the film is to be {part.headers['Content-Disposition']}")


def played(address):
    """What ffprobe finds there."""
    words = ["ffprobe", "-v", "error", "-show_entries", "stream=codec_name,height", "-of", "csv=p=0", address]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode or done.stderr:
        sys.exit(f"ffprobe does not play {address}: {done.stderr}")
    return set(done.stdout.split())


if played(link) != {"h264,720", "aac"}:
    sys.exit(f"the film is {played(link)}")

# The stream is for everybody, once it is said to be.
stream = f"{CDN}/assets/{asset}/transcodes/playlist.m3u8"
if requests.get(stream).status_code not in (401, 403):
    sys.exit("the stream is for everybody before that was said")
public = requests.post(f"{API}/assets/{asset}/content/set_public_access", headers=HEADERS, json={"keys": ["hls-video"]})
public.raise_for_status()
if not {"h264,720", "h264,360", "aac"} <= played(stream):
    sys.exit(f"the stream is {played(stream)}")

poster = requests.get(f"{CDN}/assets/{asset}/conversions?resize=800,600")
poster.raise_for_status()
kind, width, height = picture.measure(poster.content)
if (kind, width, height) != ("image/jpeg", 800, 450):
    sys.exit(f"expected a poster of 800 x 450, got {kind} of {width} x {height}")
print("played")
