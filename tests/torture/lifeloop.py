#!/usr/bin/python3
"""Kills the server with SIGKILL while assets are replaced, written about, deleted, fetched back and purged.

    lifeloop.py BINARY [--rounds 10] [--assets 6] [--seed N] [--keep]

Each asset belongs to one client, which does one thing after another to it and knows what has been answered. After each
kill and start every asset has to be what its client was last told, or what the call that was cut off would have made
of it, and nothing else: its bytes by their MD5, its data, its conversion that was handed in, whether it is in the trash.
A second client meddles with all of them (deletes conversions, processes, hands in), which must do no harm.

At the end, when nothing is owed any more, there is exactly one original for each asset on record, no conversion of
another revision or asset, and nothing in staging. Ends with 0, or with a sentence; the directory is then kept.
"""

import hashlib
import json
import os
import random
import sqlite3
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "scripts"))

import picture
from appliance import UPLOAD
from appliance import Appliance
from appliance import call
from appliance import directory
from appliance import loop_options
from appliance import post_file
from appliance import unless_killed

SMALL = {
    "key": "image",
    "value": {
        "is_on_demand_private": False,
        "conversions": [
            {"key": "small", "value": {"format": "jpg", "watermark": False, "enabled": True, "public": True}
             | {"width": 64, "height": 0, "dpi": 72}}
        ],
    },
}


class Kept:
    """One asset as its client knows it: what was answered, and what a call that was cut off may have made of it."""

    def __init__(self):
        self.id = None
        self.sure = {"md5": None, "data": {}, "trashed": False, "gone": False, "handed": None}
        self.maybe = None

    def fits(self, found, forsaken):
        """Whether this is one of the states it may be in; it is taken for the one it is in then."""
        if found is None and self.maybe and self.maybe["gone"]:
            # In the trash, or on its way out of it: nobody knows, and it is left alone.
            forsaken.add(self.id)
            self.sure, self.maybe = self.maybe, None
            return True
        for state in [self.sure] + ([self.maybe] if self.maybe else []):
            hidden = state["gone"] or state["trashed"]
            if found is None and hidden or found is not None and not hidden and same(state, found):
                self.sure, self.maybe = dict(state), None
                return True
        return False


def same(state, found):
    handed = found["conversions"].get("mine", {}).get("size")
    return (state["md5"], state["data"], state["handed"]) == (found["checksum"], found["data"], handed)


def main():
    options = loop_options(__doc__, rounds=10, assets=6)
    dice = random.Random(options.seed)
    environment = {"CLOAKROOM_CUSTODY__LINGER_SECONDS": "0", "CLOAKROOM_STORAGE__FREE_FLOOR_BYTES": "1048576"}
    kept, forsaken, done = [Kept() for _ in range(options.assets)], set(), 0
    with (
        directory("lifeloop-", options.keep) as place,
        Appliance(options.binary, os.path.join(place, "data"), environment=environment) as appliance,
    ):
        status, _, said = appliance.call("PATCH", "/api/v1/user/settings/update", SMALL)
        if status != 200:
            raise SystemExit(f"the settings were answered {status}: {said}")
        for number in range(1, options.rounds + 1):
            done += one_round(appliance, kept, forsaken, dice, number)
        settled(appliance)
        check_files(appliance, kept, forsaken)
    print(f"{done} calls answered, {options.rounds} kills, every asset is what its client was told")


def one_round(appliance, kept, forsaken, dice, number):
    dead, failures, counts = threading.Event(), [], []
    clients = [
        threading.Thread(target=client, args=(appliance, asset, dead, random.Random(dice.random()), failures, counts))
        for asset in kept
    ]
    clients.append(threading.Thread(target=meddler, args=(appliance, kept, dead, random.Random(dice.random()), failures)))
    for each in clients:
        each.start()
    time.sleep(dice.uniform(0.3, 1.5))
    dead.set()
    appliance.kill()
    for each in clients:
        each.join()
    if failures:
        raise SystemExit(f"round {number}: {failures[0]}")
    left_over = appliance.files("staging")
    appliance.start()
    if still_there := left_over & appliance.files("staging"):
        raise SystemExit(f"round {number}: staging/ still holds {sorted(still_there)} from before the kill")
    for asset in kept:
        if asset.id is None:
            continue
        found = appliance.data(asset.id)
        if not asset.fits(found, forsaken):
            raise SystemExit(f"round {number}: {asset.id} should be {asset.sure} or {asset.maybe}; it is {found}")
        if found is not None:
            check_content(appliance, asset, found, number)
    print(f"round {number}: {sum(counts)} calls answered, {len(left_over)} swept from staging/", flush=True)
    return sum(counts)


def check_content(appliance, asset, found, number):
    status, body = appliance.get(f"/api/v1/assets/{asset.id}/content/original")
    if status != 200 or hashlib.md5(body).hexdigest() != found["checksum"]:
        raise SystemExit(f"round {number}: the original of {asset.id} was answered {status} with other bytes than it says")
    for key, made in found["conversions"].items():
        status, body = appliance.get(f"/api/v1/assets/{asset.id}/conversions/{key}")
        # It may be made again, deleted or swept at this very moment: then it is not on record any more.
        if status == 200 and len(body) == made["size"] or key not in (appliance.data(asset.id) or {"conversions": {}})["conversions"]:
            continue
        again = (appliance.data(asset.id) or {"conversions": {}})["conversions"].get(key)
        status, body = appliance.get(f"/api/v1/assets/{asset.id}/conversions/{key}")
        if again and (status != 200 or len(body) != again["size"]):
            raise SystemExit(f"round {number}: {key} of {asset.id} was answered {status}, {len(body)} bytes; it is {again}")


def client(appliance, asset, dead, dice, failures, counts):
    """Does one thing after another to its asset until the server dies."""
    connection, count = appliance.connect(), 0
    while not dead.is_set():
        state = asset.sure
        if asset.id is None or state["gone"]:
            asset.__init__()
            body = content(dice)
            result = exchange(connection, dead, failures, "POST", UPLOAD, body)
            if result is None:
                break
            asset.id = json.loads(result[1])["assets"][0]["id"]
            asset.sure["md5"] = hashlib.md5(body).hexdigest()
            count += 1
            continue
        path = f"/api/v1/assets/{asset.id}"
        if state["trashed"]:
            if dice.random() < 0.3:
                verb, what, body, after = "POST", "/api/v1/assets/purge", {"asset_ids": [asset.id]}, dict(state, gone=True)
            else:
                verb, what, body, after = "POST", f"{path}/undelete", None, dict(state, trashed=False)
        else:
            verb, what, body, after = one_thing(dice, path, state)
        asset.maybe = after
        result = exchange(connection, dead, failures, verb, what, body)
        if result is None:
            break
        status, said = result
        if status in (200, 202):
            if what.endswith("/purge") and not purged(connection, dead, failures, json.loads(said)["job_id"]):
                break
            asset.sure, asset.maybe = after, None
        elif (status, json.loads(said)["message"]) in ((400, "ASSET_NOT_READY"), (503, "BUSY"), (429, "TOO_MANY_REQUESTS")):
            asset.maybe = None
            dead.wait(0.02)
        else:
            failures.append(f"{verb} {what} of {state} was answered {status}: {said[:300]!r}")
            break
        count += 1
    counts.append(count)


def one_thing(dice, path, state):
    """A call, and what the asset is after it."""
    choice = dice.random()
    if choice < 0.4:
        body = content(dice)
        after = dict(state, md5=hashlib.md5(body).hexdigest(), handed=None)
        return "POST", f"{path}/content/original/replace", body, after
    if choice < 0.6:
        data = {f"k{dice.randrange(5)}": dice.randrange(1000)}
        mode = dice.choice(("APPEND", "REPLACE"))
        after = dict(state, data=data if mode == "REPLACE" else state["data"] | data)
        return "POST", f"{path}/data/update", {"data": data, "mode": mode}, after
    if choice < 0.8:
        body = picture.png(dice.randint(8, 80), dice.randint(8, 80), dice.random())
        return "POST", f"{path}/content/mine", body, dict(state, handed=len(body))
    return "DELETE", path, None, dict(state, trashed=True, handed=None)


def purged(connection, dead, failures, job):
    """Waits for a job; false when the server died before."""
    while True:
        result = exchange(connection, dead, failures, "GET", f"/api/v1/jobs/{job}", None)
        if result is None:
            return False
        if json.loads(result[1])["status"] == "COMPLETED":
            return True
        dead.wait(0.01)


def meddler(appliance, kept, dead, dice, failures):
    """Does to all assets what must not change what their clients know."""
    connection = appliance.connect()
    while not dead.is_set():
        asset = dice.choice(kept).id
        if asset is None:
            dead.wait(0.01)
            continue
        path = f"/api/v1/assets/{asset}"
        verb, what, body = dice.choice((
            ("POST", f"{path}/process", {"keys": ["small", "smart_imaging", "deepzoom"]}),
            ("POST", f"{path}/delete", {"keys": ["small", "deepzoom"]}),
            ("POST", "/api/v1/assets/bulk/process", {"asset_ids": [asset], "keys": ["small"]}),
            ("GET", f"{path}/conversions?resize={dice.randint(5, 60)},60", None),
            ("GET", f"{path}/conversions/small", None),
        ))
        result = exchange(connection, dead, failures, verb, what, body)
        if result is None:
            return
        if result[0] >= 500 and result[0] != 503:
            failures.append(f"{verb} {what} was answered {result[0]}: {result[1][:300]!r}")
            return


def exchange(connection, dead, failures, verb, path, body):
    """`(status, body)`, or `None` when the server died meanwhile; bytes are sent as a file, everything else as JSON."""
    return unless_killed(dead, failures.append, f"{verb} {path}", ask, connection, verb, path, body)


def ask(connection, verb, path, body):
    if isinstance(body, bytes):
        return post_file(connection, "f.bin", body, path=path)
    status, _, said = call(connection, verb, path, body)
    return status, said


def content(dice):
    if dice.random() < 0.7:
        return picture.jpeg(dice.randint(16, 400), dice.randint(16, 400), dice.random(), 2)
    return b"some words " + dice.randbytes(dice.randint(1, 100_000)).hex().encode()


def settled(appliance, timeout_s=120):
    """Waits until nothing is owed; sweeping waits half a minute for what is being made."""
    began = time.monotonic()
    while True:
        database = sqlite3.connect(f"file:{appliance.data_dir}/cloakroom.db?mode=ro", uri=True)
        with database:
            owed = database.execute("SELECT kind, state, error FROM job WHERE state <> 'cancelled'").fetchall()
        database.close()
        if not owed:
            return
        if [job for job in owed if job[1] == "discarded"] or time.monotonic() - began > timeout_s:
            raise SystemExit(f"still owed, or given up: {owed}")
        time.sleep(0.1)


def check_files(appliance, kept, forsaken):
    """Compares the folders with the record."""
    database = sqlite3.connect(f"file:{appliance.data_dir}/cloakroom.db?mode=ro", uri=True)
    with database:
        assets = database.execute("SELECT id, revision FROM asset").fetchall()
        named = "CASE WHEN handed IS NULL THEN round || '.' || key || '.' || extension ELSE key || '.' || handed END"
        made = database.execute(f"SELECT asset_id, revision, {named} FROM conversion").fetchall()
        tally = database.execute("SELECT sum(live) FROM asset_block").fetchone()[0]
        listed = database.execute("SELECT count(*) FROM asset WHERE trashed_at IS NULL").fetchone()[0]
    database.close()
    if tally != listed:
        raise SystemExit(f"{tally} assets are told, {listed} are there")
    wanted = {f"{asset[:2]}/{asset}.{revision}" for asset, revision in assets}
    if wanted != appliance.files("originals"):
        raise SystemExit(f"originals: on record and on disk differ by {sorted(wanted ^ appliance.files('originals'))}")
    wanted = {f"{asset[:2]}/{asset}/{revision}/{name}" for asset, revision, name in made}
    there = appliance.files("conversions")
    if lost := wanted - there:
        raise SystemExit(f"conversions on record that are not on disk: {sorted(lost)}")
    # What was being made when its asset was deleted may be left until the asset is purged or replaced.
    revisions = dict(assets)
    extra = [file for file in there - wanted if revisions.get(file.split("/")[1]) != int(file.split("/")[2])]
    if extra:
        raise SystemExit(f"conversions of what is gone: {sorted(extra)}")
    if waiting := appliance.files("staging"):
        raise SystemExit(f"staging/ holds {sorted(waiting)}")
    known = {asset.id for asset in kept if asset.id and not asset.sure["gone"]}
    # Uploads that were cut off may be there without anybody's knowing.
    if lost := known - {asset for asset, _ in assets} - forsaken:
        raise SystemExit(f"assets that should be on record: {lost}")


if __name__ == "__main__":
    main()
