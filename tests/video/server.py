#!/usr/bin/python3
"""Films through the real server: uploaded, processed, downloaded again and held to what players need; bad ones, and kills.

    server.py CLOAKROOM [--only NAME] [--all] [--part good|bad|kills] [--rounds 1] [--slowness 1]

What can be had by HTTP alone is used: upload, `process`, the job, the conversions. A good film comes back as its ladder,
a stream and a poster, while pictures are served as if nothing was. A bad one ends in an error with a sentence, or in a
warning. Then workers and the server are killed with SIGKILL at random moments: the job ends all the same, complete or
with an error, and nothing is left over: no process, no file. Ends with 0, or with the findings.
"""

import argparse
import contextlib
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time

import check
import inputs
import video_worker
import workers

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [os.path.join(TESTS, name) for name in ("torture", "scripts")]

import picture  # noqa: E402
from appliance import API_KEY  # noqa: E402
from appliance import Appliance  # noqa: E402
from appliance import descendants  # noqa: E402
from appliance import post_file  # noqa: E402

# Those that differ most in what the server does with them; `workers.py` tries all of them on the worker.
FEW = ("ladder.mp4", "rot90.mp4", "silent.mp4", "64x48.mp4", "gps.mov", "black-intro.mp4", "cover.mp3", "sound-only.mp4")
FEW_BAD = {
    "empty.mp4", "picture.mp4", "page.mp4", "noise.mp4", "no-moov.mp4", "faststart-cut.mp4", "cut.mkv", "mdat-noise.mp4", "noise-in.ts",
    "locked.mp4", "stsz-of-4-billion.mp4", "trak-50000-deep.mp4", "compressed-moov-lies.mp4", "zipped-frames.mkv", "vp8-16383.webm",
    "frames.gif", "hls.mp4", "dref-http.mp4", "reference-file.mov", "linked.mkv", "years.mkv", "picture-link.mp3",
}  # fmt: skip
KEYS = ["360p-video", "480p-video", "720p-video", "1080p-video", "hls-video"]
# How much the server itself may grow; the workers have limits of their own.
MOST_GROWTH_MIB = 200
# How long a job of a few seconds of film may take.
PATIENCE_S = 240


class Broken(Exception):
    """Something after which nothing else about a film can be asked."""


class Refused(Broken):
    """An upload that the server would not take, in its words."""


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("binary")
    arguments.add_argument("--only", default="", help="films with this in their name")
    arguments.add_argument("--all", action="store_true")
    arguments.add_argument("--part", choices=("good", "bad", "kills"))
    arguments.add_argument("--rounds", type=int, default=1, help="kills of each kind")
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--slowness", type=int, default=1, help="how much longer a build without optimisation may take")
    options = arguments.parse_args()
    directory = tempfile.mkdtemp(prefix="video-server-")
    os.chmod(directory, 0o755)
    place = Place(options, directory)
    findings = []
    try:
        place.start()
        for name, part in (("good", good), ("bad", bad), ("kills", kills)):
            if options.part in (None, name):
                findings += part(place)
        findings += place.at_rest()
        place.appliance.stop()
    finally:
        place.appliance.end()
        shutil.rmtree(directory)
    if findings:
        sys.exit(f"{len(findings)} findings:\n" + "\n".join(findings))


class Place:
    """A server on a directory of its own, and what a client does with it."""

    def __init__(self, options, directory):
        self.options = options
        self.directory = directory
        # A file that cannot be kept because the disk is nearly full is no finding here.
        environment = {"CLOAKROOM_STORAGE__FREE_FLOOR_BYTES": "1048576"}
        self.appliance = Appliance(options.binary, os.path.join(directory, "data"), environment=environment)
        self.patience_s = PATIENCE_S * options.slowness
        self.worker = os.path.join(os.path.dirname(os.path.realpath(options.binary)), "cloakroom-video")
        self.pid = None

    def start(self):
        self.appliance.start()
        self.pid = self.appliance.process.pid

    # What is asked

    def ask(self, method, path, body=None, headers=None, key=True):
        """`(status, headers, body)`."""
        return self.appliance.call(method, path, body, headers, API_KEY if key else None, timeout_s=120)

    def upload(self, name, data):
        """An asset's id."""
        with contextlib.closing(self.appliance.connect(timeout_s=120)) as connection:
            status, body = post_file(connection, name, data)
        if status // 100 == 4:
            raise Refused(json.loads(body)["detail"])
        if status // 100 != 2:
            raise Broken(f"its upload was answered {status}: {body[:200]!r}")
        return json.loads(body)["assets"][0]["id"]

    def looked_at(self, asset):
        """The asset's data once it is no longer looked at."""
        return self.until(f"/api/v1/assets/{asset}/data", lambda data: data["status"] not in ("QUEUED", "NOT_READY"))

    def process(self, asset, keys):
        """The job, or `None` when none of the keys makes one."""
        status, _, body = self.ask("POST", f"/api/v1/assets/{asset}/process", {"keys": keys})
        if status // 100 != 2:
            raise Broken(f"process was answered {status}: {body[:200]!r}")
        return json.loads(body).get("job_id")

    def job(self, number):
        """The job once it has ended."""
        return self.until(f"/api/v1/jobs/{number}", lambda job: job["status"] in ("COMPLETED", "ERROR", "CANCELLED"))

    def until(self, path, wanted):
        began = time.monotonic()
        while True:
            status, _, body = self.ask("GET", path)
            if status != 200:
                raise Broken(f"{path} was answered {status}: {body[:200]!r}")
            found = json.loads(body)
            if wanted(found):
                return found
            if time.monotonic() - began > self.patience_s:
                raise Broken(f"{path} is still {json.dumps(found)[:300]} after {self.patience_s} s")
            time.sleep(0.1)

    # What is looked at from outside

    def video_workers(self):
        """Processes that are at work on a film."""
        return [pid for pid in descendants(self.appliance.process.pid) if command(pid) == "cloakroom-video"]

    def left_over(self):
        """Files that belong to nothing: everything but the database, originals, conversions and caches on record."""
        found = []
        top = self.appliance.data_dir
        for directory, folders, names in os.walk(top):
            inner = os.path.relpath(directory, top)
            if inner.split(os.sep)[0] in ("originals", "conversions", "odi", "settings", "secret"):
                folders.clear()
            elif inner != ".":
                found += [os.path.join(inner, name) for name in names if not name.startswith("cloakroom")]
        return found

    def at_rest(self):
        """What is not as it should be when nothing is going on."""
        began = time.monotonic()
        while (running := self.video_workers()) + self.left_over():
            if time.monotonic() - began > 20:
                return [f"at rest, there are workers {running} and files {self.left_over()[:10]}"]
            time.sleep(0.2)
        return []

    def orphans(self, before):
        """Video workers that belong to nobody."""
        return [pid for pid in everybody(self.worker) if pid not in before and pid not in descendants(self.appliance.process.pid)]


def command(pid):
    """The name of a process, or nothing when it is gone or only waits to be buried."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat:
            name, _, rest = stat.read().partition("(")[2].rpartition(")")
            return "" if rest.split()[0] == "Z" else name
    except (FileNotFoundError, ProcessLookupError):
        return ""


def everybody(program):
    """All processes of this very file: another box may be at work on the same machine."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/{pid}/exe").removesuffix(" (deleted)") == program and command(int(pid)):
                found.append(int(pid))
    return found


# Good ones


def good(place):
    findings = []
    for film in inputs.good():
        if place.options.only not in film.name or not (place.options.all or place.options.only or film.name in FEW):
            continue
        began = time.monotonic()
        try:
            wrong = one_good(place, film)
        except Broken as why:
            wrong = [str(why)]
        print(f"{film.name}: {'; '.join(wrong) or 'good'}, {time.monotonic() - began:.1f} s", flush=True)
        findings += [f"{film.name}: {what}" for what in wrong]
    return findings


def one_good(place, film):
    asset = place.upload(film.name, inputs.read(film.path))
    data = place.looked_at(asset)
    if data["status"] != "OK":
        return [f"it is {data['status']}: {data.get('errors')}"]
    wrong = []
    facts = data["metadata"]
    if film.width and (facts.get("width"), facts.get("height")) != (film.width, film.height):
        wrong.append(f"its data says {facts.get('width')}x{facts.get('height')}, and it is {film.width}x{film.height}")
    # How long a recording is may be known only once it was heard.
    if film.width and abs((facts.get("duration") or 0) - film.seconds) > 0.5:
        wrong.append(f"its data says {facts.get('duration')} s, and it lasts {film.seconds}")
    job = place.process(asset, KEYS)
    if film.width is None:
        if job is not None and place.job(job)["status"] == "COMPLETED" and "360p-video" in place.appliance.data(asset)["conversions"]:
            wrong.append("a recording became a film")
        return wrong + waveform(place, asset, film)
    if job is None:
        return wrong + ["nobody wants to process it"]
    wrong += pictures_meanwhile(place, job)
    ended = place.job(job)
    if ended["status"] != "COMPLETED":
        return wrong + [f"its job ended as {ended['status']}: {ended.get('message')}"]
    for name, step in ended["job_steps"]["transcodes"].items():
        if step["status"] != "COMPLETED" or step["percent_complete"] != 100:
            wrong.append(f"step {name} is {step}")
    folder = video_worker.emptied(os.path.join(place.directory, "downloads"))
    wrong += fetch_all(place, asset, folder)
    wrong += check.check(folder, film)
    wrong += poster(place, asset, film)
    return wrong


def pictures_meanwhile(place, job):
    """Pictures are taken and served while a film is being made; how soon is only told."""
    slowest = 0
    for number in range(3):
        if json.loads(place.ask("GET", f"/api/v1/jobs/{job}")[2])["status"] not in ("QUEUED", "IN_PROGRESS"):
            break
        began = time.monotonic()
        asset = place.upload(f"meanwhile-{job}-{number}.jpg", picture.jpeg(400, 300) + bytes(f"{job} {number}", "ascii"))
        # What is still being looked at is asked for again, as the refusal says.
        while (status := place.ask("GET", f"/api/v1/assets/{asset}/conversions?resize=100,100")[0]) == 400:
            if time.monotonic() - began > place.patience_s:
                break
        slowest = max(slowest, time.monotonic() - began)
        if status != 200:
            return [f"a picture was answered {status} meanwhile"]
    print(f"a picture took {slowest:.1f} s at most meanwhile", flush=True)
    return []


def fetch_all(place, asset, folder):
    """Everything that was made of an asset, as files."""
    wrong = []
    made = place.appliance.data(asset)["conversions"]
    for key, said in made.items():
        if key.endswith("-video") and key != "hls-video":
            wrong += fetch_film(place, asset, key, said, folder)
    if "hls-video" in made:
        base = f"/api/v1/assets/{asset}/transcodes/"
        os.makedirs(os.path.join(folder, "hls"))
        fetch_playlist(place, base, "playlist.m3u8", os.path.join(folder, "hls"))
    return wrong


def fetch_film(place, asset, key, said, folder):
    path = f"/api/v1/assets/{asset}/transcodes/{key}.mp4"
    status, headers, body = place.ask("GET", path)
    if status != 200:
        return [f"{key} was answered {status}: {body[:100]!r}"]
    wrong = []
    if headers["content-type"] != "video/mp4" or len(body) != said["size"]:
        wrong.append(f"{key} is {headers['content-type']} of {len(body)} bytes, and its data says {said}")
    status, headers, part = place.ask("GET", path, headers={"Range": "bytes=100-199"})
    if status != 206 or part != body[100:200]:
        wrong.append(f"a range of {key} was answered {status} with {len(part)} bytes")
    if place.ask("GET", path, key=False)[0] not in (401, 403):
        wrong.append(f"{key} is for everybody")
    inputs.write(os.path.join(folder, f"{key}.mp4"), body)
    return wrong


def fetch_playlist(place, base, name, folder):
    """A playlist and what it leads to; what the server appends to addresses is taken off again."""
    status, headers, body = place.ask("GET", base + name)
    if status != 200 or "mpegurl" not in headers["content-type"]:
        raise Broken(f"{name} was answered {status} as {headers.get('content-type')}: {body[:100]!r}")
    text = body.decode()
    inner = os.path.dirname(name)
    os.makedirs(os.path.join(folder, inner), exist_ok=True)
    for uri in re.findall(r'^([^#\s].*)$|URI="([^"]*)"', text, re.MULTILINE):
        uri = next(filter(None, uri))
        bare = uri.split("?")[0]
        text = text.replace(uri, bare)
        there = os.path.normpath(os.path.join(inner, bare))
        if there.startswith((".", "/")) or ":" in there:
            raise Broken(f"{name} leads to {uri}")
        query = uri[len(bare) :]
        if bare.endswith(".m3u8"):
            fetch_playlist(place, base, there, folder)
            continue
        status, _, data = place.ask("GET", base + there + query)
        if status != 200:
            raise Broken(f"{there} was answered {status}: {data[:100]!r}")
        inputs.write(os.path.join(folder, there), data)
    inputs.write(os.path.join(folder, name), text.encode())


def waveform(place, asset, film):
    """A recording's picture and its copy for browsers, which it gets by itself."""
    data = place.until(f"/api/v1/assets/{asset}/data", lambda data: "audio_preview" in data["conversions"] or data.get("errors"))
    if abs(data["metadata"].get("duration", 0) - film.seconds) > 0.5:
        return [f"its data says {data['metadata']}, and it lasts {film.seconds}"]
    status, headers, body = place.ask("GET", f"/api/v1/assets/{asset}/conversions?resize=300,300&format=png", key=False)
    if status != 200 or headers["content-type"] != "image/png" or picture.measure(body)[1] != 300:
        return [f"its waveform was answered {status}: {body[:150]!r}"]
    status, headers, body = place.ask("GET", f"/api/v1/assets/{asset}/transcodes/audio_preview.m4a")
    if status != 200 or headers["content-type"] != "audio/mp4":
        return [f"its copy was answered {status}: {body[:150]!r}"]
    return []


def poster(place, asset, film):
    status, headers, body = place.ask("GET", f"/api/v1/assets/{asset}/conversions?resize=800,600&format=jpg", key=False)
    if status != 200 or headers["content-type"] != "image/jpeg":
        return [f"its poster was answered {status}: {body[:150]!r}"]
    path = os.path.join(place.directory, "poster.jpg")
    inputs.write(path, body)
    _, wide, high = picture.measure(body)
    return [f"poster: {what}" for what in workers.picture(path, {"width": wide, "height": high}, film)]


# Bad ones


def bad(place):
    findings = []
    before = everybody(place.worker)
    growth_from = video_worker.resident_mib(place.pid)
    asked = 0
    with workers.Elsewhere(place.directory) as elsewhere:
        for each in inputs.bad(elsewhere.port, elsewhere.canary):
            options = place.options
            if options.only not in each.name or not (options.all or options.only or each.name in FEW_BAD):
                continue
            asked += 1
            try:
                wrong = one_bad(place, each)
            except Broken as why:
                wrong = [str(why)]
            except OSError as why:
                wrong = [f"no answer: {why!r}"]
            findings += [f"{each.name}: {what}" for what in wrong]
            if wrong:
                print(f"FOUND {each.name}: {'; '.join(wrong)}", flush=True)
            if place.appliance.process.poll() is not None:
                return findings + ["the server is gone"]
        findings += elsewhere.touched()
    findings += place.at_rest()
    growth = video_worker.resident_mib(place.pid) - growth_from
    if growth > MOST_GROWTH_MIB:
        findings.append(f"the server has grown by {growth:.0f} MiB")
    if place.orphans(before):
        findings.append(f"workers without a server: {place.orphans(before)}")
    print(f"{asked} bad ones; the server has grown by {growth:.0f} MiB", flush=True)
    return findings


def one_bad(place, each):
    try:
        asset = place.upload(each.name, each.data)
    except Refused as why:
        return sentences({"its upload": str(why)})
    data = place.looked_at(asset)
    wrong = sentences(data.get("errors") or {})
    if data["status"] == "ERROR":
        return wrong if data.get("errors") else wrong + ["an error without a sentence"]
    job = place.process(asset, ["360p-video", "hls-video"])
    if job is None:
        # Taken for a picture or for a document, which it may be.
        return wrong
    ended = place.job(job)
    data = place.appliance.data(asset)
    wrong += sentences(data.get("errors") or {})
    if ended["status"] == "ERROR":
        said = ended.get("message") or json.dumps(ended["job_steps"])
        wrong += sentences({"message": said}) if said else ["its job failed without a word"]
        if each.wanted == "warning":
            wrong.append(f"its good part is lost: {said}")
        return wrong
    made = data["conversions"]
    if each.wanted == "error" and "360p-video" in made:
        wrong.append("it was taken for a film")
    if each.wanted == "warning" and not (data.get("errors") or {}).get("warning"):
        wrong.append("nobody says that something is missing")
    if "360p-video" in made:
        folder = video_worker.emptied(os.path.join(place.directory, "downloads"))
        wrong += fetch_all(place, asset, folder)
        wrong += check.check(folder)
    return wrong


def sentences(errors):
    return [f"{kind} is not a sentence for its owner: {said}" for kind, said in errors.items() if not said or workers.TOO_MUCH.search(str(said))]


# Kills


def kills(place):
    """A film that is long enough to have a middle to be killed in."""
    findings = []
    film = long_film(place)
    dice = random.Random(place.options.seed)
    before = everybody(place.worker)
    for number in range(place.options.rounds):
        for name, kill in (("worker", kill_worker), ("server", kill_server), ("cancel", cancel)):
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(os.path.join(place.directory, "downloads"))
            try:
                # Told apart by their last bytes, so that none is known already.
                asset = place.upload(f"{name}-{number}.mp4", film + inputs.box("free", f"{name} {number}".encode()))
                place.looked_at(asset)
                job = place.process(asset, ["360p-video", "480p-video", "hls-video"])
                at_work(place, job)
                time.sleep(dice.uniform(0, 4))
                wrong = kill(place, asset, job)
            except Broken as why:
                wrong = [str(why)]
            wrong += place.at_rest()
            if place.orphans(before):
                wrong.append(f"workers without a server: {place.orphans(before)}")
            print(f"kill {number}, {name}: {'; '.join(wrong) or 'good'}", flush=True)
            findings += [f"{name} {number}: {what}" for what in wrong]
    return findings


def long_film(place):
    path = os.path.join(place.directory, "long.mp4")
    seconds = max(10, 120 // place.options.slowness)
    inputs.ffmpeg(*inputs.picture("854x480", 25, seconds), *inputs.sound(seconds), *inputs.x264(), *inputs.AAC, "-y", path)
    return inputs.read(path)


def at_work(place, job):
    """Waits for a worker that has a frame behind it."""

    def begun(found):
        return found["status"] not in ("QUEUED",) and place.video_workers()

    place.until(f"/api/v1/jobs/{job}", begun)


def kill_worker(place, asset, job):
    for pid in place.video_workers():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return ended_well(place, asset, job, may_fail=True)


def kill_server(place, asset, job):
    # Its workers must go with it; that is looked at in there.
    place.appliance.kill()
    place.start()
    return ended_well(place, asset, job, may_fail=False)


def cancel(place, asset, job):
    status, _, body = place.ask("POST", f"/api/v1/jobs/{job}/cancel", {})
    if status // 100 != 2:
        return [f"cancel was answered {status}: {body[:200]!r}"]
    began = time.monotonic()
    while place.video_workers():
        if time.monotonic() - began > 10:
            return ["its worker goes on"]
        time.sleep(0.05)
    ended = place.job(job)
    if ended["status"] == "COMPLETED":
        return ["it was completed all the same"]
    left = [key for key in place.appliance.data(asset)["conversions"] if key.endswith("-video")]
    return [f"there is {left}, though it was cancelled"] if left else []


def ended_well(place, asset, job, may_fail):
    """Complete, or an error; and whatever is there is whole."""
    ended = place.job(job)
    if ended["status"] != "COMPLETED":
        return [] if may_fail and ended["status"] == "ERROR" else [f"its job ended as {ended['status']}: {ended}"]
    folder = video_worker.emptied(os.path.join(place.directory, "downloads"))
    wrong = fetch_all(place, asset, folder)
    return wrong + check.check(folder, wanted=["360p-video.mp4", "480p-video.mp4", "hls"])


if __name__ == "__main__":
    main()
