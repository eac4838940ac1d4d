#!/usr/bin/python3
"""S14: contents are deleted, an asset goes to the trash and comes back, as a program does it with `requests`.

    s14_delete_undelete.py BASE API_KEY

Nothing in here knows Cloakroom: with the vendor's base URLs it would run against the vendor. The film is ffmpeg's test
picture.
"""

import subprocess
import sys
import tempfile
import time

import requests

BASE, API_KEY = sys.argv[1:3]
API = f"{BASE}/api/v1"
CDN = f"{BASE}/api/v1"
HEADERS = {"X-FileSpin-Api-Key": API_KEY}


def until(what, seconds=120):
    """What `what` brings, once it brings anything."""
    for _ in range(seconds * 4):
        if found := what():
            return found
        time.sleep(0.25)
    sys.exit(f"{what.__name__} waited for {seconds} s in vain")


def is_found(word):
    """Whether a search for this word finds the asset, and the listing shows it."""
    answer = requests.post(f"{API}/search", headers=HEADERS, json={"keyword": word})
    listed = requests.get(f"{API}/assets?limit=500", headers=HEADERS).json()["assets"]
    shown = asset in [each["id"] for each in listed]
    answer.raise_for_status()
    found = asset in answer.json()["result"]
    if found != shown:
        sys.exit(f"the search finds it: {found}; the listing shows it: {shown}")
    return found


def status(path, **query):
    """How this content is answered."""
    return requests.get(f"{CDN}/assets/{asset}/{path}", headers=HEADERS, params=query).status_code


with tempfile.NamedTemporaryFile(suffix=".mp4") as film:
    subprocess.run(
        ["ffmpeg", "-nostdin", "-v", "error", "-y", "-f", "lavfi", "-i", "testsrc2=size=1280x720:rate=25:duration=1"]
        + ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", film.name],
        check=True,
    )
    answer = requests.post(f"{API}/assets/new/content/original/upload", headers=HEADERS, files={"file": open(film.name, "rb")})
answer.raise_for_status()
asset = answer.json()["assets"][0]["id"]
print(f"uploaded: {asset}")


def ready():
    return requests.get(f"{API}/assets/{asset}/data", headers=HEADERS).json()["status"] == "OK"


def transcoded():
    job = requests.get(f"{API}/jobs/{job_id}", headers=HEADERS).json()
    if job["status"] == "ERROR":
        sys.exit(f"the job failed: {job}")
    return job["status"] == "COMPLETED"


until(ready)
text = {"data": {"filespin_search_txt": "LOST-AND-FOUND-7"}}
requests.post(f"{API}/assets/{asset}/data/update", headers=HEADERS, json=text).raise_for_status()
queued = requests.post(f"{API}/assets/{asset}/process", headers=HEADERS, json={"keys": ["720p-video"]})
job_id = queued.json()["job_id"]
until(transcoded)
if status("transcodes/720p-video.mp4") != 200 or not is_found("LOST-AND-FOUND-7"):
    sys.exit("it is not there to begin with")

# A conversion.
deleted = requests.post(f"{API}/assets/{asset}/delete", headers=HEADERS, json={"keys": ["720p-video", "no-such-key"]})
if deleted.status_code not in (200, 202):
    sys.exit(f"deleting a conversion was answered {deleted.status_code}: {deleted.text}")
data = requests.get(f"{API}/assets/{asset}/data", headers=HEADERS).json()
if "720p-video" in data["conversions"] or data["status"] != "OK" or status("transcodes/720p-video.mp4") != 404:
    sys.exit(f"720p-video is still there: {data}")
print("720p-video is deleted")

# The original, and with it everything.
deleted = requests.post(f"{API}/assets/{asset}/delete", headers=HEADERS, json={"keys": ["original"]})
if deleted.status_code not in (200, 202):
    sys.exit(f"deleting the original was answered {deleted.status_code}: {deleted.text}")
for path, query in [("conversions", {"resize": "200,200"}), ("data", {}), ("get_link", {"key": "original"})]:
    if (said := status(path, **query)) != 404:
        sys.exit(f"{path} of a deleted asset was answered {said}")
if is_found("LOST-AND-FOUND-7"):
    sys.exit("a deleted asset is found")
print("the original is deleted")


def shown():
    return status("conversions", resize="200,200") == 200


restored = requests.post(f"{API}/assets/{asset}/undelete", headers=HEADERS)
if restored.status_code not in (200, 202):
    sys.exit(f"undeleting was answered {restored.status_code}: {restored.text}")
until(shown)
data = requests.get(f"{API}/assets/{asset}/data", headers=HEADERS).json()
if data["status"] != "OK" or data["data"]["filespin_search_txt"] != "LOST-AND-FOUND-7":
    sys.exit(f"it did not come back as it was: {data}")
until(lambda: is_found("LOST-AND-FOUND-7"))
link = requests.get(f"{API}/assets/{asset}/get_link", headers=HEADERS, params={"key": "original"}).json()["url"]
if len(requests.get(link).content) != data["size"]:
    sys.exit("its original did not come back whole")
print("and back again")
