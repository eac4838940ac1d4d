#!/usr/bin/python3
"""S4: a file straight to storage, then registered, with `requests`.

    s4_direct_to_storage.py BASE API_KEY

The form is sent in three ways: as the guide has it, as curl -F does, and as programs do that were written
for the answer of boto3's generate_presigned_post ({"url": …, "fields": {…}}).
"""

import hashlib
import subprocess
import sys
import tempfile
import time

import requests

import picture

BASE, API_KEY = sys.argv[1:3]
API = f"{BASE}/api/v1"
HEADERS = {"X-FileSpin-Api-Key": API_KEY}


def announce(**query):
    return requests.get(f"{API}/assets/new/content_storage_url", headers=HEADERS, params=query)


def by_the_guide(storage, path):
    with open(path, "rb") as file:
        return requests.post(storage["url"], data=storage["fields"], files={"file": (storage["name"], file)}).status_code


def by_curl(storage, path):
    form = [part for name, value in storage["fields"].items() for part in ("-F", f"{name}={value}")]
    command = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", *form, "-F", f"file=@{path}", storage["url"]]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def by_boto3_habit(storage, path):
    """`http_response = requests.post(response['url'], data=response['fields'], files=files)`, word for word."""
    response = {"url": storage["url"], "fields": storage["fields"]}
    object_name = storage["fields"]["key"]
    with open(path, "rb") as f:
        files = {"file": (object_name, f)}
        http_response = requests.post(response["url"], data=response["fields"], files=files)
    return http_response.status_code


for seed, send in enumerate((by_the_guide, by_curl, by_boto3_habit)):
    photo = picture.jpeg(640 + seed, 480)
    with tempfile.NamedTemporaryFile(suffix=".jpg") as file:
        file.write(photo)
        file.flush()
        answer = announce(filename="photo.jpg")
        answer.raise_for_status()
        asset, storage = answer.json()["asset_id"], answer.json()["storage"]
        if storage["protocol"] != "POST" or storage["key"] != "/" + storage["fields"]["key"]:
            sys.exit(f"not the form of the contract: {storage}")
        status = send(storage, file.name)
        if not 200 <= status < 300:
            sys.exit(f"{send.__name__}: the form was answered {status}")
    registration = {
        "asset_id": asset,
        "size": len(photo),
        "checksum": hashlib.md5(photo).hexdigest(),
        "upload_time": "2024-05-15T15:43:02Z",
        "upload_started_at": "2024-05-15T15:43:02Z",
        "upload_completed_at": "2024-05-15T15:43:04Z",
        "service_data": {"app": "MyApp", "build": "1.0.0", "deployment_data": {"client": "WebUploader"}},
    }
    answer = requests.post(f"{API}/assets/new/register_asset", headers=HEADERS, json=registration)
    answer.raise_for_status()
    if answer.json()["id"] != asset:
        sys.exit(f"another asset was registered: {answer.json()}")
    for _ in range(30):
        data = requests.get(f"{API}/assets/{asset}/data", headers=HEADERS).json()
        if data["status"] == "OK":
            break
        time.sleep(1)
    got = (data["status"], data["name"], data["size"], data["checksum"], data["metadata"].get("width"))
    if got != ("OK", "photo.jpg", len(photo), registration["checksum"], 640 + seed):
        sys.exit(f"{send.__name__}: {data}")
    print(f"{send.__name__}: {asset}")

missing, taken = announce(), announce(filename="photo.jpg", asset_id=asset)
for answer, word in ((missing, "MISSING_MANDATORY_PARAMETERS"), (taken, "ASSET_ID_EXISTS")):
    if answer.status_code != 400 or word not in answer.text:
        sys.exit(f"expected 400 {word}, got {answer.status_code} {answer.text}")
    print(f"refused: {word}")
