#!/usr/bin/python3
"""S1: upload, poll, serve, as the vendor's guide has its readers do it with `requests`.

    s1_upload_poll_serve.py BASE API_KEY

Nothing in here knows Cloakroom: with the vendor's base URLs it would run against the vendor.
"""

import sys
import tempfile
import time

import requests

import picture

BASE, API_KEY = sys.argv[1:3]
API = f"{BASE}/api/v1"
CDN = f"{BASE}/api/v1"
HEADERS = {"X-FileSpin-Api-Key": API_KEY}

with tempfile.NamedTemporaryFile(suffix=".jpg") as photo:
    photo.write(picture.jpeg(1600, 1200))
    photo.flush()
    with open(photo.name, "rb") as file:
        answer = requests.post(f"{API}/assets/new/content/original/upload", headers=HEADERS, files={"file": file})
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

thumbnail = f"{CDN}/assets/{asset}/conversions?resize=400,300&quality=80"
print(f"thumbnail: {thumbnail}")
served = requests.get(thumbnail)
served.raise_for_status()
kind, width, height = picture.measure(served.content)
if (kind, width, height) != ("image/jpeg", 400, 300):
    sys.exit(f"expected a JPEG of 400 x 300, got {kind} of {width} x {height}")
