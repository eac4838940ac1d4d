#!/usr/bin/python3
"""Originals in a bucket: what they cost beside originals on the disk, and how fast all of them move.

    bucket.py [BINARY] [--part bucket|migrate] [--rounds 3] [--photos 2000] [--quick]

The bucket is moto's, in another process on this machine: a program in Python, which sets the pace. So seconds are
mostly its, and only processor time is ours alone.

bucket: the same files are handed in as forms and read back, by a box that keeps originals on its disk and by one that
keeps them in the bucket and no copies here. Handing in has ended when nothing waits to be moved.

migrate: `cloakroom storage migrate` takes originals of 300 kB and a few of 100 MB to the bucket and back again, each
verified, switched in the database and, on the way back, flushed. The peer is rclone with as many transfers, which
copies the same files there and back. The box removes what has moved, in the bucket after a while, which is shown apart;
rclone removes nothing.

Rounds alternate.
"""

import collections
import json
import os
import resource
import sqlite3
import subprocess
import sys
import time

import bench

KEY = {"X-FileSpin-Api-Key": bench.API_KEY}
# As in tests/scripts/moto_server.py.
BUCKET, ACCESS_KEY, SECRET_KEY = "things", "us", "hush"
# Stations that hand in and read.
CLIENTS = 2
SMALL_BYTES = 300_000
# Originals that a box moves at once (storage.uploads_at_once).
AT_ONCE = 2
# Longer than this nothing here takes, in seconds.
PATIENCE = 600


def main():
    parser = bench.arguments(__doc__, rounds=3, photos=2000)
    parser.add_argument("--part", choices=("bucket", "migrate"), help="one of the two alone")
    options = parser.parse_args()
    options.small, options.large, options.large_bytes = 500, 5, 100_000_000
    if options.quick:
        options.rounds, options.photos, options.small, options.large, options.large_bytes = 1, 100, 50, 2, 20_000_000
    for name, part in (("bucket", beside_the_disk), ("migrate", moving)):
        if options.part in (None, name):
            part(options)


# Beside the disk


def beside_the_disk(options):
    large_mb = options.large_bytes // 1_000_000
    cases = (("300 kB", SMALL_BYTES, options.small), (f"{large_mb} MB", options.large_bytes, options.large))
    results = collections.defaultdict(list)
    with bench.Workplace() as place:
        settings = {**moto(place), "CLOAKROOM_STORAGE__BACKEND": "s3", "CLOAKROOM_STORAGE__LOCAL_COPIES_BYTES": "0"}
        sides = {
            "disk": place.appliance(options.binary, name="disk"),
            "bucket": place.appliance(options.binary, name="bucket", environment=settings),
        }
        bodies = {case: bench.Documents(case[1], CLIENTS) for case in cases}
        for appliance in sides.values():
            hand_in(appliance, bodies[cases[0]], CLIENTS)
        for number in range(options.rounds):
            for case in cases:
                for side in sides if number % 2 == 0 else reversed(sides):
                    results[case, side].append(there_and_back(sides[side], bodies[case], case))
                    print(f"round {number + 1}, files of {case[0]}, {side}", file=sys.stderr)

    medians = {key: [bench.median(column) for column in zip(*rows)] for key, rows in results.items()}
    print(f"{options.small} files of 300 kB, {options.large} of {large_mb} MB; {CLIENTS} stations\n")
    heads = ["", "MB/s answered", "MB/s at home", "CPU s/GB in", "MB/s served", "CPU s/GB out"]
    bench.table(heads, [[f"files of {case[0]}, {side}", *row] for (case, side), row in medians.items()])
    print()
    for case in cases:
        bucket, disk = medians[case, "bucket"], medians[case, "disk"]
        beside = f"files of {case[0]}, bucket beside disk"
        bench.ratio(f"{beside}: MB/s answered", bucket[0], disk[0])
        bench.ratio(f"{beside}: CPU in", bucket[2], disk[2])
        bench.ratio(f"{beside}: CPU out", bucket[4], disk[4])


def there_and_back(appliance, bodies, case):
    """Hands in and reads once: MB/s until answered and at home, CPU s/GB; MB/s served, CPU s/GB."""
    pid, total_mb = appliance.process.pid, case[1] * case[2] / 1e6
    bench.settle(pid)
    os.sync()
    spent = bench.Spent(pid)
    began = time.monotonic()
    assets, answered_s = hand_in(appliance, bodies, case[2])
    wait_until_home(appliance)
    home_s = time.monotonic() - began
    bench.settle(pid)
    into_s = spent.all()

    spent = bench.Spent(pid)
    buffer = [memoryview(bytearray(bench.MIB)) for _ in range(CLIENTS)]

    def read(connection, number):
        connection.request("GET", f"/api/v1/assets/{assets[number]}/content/original", headers=KEY)
        answer = connection.getresponse()
        into, got = buffer.pop(), 0
        while count := answer.readinto(into):
            got += count
        buffer.append(into)
        if answer.status != 200 or got != case[1]:
            raise bench.Failed(f"an original was answered {answer.status}, with {got} of {case[1]} bytes")

    served_s = bench.together(CLIENTS, case[2], appliance.connect, read)
    bench.settle(pid)
    per_gb = 1000 / total_mb
    return total_mb / answered_s, total_mb / home_s, into_s * per_gb, total_mb / served_s, spent.all() * per_gb


def hand_in(appliance, bodies, count):
    """Uploads so many: their ids, and the seconds until the last answer."""
    assets = []

    def send(connection, _):
        with bodies.next() as body:
            status, answer = bench.post_file(connection, "document.txt", body)
        if status != 200:
            raise bench.Failed(f"an upload was answered {status}: {answer[:300]!r}")
        assets.append(json.loads(answer)["assets"][0]["id"])

    took_s = bench.together(CLIENTS, count, appliance.connect, send)
    return assets, took_s


def wait_until_home(appliance):
    """Until no original waits to be moved to where it belongs."""
    began = time.monotonic()
    while b"\ncloakroom_bucket_objects_waiting 0\n" not in appliance.get("/metrics")[1]:
        if time.monotonic() - began > PATIENCE:
            sys.exit("originals still wait for the bucket")
        time.sleep(0.1)


# Moving all of them


def moving(options):
    bench.need_packages(rclone="rclone")
    results = collections.defaultdict(list)
    with bench.Workplace() as place:
        settings = {**moto(place), "CLOAKROOM_STORAGE__LOCAL_COPIES_BYTES": "0"}
        appliance = place.appliance(options.binary, environment=settings)
        hand_in(appliance, bench.Documents(SMALL_BYTES, CLIENTS), options.photos)
        large, _ = hand_in(appliance, bench.Documents(options.large_bytes, CLIENTS), 4)
        appliance.wait_until_ok(large[-1])
        bench.settle(appliance.process.pid)
        appliance.stop()

        box, rclone = Box(appliance, options.photos + 4), Rclone(place, appliance, settings)
        for number in range(options.rounds):
            for way in ("to the bucket", "back"):
                for side in (box, rclone) if number % 2 == 0 else (rclone, box):
                    os.sync()
                    moved_s, cpu_s, *afterwards = side.go(way)
                    mb = (options.photos * SMALL_BYTES + 4 * options.large_bytes) / 1e6
                    row = ((options.photos + 4) / moved_s, mb / moved_s, cpu_s, cpu_s / mb * 1000, *afterwards)
                    results[way, side.name].append(row)
                    print(f"round {number + 1}, {way}, {side.name}: {moved_s:.1f} s", file=sys.stderr)
            rclone.forget()

    medians = {key: [bench.median(column) for column in zip(*rows)] for key, rows in results.items()}
    print(f"{options.photos} originals of 300 kB and 4 of {options.large_bytes // 1_000_000} MB; {AT_ONCE} at once\n")
    heads = ["", "objects/s", "MB/s", "CPU s", "CPU s/GB", "s afterwards", "CPU s afterwards"]
    bench.table(heads, [[f"{way}, {side}", *row] for (way, side), row in medians.items()])
    print()
    for way in ("to the bucket", "back"):
        ours, theirs = medians[way, "cloakroom"], medians[way, "rclone"]
        bench.ratio(f"{way}, beside rclone: objects/s", ours[0], theirs[0])
        bench.ratio(f"{way}, beside rclone: CPU", ours[2], theirs[2])
        bench.ratio(f"{way}, beside rclone: CPU with what comes afterwards", ours[2] + ours[5], theirs[2] + theirs[5])


class Box:
    """A box whose server is stopped, and the command that moves its originals."""

    name = "cloakroom"

    def __init__(self, appliance, originals):
        self.appliance = appliance
        self.originals = originals
        # It may be looked at while somebody writes; neither waits for the other.
        self.rows = sqlite3.connect(os.path.join(appliance.data_dir, "cloakroom.db"), timeout=30)

    def go(self, way):
        """Seconds and processor seconds until all have moved and are on the disk; the same of what follows."""
        there = self.originals if way == "to the bucket" else 0
        spent_before = ended_children_s()
        began = time.monotonic()
        process = self._migrate(way)
        while self._count("object WHERE home = 's3'") != there:
            if process.poll() is not None or time.monotonic() - began > PATIENCE:
                sys.exit(f"not all originals have moved {way}:\n{self.appliance.tail()}")
            time.sleep(0.02)
        cpu_s = bench.Spent(process.pid).all_before
        moved_s = time.monotonic() - began + bench.written_s()
        if process.wait() != 0:
            sys.exit(f"moving {way} ended with {process.returncode}:\n{self.appliance.tail()}")
        ended_s = time.monotonic() - began
        all_s = ended_children_s() - spent_before
        self._clear()
        return moved_s, cpu_s, max(0, ended_s - moved_s), max(0, all_s - cpu_s)

    def _count(self, what):
        return self.rows.execute(f"SELECT count(*) FROM {what}").fetchone()[0]

    def _migrate(self, way):
        to = "s3" if way == "to the bucket" else "fs"
        with open(self.appliance.log_path, "ab") as log:
            return subprocess.Popen(
                [self.appliance.binary, "storage", "migrate", "--to", to, "--data-dir", self.appliance.data_dir],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.appliance.environment,
            )  # fmt: skip

    def _clear(self):
        """The command does not wait for ever until all is removed from the bucket; the next round does."""
        left = self._count("leftover")
        while left:
            self._migrate("back").wait()
            before, left = left, self._count("leftover")
            if left >= before:
                sys.exit(f"nothing is removed from the bucket:\n{self.appliance.tail()}")


class Rclone:
    """rclone and the same files, under further names."""

    name = "rclone"

    def __init__(self, place, appliance, settings):
        self.source = os.path.join(place.path, "rclone")
        self.back = os.path.join(place.path, "rclone-back")
        os.makedirs(self.source)
        kept = os.path.join(appliance.data_dir, "originals")
        for name in appliance.files("originals"):
            os.link(os.path.join(kept, name), os.path.join(self.source, os.path.basename(name)))
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": place.path,
            "RCLONE_CONFIG_MOTO_TYPE": "s3",
            "RCLONE_CONFIG_MOTO_PROVIDER": "Other",
            "RCLONE_CONFIG_MOTO_ENDPOINT": settings["CLOAKROOM_STORAGE__ENDPOINT"],
            "RCLONE_CONFIG_MOTO_ACCESS_KEY_ID": ACCESS_KEY,
            "RCLONE_CONFIG_MOTO_SECRET_ACCESS_KEY": SECRET_KEY,
        }

    def go(self, way):
        there = f"moto:{BUCKET}/rclone"
        places = (self.source, there) if way == "to the bucket" else (there, self.back)
        moved_s, cpu_s = self._run("copy", *places)
        moved_s += bench.written_s()
        if way == "back" and len(os.listdir(self.back)) != len(os.listdir(self.source)):
            sys.exit("rclone did not bring everything back")
        return moved_s, cpu_s, 0, 0

    def forget(self):
        """Removes what it brought there and back."""
        self._run("delete", f"moto:{BUCKET}/rclone")
        for name in os.listdir(self.back):
            os.unlink(os.path.join(self.back, name))

    def _run(self, *words):
        # A large file goes in one request: asked about one that came in parts, moto refuses rclone's way of asking.
        like_us = ["--transfers", str(AT_ONCE), "--checkers", str(AT_ONCE), "--s3-no-check-bucket"]
        command = ["rclone", "--config", "", "--retries", "1", "--multi-thread-streams", "0", *like_us, *words]
        return bench.timed(command, env=self.environment)


def ended_children_s():
    """Processor seconds of all programs that were started from here and have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def moto(place):
    """An S3 server of other people with an empty bucket: the settings of a box that uses it."""
    subprocess.run(["bash", "-c", ". packaging/deps.sh && need_foreign_bucket"], cwd=bench.ROOT, check=True)
    packages = os.path.join(os.path.dirname(bench.PEERS), "foreign", "moto")
    held = os.path.join(place.path, "moto")
    os.makedirs(held)
    process = subprocess.Popen(
        ["/usr/bin/python3", os.path.join(bench.ROOT, "tests", "scripts", "moto_server.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        # Large objects are files there.
        env={**os.environ, "PYTHONPATH": packages, "TMPDIR": held},
    )
    place.peers.append(process)
    endpoint = process.stdout.readline().decode().strip()
    if not endpoint:
        sys.exit("moto does not start")
    return {
        "CLOAKROOM_STORAGE__ENDPOINT": endpoint,
        "CLOAKROOM_STORAGE__BUCKET": BUCKET,
        "CLOAKROOM_STORAGE__ACCESS_KEY": ACCESS_KEY,
        "CLOAKROOM_STORAGE__SECRET_KEY": SECRET_KEY,
    }


if __name__ == "__main__":
    main()
