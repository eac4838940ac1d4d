#!/usr/bin/python3
"""Kills the server with SIGKILL in the middle of uploads, again and again, and counts what is left.

    killloop.py BINARY [--rounds 5] [--uploads 200] [--writers 8] [--seed N] [--keep]

In every round several writers upload photographs and arbitrary bytes; whatever is acknowledged (the whole 2xx
read) is written down with its size and SHA-256. At a moment drawn by chance the server is killed and started
again on the same directory. Then, over all rounds so far:

  - every acknowledged asset is there, and its original on disk has the right SHA-256;
  - nothing else is visible, but for uploads that were under way when the server died – and those are whole;
  - no file is left in staging/ from before the kill, and no original lies on disk without an asset.

`--uploads` is the number of acknowledged uploads in all, shared out over the rounds. The seed is printed; the
same seed makes the same files and the same choice of moments, though not the same race. Ends with 0, or with a
sentence; the directory is then kept for looking at.
"""

import contextlib
import hashlib
import json
import os
import random
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "scripts"))

import picture
from appliance import Appliance
from appliance import directory
from appliance import loop_options
from appliance import post_file
from appliance import sha256_of
from appliance import unless_killed


class Ledger:
    """What the clients know: uploads acknowledged, and uploads begun and never answered."""

    def __init__(self, path):
        self.acknowledged = {}
        self.unanswered = {}
        self.failure = None
        self._file = open(path, "w", encoding="ascii")
        self._changed = threading.Condition()

    def begin(self, name, size_bytes, sha256):
        with self._changed:
            self.unanswered[name] = (size_bytes, sha256)

    def acknowledge(self, name, asset):
        with self._changed:
            size_bytes, sha256 = self.unanswered.pop(name)
            self.acknowledged[asset] = (name, size_bytes, sha256)
            print(asset, sha256, size_bytes, file=self._file, flush=True)
            self._changed.notify_all()

    def refuse(self, name):
        with self._changed:
            del self.unanswered[name]

    def fail(self, sentence):
        with self._changed:
            self.failure = self.failure or sentence
            self._changed.notify_all()

    def wait_for(self, count, timeout_s):
        """Waits until so many are acknowledged in all."""
        with self._changed:
            done = self._changed.wait_for(lambda: self.failure or len(self.acknowledged) >= count, timeout_s)
        if self.failure:
            raise SystemExit(self.failure)
        if not done:
            raise SystemExit(f"only {len(self.acknowledged)} of {count} uploads were acknowledged in {timeout_s} s")


def main():
    options = loop_options(__doc__, rounds=5, uploads=200, writers=8)
    dice = random.Random(options.seed)
    with directory("killloop-", options.keep) as place:
        ledger = Ledger(os.path.join(place, "acknowledged.log"))
        with Appliance(options.binary, os.path.join(place, "data")) as appliance:
            for number in range(1, options.rounds + 1):
                goal = options.uploads * number // options.rounds
                one_round(options, appliance, ledger, dice, number, goal)
    print(f"{len(ledger.acknowledged)} uploads acknowledged, {options.rounds} kills, nothing lost, nothing extra")


def one_round(options, appliance, ledger, dice, number, goal):
    dead = threading.Event()
    seeds = [dice.randrange(1 << 32) for _ in range(options.writers)]
    writers = [
        threading.Thread(target=write, args=(appliance, ledger, dead, random.Random(seed), f"r{number}-w{index}"))
        for index, seed in enumerate(seeds)
    ]
    for writer in writers:
        writer.start()
    try:
        ledger.wait_for(goal, timeout_s=300)
        # Somewhere within the uploads that are under way now.
        time.sleep(dice.uniform(0, 0.1))
    finally:
        dead.set()
        appliance.kill()
        for writer in writers:
            writer.join()
    if ledger.failure:
        raise SystemExit(ledger.failure)

    left_over = appliance.files("staging")
    ready_s = appliance.start()
    still_there = left_over & appliance.files("staging")
    if still_there:
        raise SystemExit(f"round {number}: staging/ still holds {sorted(still_there)} from before the kill")
    unanswered = check_archive(appliance, ledger, number)
    print(
        f"round {number}: {len(ledger.acknowledged)} acknowledged, {len(ledger.unanswered)} cut off of which "
        f"{unanswered} arrived whole, {len(left_over)} swept from staging/, "
        f"{len(appliance.files('quarantine'))} in quarantine/, ready after {ready_s:.2f} s",
        flush=True,
    )


def write(appliance, ledger, dead, dice, prefix):
    """One client: uploads file after file until the server dies."""
    serial = 0
    while not dead.is_set():
        serial += 1
        name, kind, body = any_file(dice, f"{prefix}-{serial}")
        ledger.begin(name, len(body), hashlib.sha256(body).hexdigest())
        answered = unless_killed(dead, ledger.fail, f"the upload of {name}", send, appliance, name, body, kind)
        if answered is None:
            return
        status, answer = answered
        if status in (429, 503):
            # Told to come back later, which is no acknowledgement.
            ledger.refuse(name)
            dead.wait(0.2)
        elif status == 200:
            try:
                ledger.acknowledge(name, json.loads(answer)["assets"][0]["id"])
            except (ValueError, LookupError) as error:
                ledger.fail(f"the upload of {name} was answered {status} without an id: {answer[:300]!r} ({error!r})")
                return
        else:
            ledger.fail(f"the upload of {name} was answered {status}: {answer[:300]!r}")
            return


def send(appliance, name, body, kind):
    # A connection of its own: the server closes one that idles, and making a file may take that long.
    with contextlib.closing(appliance.connect()) as connection:
        return post_file(connection, name, body, kind)


def any_file(dice, stem):
    """A photograph or arbitrary bytes, around every boundary that a copy loop may have."""
    if dice.random() < 0.5:
        body = picture.jpeg(dice.randint(16, 900), dice.randint(16, 900), dice.random(), dice.randint(1, 12))
        return f"{stem}.jpg", "image/jpeg", body
    edge = dice.choice((1, 64, 4096, 65536, 262144, 524288, 1048576, 3000000))
    return f"{stem}.bin", "application/octet-stream", dice.randbytes(max(1, edge + dice.randint(-3, 3)))


def check_archive(appliance, ledger, number):
    """Compares the clients' ledger with the archive; the number of unanswered uploads that are there."""
    visible = {item["id"]: item for item in appliance.assets()}
    lost = sorted(set(ledger.acknowledged) - set(visible))
    if lost:
        raise SystemExit(f"round {number}: acknowledged but not in the listing: {lost}")

    arrived = 0
    for asset, item in visible.items():
        if asset in ledger.acknowledged:
            name, size_bytes, sha256 = ledger.acknowledged[asset]
        elif item["name"] in ledger.unanswered:
            name = item["name"]
            size_bytes, sha256 = ledger.unanswered[name]
            arrived += 1
        else:
            raise SystemExit(f"round {number}: asset {asset} ({item['name']}) was never uploaded")
        data = appliance.data(asset)
        if data is None:
            raise SystemExit(f"round {number}: asset {asset} is in the listing, but has no data")
        if (data["name"], data["size"]) != (name, size_bytes):
            raise SystemExit(f"round {number}: asset {asset} should be {name} of {size_bytes} bytes: {data}")
        path = appliance.original(asset)
        if not os.path.exists(path):
            raise SystemExit(f"round {number}: the original of asset {asset} ({name}) is not at {path}")
        if sha256_of(path) != sha256:
            raise SystemExit(f"round {number}: the original of asset {asset} ({name}) has other bytes: {path}")

    expected = {
        os.path.relpath(appliance.original(asset), os.path.join(appliance.data_dir, "originals")) for asset in visible
    }
    extra = sorted(appliance.files("originals") - expected)
    if extra:
        raise SystemExit(f"round {number}: originals without an asset: {extra}")
    return arrived


if __name__ == "__main__":
    main()
