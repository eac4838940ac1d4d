"""The same upload written the ordinary way in Python: FastAPI, uvicorn, hashlib, sqlite3.

It makes the promise that we make, no more and no less: MD5 of the bytes, file flushed, directory entry flushed,
row committed, and only then the answer. The endpoint is a plain function, so FastAPI runs it in its thread pool,
where hashing and flushing of several uploads overlap; that is faster than `async def` here. One connection to the
database a thread, not one a request.
"""

import hashlib
import os
import sqlite3
import threading
import uuid

from fastapi import FastAPI
from fastapi import UploadFile

CHUNK_BYTES = 256 * 1024
HOME = os.environ["PEER_HOME"]

app = FastAPI()
local = threading.local()


@app.post("/upload")
def upload(file: UploadFile):
    asset = uuid.uuid4().hex
    directory = os.path.join(HOME, "originals", asset[:2])
    os.makedirs(directory, exist_ok=True)
    path = os.path.join(directory, asset)
    md5 = hashlib.md5()
    size = 0
    with open(path + ".part", "wb") as out:
        while chunk := file.file.read(CHUNK_BYTES):
            md5.update(chunk)
            out.write(chunk)
            size += len(chunk)
        out.flush()
        os.fsync(out.fileno())
    os.rename(path + ".part", path)
    flush_directory(directory)
    with database() as rows:
        rows.execute("INSERT INTO asset VALUES (?, ?, ?, ?)", (asset, file.filename, size, md5.hexdigest()))
    return {"assets": [{"id": asset, "name": file.filename, "size": size, "checksum": md5.hexdigest()}]}


def flush_directory(path):
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def database():
    if not hasattr(local, "connection"):
        local.connection = sqlite3.connect(os.path.join(HOME, "peer.db"), timeout=30)
        local.connection.execute("PRAGMA journal_mode=WAL")
        local.connection.execute("PRAGMA synchronous=FULL")
        local.connection.execute(
            "CREATE TABLE IF NOT EXISTS asset (id TEXT PRIMARY KEY, name TEXT, size INTEGER, md5 TEXT)"
        )
    return local.connection
