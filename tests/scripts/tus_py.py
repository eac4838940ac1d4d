#!/usr/bin/env python3
"""Uploads in pieces with tuspy, which is killed and started again as often as somebody likes.

    tus_py.py BASE API_KEY FILE STATE_FILE PACKAGES

Says `progress BYTES` after every piece, each of which has a checksum, does nothing until a line comes on its input, and
says `asset ID` at the end. A further start with the same state goes on where the last one was. PACKAGES is where tuspy lies. Ends with 0, or with a sentence.
"""

import base64
import os
import sys

BASE, KEY, FILE, STATE, PACKAGES = sys.argv[1:6]
sys.path.insert(0, PACKAGES)

import requests  # noqa: E402
from tusclient import client  # noqa: E402
from tusclient.storage import filestorage  # noqa: E402

headers = {"X-FileSpin-Api-Key": KEY}
box = client.TusClient(f"{BASE}/files", headers=headers)
uploader = box.uploader(
    FILE,
    chunk_size=1 << 20,
    retries=20,
    retry_delay=1,
    metadata={"filename": os.path.basename(FILE), "way": "tuspy"},
    store_url=True,
    url_storage=filestorage.FileStorage(STATE),
    upload_checksum=True,
)
if uploader.offset:
    print("resumes", flush=True)
while uploader.offset < uploader.get_file_size():
    uploader.upload_chunk()
    print(f"progress {uploader.offset}", flush=True)
    # Whoever reads it decides what happens next, so nothing may happen before.
    sys.stdin.readline()

answer = requests.head(uploader.url, headers={**headers, "Tus-Resumable": "1.0.0"}, timeout=60)
if answer.status_code != 200 or int(answer.headers["Upload-Offset"]) != os.path.getsize(FILE):
    sys.exit(f"after the end: {answer.status_code} {dict(answer.headers)}")
said = dict(pair.partition(" ")[::2] for pair in answer.headers["Upload-Metadata"].split(","))
asset = base64.b64decode(said["asset_id"]).decode()
if asset != answer.headers["Cloakroom-Asset-Id"]:
    sys.exit(f"the metadata name another asset: {said}")
print(f"asset {asset}", flush=True)
