#!/usr/bin/python3
"""S9: an original is replaced under its id, as a program does it with `requests`.

    s9_replace.py BASE API_KEY

Nothing in here knows Cloakroom: with the vendor's base URLs it would run against the vendor. The film is ffmpeg's test
picture.
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


def data():
    """What is known of the asset."""
    answer = requests.get(f"{API}/assets/{asset}/data", headers=HEADERS)
    answer.raise_for_status()
    return answer.json()


def until_ok():
    """The same once its status is OK, as the guide has its readers wait."""
    for _ in range(120):
        if (now := data())["status"] == "OK":
            return now
        time.sleep(1)
    sys.exit(f"the asset did not become OK: {now}")


def measured(query):
    """Kind and size of an on-demand image, which may take a while to be there: the poster of a film is made first."""
    for _ in range(120):
        served = requests.get(f"{CDN}/assets/{asset}/conversions?{query}")
        if served.status_code not in (400, 404):
            break
        time.sleep(0.5)
    served.raise_for_status()
    return picture.measure(served.content)


first = {"file": ("first.jpg", picture.jpeg(1600, 1200), "image/jpeg")}
answer = requests.post(f"{API}/assets/new/content/original/upload", headers=HEADERS, files=first)
answer.raise_for_status()
asset = answer.json()["assets"][0]["id"]
before = until_ok()
if (shown := measured("resize=400,400")) != ("image/jpeg", 400, 300):
    sys.exit(f"the first picture is {shown}")
print(f"uploaded: {asset}")

second = {"file": ("second.jpg", picture.jpeg(900, 1200), "image/jpeg")}
metadata = {"custom_metadata": '{"data": {"version": "2"}, "data_schema_id": 1}'}
answer = requests.post(f"{API}/assets/{asset}/content/original/replace", headers=HEADERS, files=second, data=metadata)
answer.raise_for_status()
told = answer.json()
if told["success"] is not True or {told["assets"][0]["id"], told["files"][0]["id"]} != {asset}:
    sys.exit(f"the answer to the replacement is {told}")

after = until_ok()
if after["id"] != before["id"] or after["checksum"] == before["checksum"] or after["name"] != "second.jpg":
    sys.exit(f"before: {before}\nafter: {after}")
if after["checksum"] != told["files"][0]["checksum"] or after["size"] != told["files"][0]["size"]:
    sys.exit(f"told: {told}\nafter: {after}")
if (after["metadata"]["width"], after["metadata"]["height"]) != (900, 1200) or after["data"]["version"] != "2":
    sys.exit(f"it is still described as {after['metadata']}, {after['data']}")
if (shown := measured("resize=400,400")) != ("image/jpeg", 300, 400):
    sys.exit(f"the picture is still {shown}")
link = requests.get(f"{API}/assets/{asset}/get_link", headers=HEADERS, params={"key": "original"}).json()["url"]
if requests.get(link).content != second["file"][1]:
    sys.exit("a link to the original does not lead to the new one")

nowhere = requests.post(f"{API}/assets/{'0' * 32}/content/original/replace", headers=HEADERS, files=second)
if nowhere.status_code != 404:
    sys.exit(f"replacing what is not there was answered {nowhere.status_code}")
print("the picture is replaced")


def film(size, seconds):
    """An MP4, as the part of an upload."""
    with tempfile.NamedTemporaryFile(suffix=".mp4") as file:
        subprocess.run(
            ["ffmpeg", "-nostdin", "-v", "error", "-y", "-f", "lavfi", "-i", f"testsrc2=size={size}:rate=25:duration={seconds}"]
            + ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", file.name],
            check=True,
        )
        return {"file": ("film.mp4", file.read(), "video/mp4")}


def job_of(number):
    """How far a job is."""
    return requests.get(f"{API}/jobs/{number}", headers=HEADERS).json()


# A film, while it is being worked on: nothing of the old one may appear beside the new one.
answer = requests.post(f"{API}/assets/new/content/original/upload", headers=HEADERS, files=film("1920x1080", 20))
answer.raise_for_status()
asset = answer.json()["assets"][0]["id"]
until_ok()
keys = {"keys": ["360p-video", "720p-video", "1080p-video", "hls-video"]}
job = requests.post(f"{API}/assets/{asset}/process", headers=HEADERS, json=keys).json()["job_id"]
for _ in range(100):
    if job_of(job)["status"] != "QUEUED":
        break
    time.sleep(0.1)
answer = requests.post(f"{API}/assets/{asset}/content/original/replace", headers=HEADERS, files=film("640x360", 2))
answer.raise_for_status()
if job_of(job)["status"] != "ERROR":
    sys.exit(f"the job of the film that was replaced goes on: {job_of(job)}")
now = until_ok()
if now["conversions"] or round(now["metadata"]["duration"]) != 2:
    sys.exit(f"the film is still described as {now}")
if (shown := measured("resize=320,320")) != ("image/jpeg", 320, 180):
    sys.exit(f"the poster is {shown}")
job = requests.post(f"{API}/assets/{asset}/process", headers=HEADERS, json={"keys": ["360p-video"]}).json()["job_id"]
for _ in range(480):
    if job_of(job)["status"] in ("COMPLETED", "ERROR"):
        break
    time.sleep(0.5)
made = data()["conversions"]
if job_of(job)["status"] != "COMPLETED" or list(made) != ["360p-video"] or round(made["360p-video"]["duration"]) != 2:
    sys.exit(f"{job_of(job)}\n{made}")
print("the film is replaced")

# And once more: what had been asked for of it is made of the new one, too.
answer = requests.post(f"{API}/assets/{asset}/content/original/replace", headers=HEADERS, files=film("640x360", 1))
answer.raise_for_status()
for _ in range(480):
    if "360p-video" in (made := data()["conversions"]):
        break
    time.sleep(0.5)
else:
    sys.exit(f"360p-video was not made again: {data()}")
if round(made["360p-video"]["duration"]) != 1:
    sys.exit(f"360p-video is still {made}")
print("and its rendition with it")
