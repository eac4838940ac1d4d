#!/usr/bin/python3
"""Takes the bucket away while uploads go on, in every manner of `bucket_proxy.py`, and gives it back.

    outage.py BINARY [--minutes 10] [--moto FOLDER] [--seed N] [--keep]

Originals belong in a bucket of moto's, and between the box and it stands a proxy that refuses, resets, swallows and
lies. Meanwhile clients upload and read. What has to hold:

  - every upload is answered 200, whatever the bucket does, and `/readyz` stays 200 and says what waits;
  - an original whose file is on this disk is served, whole and right; one that lies in the bucket alone may be refused
    with 503 or cut off while the bucket misbehaves, but is never answered with other bytes;
  - no file leaves the disk before the bucket has it; `kill -9` of the server in every manner, and while it drains;
  - when the bucket is well again, what waits moves on within three minutes, whatever the bucket did before;
  - at the end all is drained: boto3 finds every acknowledged upload in the bucket with its SHA-256, and nothing else
    that has a name; what was purged meanwhile is gone; every asset is OK, and served from the bucket.

Without `--minutes` each manner comes once, for as long as it takes to be seen. With them the manners come by chance, for
5 to 60 seconds each, the server is killed now and then, and sometimes keeps no copies. The seed is printed. FOLDER
is where packaging/test.sh has put moto. Ends with 0, or with a sentence; the directory is then kept for looking at.
"""

import argparse
import collections
import contextlib
import hashlib
import http.client
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
SCRIPTS = os.path.join(HERE, "..", "scripts")
sys.path.insert(0, SCRIPTS)

import picture
from appliance import API_KEY
from appliance import Appliance
from appliance import post_file
from bucket_proxy import MANNERS
from bucket_proxy import Proxy

FOREIGN = os.path.join(os.environ.get("CARGO_TARGET_DIR", os.path.join(HERE, "..", "..", "target")), "foreign", "moto")
BUCKET = "things"
EVERYTHING = str(10 << 30)
# Longer than the box waits for a bucket that says nothing, as often as it tries.
PATIENCE_S = 300
# When the bucket is well again: an attempt that was just swallowed, and the wait that follows, on a slow machine.
GOES_ON_WITHIN_S = 180
# Sent in parts.
LARGE_BYTES = 9 << 20


class Box:
    """The server, the proxy, and what the clients know."""

    def __init__(self, binary, directory, moto):
        self.proxy = Proxy(moto)
        self.appliance = Appliance(
            binary,
            os.path.join(directory, "data"),
            environment={
                "CLOAKROOM_STORAGE__BACKEND": "s3",
                "CLOAKROOM_STORAGE__ENDPOINT": self.proxy.endpoint,
                "CLOAKROOM_STORAGE__BUCKET": BUCKET,
                "CLOAKROOM_STORAGE__ACCESS_KEY": "us",
                "CLOAKROOM_STORAGE__SECRET_KEY": "hush",
                "CLOAKROOM_STORAGE__FREE_FLOOR_BYTES": "1048576",
                "CLOAKROOM_CUSTODY__LINGER_SECONDS": "0",
                "CLOAKROOM_HTTP__RATES__CALLS_BURST": "0",
                "CLOAKROOM_HTTP__RATES__FAILURES_BURST": "0",
                "CLOAKROOM_LOG": "warn",
            },
        )
        self.lock = threading.Lock()
        self.kept = {}
        self.purged = set()
        self.unanswered = 0
        self.counts = collections.Counter()
        self.slowest_s = collections.Counter()
        self.longest_wait_s = collections.Counter()
        self.failure = None
        # Odd while the server is being killed and started.
        self.generation = 0
        self.dead = threading.Event()

    def start(self, copies=EVERYTHING):
        self.appliance.environment["CLOAKROOM_STORAGE__LOCAL_COPIES_BYTES"] = copies
        self.appliance.start()

    def crash(self, copies=EVERYTHING, manner=None, requests=None):
        """`kill -9`, and a start; in between the bucket may take to another manner."""
        self.generation += 1
        self.appliance.kill()
        if manner:
            self.proxy.behave(manner, requests)
        self.start(copies)
        self.generation += 1
        self.counts["kills"] += 1

    def fail(self, sentence):
        self.failure = self.failure or sentence

    def check(self):
        if self.failure:
            raise SystemExit(self.failure)

    def upload(self, dice, size_bytes=None):
        """Uploads one file; its id, or `None` when the server died meanwhile."""
        if size_bytes is None and dice.random() < 0.4:
            name, kind, body = "p.jpg", "image/jpeg", picture.jpeg(dice.randint(32, 300), dice.randint(32, 300), dice.random(), 2)
        else:
            words = dice.randbytes((size_bytes or dice.randint(2, 300_000)) // 2).hex()
            name, kind, body = "t.txt", "text/plain", f"some words {words}".encode()
        generation, manner, began = self.generation, self.proxy.manner, time.monotonic()
        try:
            connection = self.appliance.connect()
            status, said = post_file(connection, name, body, kind)
            connection.close()
        except (OSError, http.client.HTTPException, IndexError) as error:
            # An index, because a server that starts has no address yet.
            if generation == self.generation and generation % 2 == 0:
                self.fail(f"an upload broke off though the server was alive ({manner}): {error!r}")
            with self.lock:
                self.unanswered += 1
            return None
        if status != 200:
            self.fail(f"an upload was answered {status} while the bucket {manner}: {said[:300]!r}")
            return None
        asset = json.loads(said)["assets"][0]["id"]
        with self.lock:
            self.kept[asset] = (hashlib.sha256(body).hexdigest(), len(body))
            self.counts["uploads"] += 1
            self.counts["bytes"] += len(body)
            self.counts[f"uploads while {manner}"] += 1
            self.slowest_s[manner] = max(self.slowest_s[manner], time.monotonic() - began)
        return asset

    def read(self, asset):
        """Reads an original whole, and judges what came."""
        generation, changes, was_bad = self.generation, self.proxy.changes, self.proxy.manner != "well"
        was_away = not os.path.exists(self.appliance.original(asset))
        status, sha256, error = None, None, None
        try:
            connection = self.appliance.connect(timeout_s=PATIENCE_S)
            try:
                connection.request("GET", f"/api/v1/assets/{asset}/content/original", headers={"X-FileSpin-Api-Key": API_KEY})
                answer = connection.getresponse()
                status, body = answer.status, answer.read()
                sha256 = hashlib.sha256(body).hexdigest()
            finally:
                connection.close()
        except (OSError, http.client.HTTPException, IndexError) as caught:
            error = caught
        if generation != self.generation or generation % 2:
            return None
        with self.lock:
            if asset in self.purged:
                return None
            expected, _ = self.kept[asset]
        is_away = was_away or not os.path.exists(self.appliance.original(asset))
        may_fail = is_away and (was_bad or changes != self.proxy.changes)
        where = "in the bucket alone" if is_away else "on the disk"
        if status == 200 and error is None:
            if sha256 != expected:
                self.fail(f"asset {asset}, {where}, was answered with other bytes while the bucket {self.proxy.manner}")
            self.counts[f"read {where}"] += 1
            return True
        if not may_fail or (error is None and status != 503):
            self.fail(f"asset {asset}, {where}, was answered {status} {error!r} while the bucket {self.proxy.manner}")
        self.counts["not read: 503" if error is None else "not read: cut off"] += 1
        return False

    def figures(self):
        status, text = self.appliance.get("/metrics")
        if status != 200:
            raise SystemExit(f"/metrics was answered {status}")
        found = re.findall(r"^cloakroom_(\S+) (\d+)$", text.decode(), re.MULTILINE)
        return {name.removesuffix("_total"): int(value) for name, value in found}

    def note(self):
        """What `/readyz` says of the bucket; it has to be ready."""
        status, body = self.appliance.get("/readyz")
        if status != 200:
            raise SystemExit(f"/readyz was answered {status} while the bucket {self.proxy.manner}: {body[:300]!r}")
        return next(check.get("message", "") for check in json.loads(body)["checks"] if check["name"] == "bucket")

    def until(self, what, is_so, timeout_s=PATIENCE_S):
        began = time.monotonic()
        while not is_so():
            self.check()
            if time.monotonic() - began > timeout_s:
                raise SystemExit(f"not within {timeout_s} s: {what}; {self.figures()}; {self.note()}")
            self.dead.wait(0.02)
        return time.monotonic() - began


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("binary")
    arguments.add_argument("--minutes", type=float, default=0)
    arguments.add_argument("--moto", default=FOREIGN)
    arguments.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    arguments.add_argument("--keep", action="store_true")
    options = arguments.parse_args()
    if not os.path.isdir(os.path.join(options.moto, "moto")):
        sys.exit(f"this needs moto in {options.moto}: run packaging/test.sh")
    print(f"seed {options.seed}", flush=True)
    directory = tempfile.mkdtemp(prefix="outage-")
    try:
        with foreign_bucket(options.moto, directory) as endpoint:
            run(options, directory, endpoint)
    except BaseException:
        print(f"kept for looking at: {directory}", file=sys.stderr)
        raise
    if not options.keep:
        shutil.rmtree(directory)


@contextlib.contextmanager
def foreign_bucket(moto, directory):
    """The address of somebody else's S3 server, for as long as it is wanted."""
    # What moto keeps goes to the same disk as the rest.
    environment = {**os.environ, "PYTHONPATH": moto, "TMPDIR": directory}
    words = ["/usr/bin/python3", os.path.join(SCRIPTS, "moto_server.py")]
    server = subprocess.Popen(words, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        endpoint = server.stdout.readline().decode().strip()
        if not endpoint:
            raise SystemExit("moto does not start")
        yield endpoint
    finally:
        server.kill()
        server.wait()


def run(options, directory, endpoint):
    dice = random.Random(options.seed)
    box = Box(options.binary, directory, endpoint)
    box.start()
    try:
        for _ in range(3):
            box.upload(dice)
        box.until("the first are drained", lambda: box.figures()["bucket_objects_waiting"] == 0)
        if options.minutes:
            for_a_while(options, box, dice)
        else:
            each_once(box, dice)
        drain(box, dice)
        look(options, box, endpoint)
        from_there_alone(box, dice)
        box.appliance.stop()
    finally:
        box.dead.set()
        box.proxy.close()
        if box.appliance.process.poll() is None:
            box.appliance.process.kill()
            box.appliance.process.wait()
    tell(box)


def each_once(box, dice):
    """Every manner, until it is seen to do harm; the server is killed in each, comes back in it, and sees it end."""
    for manner in MANNERS:
        failed = box.figures()["bucket_moves_failed"]
        box.proxy.behave(manner)
        asset = box.upload(dice)
        box.upload(dice, LARGE_BYTES)
        if manner == "black_hole":
            box.until("the bucket says nothing", lambda: box.proxy.hanging > 0)
        elif manner == "wrong_tag":
            box.until("what was sent is read back", lambda: box.figures()["bucket_objects_waiting"] == 0)
        else:
            # Counted first, and written down a moment later.
            box.until(
                f"moving fails while the bucket {manner}",
                lambda: (now := box.figures())["bucket_moves_failed"] > failed and now["bucket_last_error_age_seconds"],
            )
            figures, note = box.figures(), box.note()
            if figures["bucket_objects_waiting"] < 2 or figures["bucket_bytes_waiting"] < LARGE_BYTES:
                raise SystemExit(f"the bucket {manner}, and this waits: {figures}")
            if "originals" not in note or "the last attempt failed" not in note or not figures["bucket_last_error_age_seconds"]:
                raise SystemExit(f"the bucket {manner}, and this is said: {note!r}, {figures}")
        for one in [asset, *dice.sample(sorted(box.kept), 3)]:
            if box.read(one) is not True:
                raise SystemExit(f"asset {one} is not served while the bucket {manner}")
        box.crash()
        box.upload(dice)
        box.proxy.behave("well")
        goes_on(box, manner)
        box.check()


def goes_on(box, manner):
    """The bucket is well again: something that waits is moved before long."""
    moved = box.figures()["bucket_objects_moved"]

    def is_so():
        figures = box.figures()
        return figures["bucket_objects_moved"] > moved or figures["bucket_objects_waiting"] == 0

    waited_s = box.until(f"moving goes on after the bucket {manner}", is_so, GOES_ON_WITHIN_S)
    box.longest_wait_s[manner] = max(box.longest_wait_s[manner], waited_s)


def for_a_while(options, box, dice):
    """Manners by chance, one after another, with clients that upload and read all the time."""
    seeds = [dice.randrange(1 << 32) for _ in range(4)]
    clients = [threading.Thread(target=uploads, args=(box, random.Random(seed)), daemon=True) for seed in seeds[:2]]
    clients += [threading.Thread(target=reads, args=(box, random.Random(seed)), daemon=True) for seed in seeds[2:]]
    for client in clients:
        client.start()
    ends = time.monotonic() + options.minutes * 60
    bag, before = [], "well"
    while (left_s := ends - time.monotonic()) > 0:
        # All of them before one comes again, and well in between.
        bag = bag or dice.sample(MANNERS, len(MANNERS))
        for manner, share in ((bag.pop(), dice.uniform(5, 60)), ("well", dice.uniform(2, 20))):
            lasts_s = min(share, max(left_s, 1))
            copies = dice.choice((EVERYTHING, "0"))
            if dice.random() < 0.4:
                box.crash(copies, manner)
            else:
                box.proxy.behave(manner)
            if manner == "well":
                goes_on(box, before)
            before = manner
            moved, began = box.figures()["bucket_objects_moved"], time.monotonic()
            kill_at = dice.uniform(0, lasts_s) if dice.random() < 0.4 else None
            while time.monotonic() - began < lasts_s:
                box.check()
                box.note()
                if kill_at is not None and time.monotonic() - began > kill_at:
                    kill_at = None
                    box.crash(copies)
                box.dead.wait(0.2)
            figures = box.figures()
            print(
                f"{manner} for {lasts_s:.0f} s: {figures['bucket_objects_waiting']} wait, "
                f"{figures['bucket_moves_failed']} failures and {figures['bucket_objects_moved']} moves since the last kill "
                f"({moved} before), {box.counts['uploads']} uploads in all",
                flush=True,
            )
            box.counts[f"seconds of {manner}"] += round(lasts_s)
            if manner != "well":
                purge(box, dice)
    box.dead.set()
    for client in clients:
        client.join(PATIENCE_S)
        if client.is_alive():
            raise SystemExit("a client waits for ever")
    box.dead.clear()
    box.check()


def uploads(box, dice):
    while not box.dead.is_set():
        box.upload(dice, LARGE_BYTES + dice.randrange(1 << 20) if dice.random() < 0.01 else None)
        box.dead.wait(0.3)


def reads(box, dice):
    while not box.dead.is_set():
        with box.lock:
            asset = dice.choice(list(box.kept))
        box.read(asset)
        box.dead.wait(0.05)


def purge(box, dice):
    """Deletes an asset and empties the trash: its object is to go from the bucket, sooner or later."""
    with box.lock:
        some = dice.sample(sorted(box.kept), 5)
    asset = next((one for one in some if box.appliance.data(one)["status"] == "OK"), None)
    if asset is None:
        return
    with box.lock:
        box.purged.add(asset)
    for method, path, body in (("DELETE", f"/api/v1/assets/{asset}", None), ("POST", "/api/v1/assets/purge", b"{}")):
        connection = box.appliance.connect()
        connection.request(method, path, body, {"X-FileSpin-Api-Key": API_KEY, "Content-Type": "application/json"})
        answer = connection.getresponse()
        said = answer.read()
        connection.close()
        if answer.status >= 300:
            raise SystemExit(f"{method} {path} was answered {answer.status}: {said[:300]!r}")
    with box.lock:
        del box.kept[asset]


def drain(box, dice):
    """The bucket comes back; the server is killed while it drains, in the middle of a request."""
    for requests in dice.sample(range(1, 12), 4):
        box.crash(manner="well", requests=requests)
        box.upload(dice)
        box.until("the bucket falls silent again", lambda: box.proxy.hanging > 0 or box.figures()["bucket_objects_waiting"] == 0)
    box.crash(manner="well")
    took_s = box.until("everything is drained", lambda: box.figures()["bucket_objects_waiting"] == 0)
    print(f"drained {took_s:.1f} s after the last kill", flush=True)
    took_s = box.until("what was purged is removed", lambda: box.figures()["bucket_removals_waiting"] == 0)
    print(f"removals were done {took_s:.1f} s after that", flush=True)
    if box.note() or box.figures()["bucket_last_error_age_seconds"]:
        raise SystemExit(f"all is well, and this is said: {box.note()!r}, {box.figures()}")


def look(options, box, endpoint):
    """Compares the bucket, as somebody else reads it, with what was acknowledged."""
    sys.path.insert(0, options.moto)
    import boto3

    bucket = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="us", aws_secret_access_key="hush")
    found = {}
    for page in bucket.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
        for item in page.get("Contents", ()):
            body = bucket.get_object(Bucket=BUCKET, Key=item["Key"])["Body"].read()
            found[item["Key"].split("/")[-1].removesuffix(".1")] = (hashlib.sha256(body).hexdigest(), len(body))
    wrong = [asset for asset, expected in box.kept.items() if found.get(asset) != expected]
    if wrong:
        raise SystemExit(f"{len(wrong)} of {len(box.kept)} acknowledged uploads are not in the bucket as they were sent: {wrong[:5]}")
    listed = {item["id"] for item in box.appliance.assets()}
    if listed != set(found):
        raise SystemExit(f"on record and in the bucket differ by {sorted(listed ^ set(found))[:5]}")
    if len(listed) > len(box.kept) + box.unanswered:
        raise SystemExit(f"{len(listed)} assets of {len(box.kept)} uploads")
    for asset in box.kept:
        data = box.appliance.wait_until_ok(asset, timeout_s=PATIENCE_S)
        if data["storage_type"] != "AMAZON_S3" or data.get("errors"):
            raise SystemExit(f"asset {asset}: {data}")
    parts = bucket.list_multipart_uploads(Bucket=BUCKET).get("Uploads", ())
    print(f"{len(found)} objects in the bucket, {len(parts)} unfinished uploads left by kills", flush=True)
    if left := box.appliance.files("staging"):
        raise SystemExit(f"left in staging: {sorted(left)[:5]}")


def from_there_alone(box, dice):
    """Without copies: everything comes from the bucket, also when that breaks off again and again."""
    box.crash("0")
    box.until("no file is left here", lambda: not box.appliance.files("originals"))
    for asset in box.kept:
        if not box.read(asset):
            raise SystemExit(f"asset {asset} is not served from the bucket")
    some = dice.sample(sorted(box.kept), 2)
    for manner in MANNERS:
        if manner == "black_hole":
            continue
        box.proxy.behave(manner)
        for asset in some:
            is_served = box.read(asset)
            # These do not touch what is read, or only cut it into pieces.
            if manner in ("resets", "truncates", "wrong_tag", "corrupts", "forgets") and not is_served:
                raise SystemExit(f"asset {asset} is not served while the bucket {manner}")
        box.check()
    box.proxy.behave("well")
    if not all(box.read(asset) for asset in some):
        raise SystemExit("the bucket is back, and what lies there is not served")
    box.check()


def tell(box):
    for name in sorted(box.counts):
        print(f"{name}: {box.counts[name]}")
    print("slowest upload by manner: " + ", ".join(f"{manner} {seconds * 1000:.0f} ms" for manner, seconds in sorted(box.slowest_s.items())))
    print("moving went on after: " + ", ".join(f"{manner} {seconds:.1f} s" for manner, seconds in sorted(box.longest_wait_s.items())))
    print(f"{box.counts['uploads']} uploads acknowledged, {box.counts['kills']} kills, nothing lost, nothing wrong")


if __name__ == "__main__":
    main()
