#!/usr/bin/python3
"""How long until a guest sees the picture, how little the box takes at rest, and how soon it is up.

    first_thumbnail.py [BINARY] [--uploads 10] [--assets 100000] [--starts 5] [--seed seed_assets.sql] [--quick]

Four measurements of our own server, without a peer:

  - from the last byte of a photograph of 24 MP leaving a station until the last byte of its 400×300 is there, the
    way a client does it (upload, poll until OK, ask), with 1, 4 and 8 stations at once;
  - the same with 1 and 4 stations while a film is made;
  - memory at rest after that;
  - from exec until ready, empty and with `--assets` assets, which the SQL of `--seed` writes into the database
    while the server is stopped (`:count` in it is their number).
"""

import glob
import json
import os
import sqlite3
import subprocess
import sys
import threading
import time

import bench
from bench import picture

STATIONS = (1, 4, 8)


def main():
    seed = os.path.join(os.path.dirname(os.path.abspath(__file__)), "seed_assets.sql")
    options = bench.arguments(__doc__, uploads=10, assets=100_000, starts=5, seed=seed).parse_args()
    if options.quick:
        options.uploads, options.assets, options.starts = 2, 10_000, 2
    photo = picture.jpeg(6000, 4000)
    with bench.Workplace() as place:
        appliance = place.appliance(options.binary)
        one_station(appliance, photo, 1, [], [])
        rows = []
        for stations in STATIONS:
            bench.settle(appliance.process.pid)
            acknowledged_s, served_s = together(appliance, photo, stations, options.uploads)
            rows.append(
                [f"{stations} station" + "s" * (stations > 1), bench.median(acknowledged_s) * 1000]
                + [bench.percentile(served_s, share) * 1000 for share in (0.5, 0.95)]
            )
        beside = beside_films(appliance, photo, options)
        bench.settle(appliance.process.pid)
        time.sleep(0 if options.quick else 10)
        resident, proportional = bench.memory_mib(appliance.process.pid)
        appliance.stop()

        archive = place.appliance(options.binary, name="archive")
        empty_s = starts(archive, options.starts)
        archive.stop()
        fill(archive.data_dir, options.seed, options.assets)
        archive.start()
        full_s = starts(archive, options.starts)
        total = len(archive.get_json("/api/v1/assets?offset=0&limit=50")["assets"])
        archive.stop()
        if total != 50:
            sys.exit(f"the seeded archive lists {total} assets on a page of 50")

    print(f"24 MP, {len(photo) / 1e6:.1f} MB; from the last byte sent")
    bench.table(["", "ms until acknowledged (p50)", "ms until 400×300 is served: p50", "p95"], rows)
    bench.table(["while a film is made", "acknowledged, ms: alone", "with the film", "served, ms: alone", "with the film"], beside)
    print(f"at rest: {resident:.0f} MiB resident, {proportional:.0f} MiB with shared pages counted once")
    print(f"exec until ready: {empty_s * 1000:.0f} ms empty")
    print(f"exec until ready: {full_s * 1000:.0f} ms with {options.assets} assets (target ≤ 5 s)")
    bench.ratio("a full archive's start beside an empty one's", full_s, empty_s)


def together(appliance, photo, stations, uploads):
    """Every station sends so many photographs, one after the other: `(acknowledged, served)` in seconds."""
    acknowledged_s, served_s = [], []
    threads = [
        threading.Thread(target=one_station, args=(appliance, photo, uploads, acknowledged_s, served_s))
        for _ in range(stations)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(served_s) != stations * uploads:
        sys.exit("a station failed, as said above")
    return acknowledged_s, served_s


def beside_films(appliance, photo, options):
    """Each number of stations with and without a film in turns: rows of a table."""
    film = os.path.join(bench.PEERS, "fair.mp4")
    if not os.path.exists(film):
        bench.need_packages(ffmpeg="ffmpeg")
        source = ["-f", "lavfi", "-i", "testsrc2=s=1920x1080:r=30:d=300,noise=alls=12"]
        encode = ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-b:v", "6M", film]
        subprocess.run(["ffmpeg", "-v", "error", "-y", *source, *encode], check=True)
    rows = []
    job = Film(appliance, film)
    for stations in (1, 4):
        alone, beside = ([], []), ([], [])
        for _ in range(1 if options.quick else 3):
            for times, busy in ((alone, False), (beside, True)):
                if busy:
                    job.start()
                else:
                    bench.settle(appliance.process.pid)
                acknowledged_s, served_s = together(appliance, photo, stations, options.uploads)
                times[0].extend(acknowledged_s)
                times[1].extend(served_s)
                if busy:
                    job.stop()
        medians = [bench.median(times[at]) * 1000 for at in (0, 1) for times in (alone, beside)]
        rows.append([f"{stations} station" + "s" * (stations > 1), *medians])
    return rows


class Film:
    """A film of five minutes on the box, which is made again and again."""

    KEYS = ("360p-video", "720p-video", "1080p-video")

    def __init__(self, appliance, path):
        self.appliance = appliance
        with open(path, "rb") as file:
            self.asset = appliance.upload("fair.mp4", file.read(), "video/mp4", timeout_s=600)
        appliance.wait_until_ok(self.asset, 120)

    def start(self):
        """Returns once it is being made."""
        answer = self._post(f"/api/v1/assets/{self.asset}/process", {"keys": self.KEYS})
        self.job = json.loads(answer)["job_id"]
        while self.percent() == 0:
            time.sleep(0.05)

    def percent(self):
        job = self.appliance.get_json(f"/api/v1/jobs/{self.job}")
        if job["status"] not in ("QUEUED", "IN_PROGRESS"):
            sys.exit(f"the film is not being made any more, which makes this bench void: {job}")
        return max(step["percent_complete"] for step in job["job_steps"]["transcodes"].values())

    def stop(self):
        self.percent()
        self._post(f"/api/v1/jobs/{self.job}/cancel", {})
        bench.settle(self.appliance.process.pid)

    def _post(self, path, body):
        status, _, text = self.appliance.call("POST", path, body)
        if status >= 300:
            sys.exit(f"POST {path} was answered {status}: {text[:300]!r}")
        return text


def one_station(appliance, photo, uploads, acknowledged_s, served_s):
    connection = appliance.connect()
    for _ in range(uploads):
        name = f"{threading.get_ident()}-{time.monotonic_ns()}.jpg"
        body = picture.with_comment(photo, name)
        moment = []
        status, answer = bench.post_file(connection, name, body, "image/jpeg", lambda: moment.append(time.monotonic()))
        if status not in (200, 202):
            raise RuntimeError(f"an upload was answered {status}: {answer[:200]!r}")
        acknowledged_s.append(time.monotonic() - moment[0])
        asset = json.loads(answer)["assets"][0]["id"]
        while True:
            status, answer = ask(connection, f"/api/v1/assets/{asset}/data")
            if status != 200 or json.loads(answer)["status"] == "ERROR":
                raise RuntimeError(f"the data of {name} was answered {status}: {answer[:300]!r}")
            if json.loads(answer)["status"] == "OK":
                break
            time.sleep(0.005)
        status, answer = ask(connection, f"/api/v1/assets/{asset}/conversions?resize=400,300&quality=80")
        if status != 200 or picture.measure(answer)[1:] not in ((400, 267), (400, 266)):
            raise RuntimeError(f"the thumbnail of {name} was answered {status}: {answer[:200]!r}")
        served_s.append(time.monotonic() - moment[0])
    connection.close()


def ask(connection, path):
    connection.request("GET", path, headers={"X-FileSpin-Api-Key": bench.API_KEY})
    answer = connection.getresponse()
    return answer.status, answer.read()


def starts(appliance, count):
    """Median seconds from exec until ready, over clean restarts of a running server."""
    seconds = []
    for _ in range(count):
        appliance.stop()
        seconds.append(appliance.start())
    return bench.median(seconds)


def fill(data_dir, seed, count):
    """Runs the SQL of `seed` on the one database of a stopped server."""
    databases = glob.glob(os.path.join(data_dir, "*.db")) + glob.glob(os.path.join(data_dir, "*.sqlite*"))
    if len(databases) != 1:
        sys.exit(f"expected one database in {data_dir}, found {databases}")
    with open(seed, encoding="utf-8") as file:
        script = file.read()
    database = sqlite3.connect(databases[0], isolation_level=None)
    database.execute("BEGIN IMMEDIATE")
    # The search index is of a younger SQLite than Debian's; what is measured here does not search.
    kept = database.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger' AND name LIKE 'search_%'").fetchall()
    for name, _ in kept:
        database.execute(f"DROP TRIGGER {name}")
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            database.execute(statement, {"count": count})
            statement = ""
    for _, trigger in kept:
        database.execute(trigger)
    database.execute("COMMIT")
    database.close()


if __name__ == "__main__":
    main()
