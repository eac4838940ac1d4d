"""Originals in a bucket of a server that is not ours, looked at with boto3, which is not ours either.

Usage: PYTHONPATH=FOLDER python3 bucket_of_others.py BASE API_KEY ENDPOINT

The box keeps originals in the bucket `things` at ENDPOINT. A large one goes there in parts; boto3 finds the same
bytes; ranges come from there; a link into the bucket opens without the box; what is purged is gone there, too. A form
of content_storage_url leads straight into the bucket, with the signature that botocore makes of it; what came by it is
registered, looked at and moved, and is not left behind.
"""

import base64
import hashlib
import json
import sys
import time

import boto3
import requests
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

base, key, endpoint = sys.argv[1:4]
box = requests.Session()
box.headers["X-FileSpin-Api-Key"] = key
bucket = boto3.client(
    "s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="us", aws_secret_access_key="hush"
)


def until(what, found, seconds=60):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = found()
        if value:
            return value
        time.sleep(0.05)
    sys.exit(f"{what}: not within {seconds} s")


for size in (5, 20 * 1024 * 1024 + 7):
    body = b"".join(hashlib.sha256(str(n).encode()).digest() for n in range(size // 32 + 1))[:size]
    answer = box.post(f"{base}/api/v1/assets/new/content/original/upload", files={"file": ("b.bin", body)})
    assert answer.status_code == 200, answer.text
    asset = answer.json()["assets"][0]["id"]

    def moved():
        data = box.get(f"{base}/api/v1/assets/{asset}/data").json()
        return data if data["storage_type"] == "AMAZON_S3" else None

    data = until("moved to the bucket", moved)
    assert data["bucket"] == "things" and data["checksum"] == hashlib.md5(body).hexdigest(), data
    name = data["key"].lstrip("/")
    there = bucket.get_object(Bucket="things", Key=name)
    assert there["Body"].read() == body, "boto3 finds other bytes"

    original = f"{base}/api/v1/assets/{asset}/content/original"
    assert box.get(original).content == body
    first, last = size // 3, min(size // 3 + 1000, size - 1)
    part = box.get(original, headers={"Range": f"bytes={first}-{last}"})
    assert part.status_code == 206 and part.content == body[first : last + 1], part.status_code

    link = box.get(f"{base}/api/v1/assets/{asset}/get_link?key=original&link_type=object_storage&expiry=60").json()
    assert link["url"].startswith(endpoint), link
    direct = requests.get(link["url"])
    assert direct.status_code == 200 and direct.content == body, direct.status_code
    assert "attachment" in direct.headers["Content-Disposition"], direct.headers

    assert box.delete(f"{base}/api/v1/assets/{asset}").status_code == 200
    assert box.post(f"{base}/api/v1/assets/purge", json={}).status_code < 300

    def gone():
        try:
            bucket.head_object(Bucket="things", Key=name)
        except ClientError as error:
            return error.response["Error"]["Code"] == "404"

    until("gone from the bucket", gone)

body = b"straight into the bucket" * 1000
announced = box.get(f"{base}/api/v1/assets/new/content_storage_url", params={"filename": "straight.txt"}).json()
asset, storage = announced["asset_id"], announced["storage"]
fields = storage["fields"]
assert storage["url"] == f"{endpoint}/things" and storage["bucket"] == "things", storage
request = AWSRequest()
request.context["timestamp"] = fields["x-amz-date"]
signature = SigV4Auth(Credentials("us", "hush"), "s3", "us-east-1").signature(fields["policy"], request)
assert fields["x-amz-signature"] == signature, "botocore signs this form otherwise"
policy = json.loads(base64.b64decode(fields["policy"]))
named = {name.lstrip("$") for c in policy["conditions"] for name in (c if isinstance(c, dict) else [str(c[1])])}
unnamed = set(fields) - {"policy", "x-amz-signature"} - named
assert not unnamed, f"S3 refuses a form with fields that its policy does not name: {unnamed}"
sent = requests.post(storage["url"], data=fields, files={"file": ("straight.txt", body)})
assert sent.status_code == 204, sent.text
claim = {"asset_id": asset, "size": len(body), "checksum": hashlib.md5(body).hexdigest()}
answer = box.post(f"{base}/api/v1/assets/new/register_asset", json=claim)
assert answer.status_code == 200 and answer.json()["id"] == asset, answer.text
data = until("collected and moved", moved)
assert bucket.get_object(Bucket="things", Key=data["key"].lstrip("/"))["Body"].read() == body
until("cleared away", lambda: not bucket.list_objects_v2(Bucket="things", Prefix=f"originals/{asset}/").get("Contents"))

print("a bucket of others: ok")
