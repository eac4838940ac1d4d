#!/usr/bin/python3
"""On-demand images: us beside sharp, vipsthumbnail and thumbor, on photographs, with cost and quality in one table.

    images.py [BINARY] [--rounds 3] [--count 3] [--mixed 60] [--only WORD] [--photos DIR] [--skip-server] [--quick]

First the cost of one picture. We are the real media worker in its sandbox, driven over its own protocol; sharp is one
warm Node process with one thread; vipsthumbnail a process for each picture, less (in the table, not in the goals) what
the same program needs for a picture of 16 pixels; thumbor a warm server. Processor time is the least of all rounds, taken in turns. Quality is
SSIMULACRA2 against a full decode and a floating-point Lanczos, 100 being the same; where a format has no scale of
quality in common, ours is set so that the scores are equal.

Then the whole server over HTTP: crops of 512 × 512 from sixty photographs for two clients, beside sharp and thumbor
behind HTTP; and one picture that is in the cache, beside nginx.
"""

import contextlib
import http.client
import json
import os
import random
import re
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
import urllib.parse

import bench
import delivery
from bench import picture

sys.path[:0] = [os.path.join(bench.ROOT, "tests", name) for name in ("hostile", "golden")]

# Imported from there for this bench.
import make as golden  # noqa: E402
from media_worker import MediaWorker  # noqa: E402
from media_worker import WorkerGone  # noqa: E402

PEERS = os.path.join(bench.ROOT, "benches", "peers")
SIDES = ("cloakroom", "sharp", "vips", "thumbor")
# sharp's own default for a format; JPEG is asked for at 85 of everybody.
SHARP_OPTIONS = {"jpeg": {"quality": 85}, "png": {}, "webp": {}, "avif": {}}
EXTENSION = {"jpeg": "jpg", "png": "png", "webp": "webp", "avif": "avif"}


class Task:
    """One thing to make, and what we want to be beside the others."""

    def __init__(self, name, photo, box, kind="jpeg", peak_mib=None, **goals):
        self.name = name
        self.photo = photo
        self.box = box
        self.kind = kind
        self.goals = goals
        self.peak_mib = peak_mib
        # Of ours; None leaves the choice to the score.
        self.quality = {"jpeg": 85, "png": 90}.get(kind)


TASKS = [
    Task("12 MP → 400×300", "cam12.jpg", (400, 300)),
    Task("12 MP → 800×600", "cam12.jpg", (800, 600)),
    Task("24 MP → 400×300", "cam24.jpg", (400, 300), sharp=0.5),
    Task("24 MP → 800×600", "cam24.jpg", (800, 600), sharp=0.55, vips=0.33, thumbor=0.5),
    Task("24 MP → 2048", "cam24.jpg", (2048, 1536), sharp=0.5),
    Task("45 MP → 800×600", "cam45.jpg", (800, 600), sharp=0.5, peak_mib=30),
    Task("24 MP progressive → 800×600", "prog24.jpg", (800, 600)),
    Task("24 MP 4:2:2 → 800×600", "cam24_422.jpg", (800, 600)),
    Task("phone, P3, turned → 800×600", "phone12.jpg", (800, 600)),
    Task("PNG with alpha, 4 MP → 800 PNG", "alpha4.png", (800, 600), "png", sharp=0.5),
    Task("24 MP → 800×600 WebP", "cam24.jpg", (800, 600), "webp", sharp=0.7),
    Task("24 MP → 800×600 AVIF", "cam24.jpg", (800, 600), "avif", sharp=0.25),
    Task("HEIC 12 MP → 800×600", "heic12.heic", (800, 600)),
    Task("base image → 800×600", "base2048.jpg", (800, 600), sharp=0.5),
    Task("base image → 400×300", "base2048.jpg", (400, 300), sharp=0.5),
]


def main():
    parser = bench.arguments(__doc__, rounds=3, count=3, seconds=8, mixed=60, only="", photos="")
    parser.add_argument("--skip-server", action="store_true", help="the cost of one picture alone")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.count, options.seconds, options.mixed = 1, 1, 2, 10
    need_programs()
    with bench.Workplace() as place:
        photos = photographs(options, place)
        tasks = [task for task in TASKS if options.only in task.name]
        one_picture(options, place, tasks, photos)
        if not options.skip_server:
            whole_server(options, place, photos)
            cached(options, place)


def need_programs():
    bench.need_packages(
        imagemagick="convert", libvips_tools="vipsthumbnail", nodejs="node", npm="npm", webp="dwebp", wrk="wrk",
        libavif_bin="avifdec", libjpeg_turbo_progs="jpegtran", libheif_examples="heif-enc", nginx_light="nginx",
    )  # fmt: skip
    if not os.path.isdir("/usr/share/backgrounds/mate"):
        bench.install_packages(["mate-backgrounds"])
    if not shutil.which("python3", path="/usr/bin") or subprocess.run(
        ["/usr/bin/python3", "-c", "import ensurepip"], capture_output=True, check=False
    ).returncode:
        bench.install_packages(["python3-venv"])
    bench.install("sharp", "node_modules/sharp", ["npm", "install", "--prefix", "HOME", "--no-audit", "--no-fund", "--loglevel=error", "sharp"])
    bench.install("thumbor", "bin/thumbor", ["/usr/bin/python3", "-m", "venv", "HOME"], ["HOME/bin/pip", "install", "-q", "thumbor"])
    # Its own default features would want a film decoder.
    bench.install("ssimulacra2", "bin/ssimulacra2_rs", ["cargo", "install", "-q", "--locked", "--no-default-features", "--root", "HOME", "ssimulacra2_rs"])


# Photographs


def photographs(options, place):
    """`{name: path}` of everything the tasks want; the made ones are kept from run to run."""
    folder = os.path.join(bench.PEERS, "photos")
    os.makedirs(folder, exist_ok=True)
    nature = "/usr/share/backgrounds/mate/nature"
    own = sorted(os.listdir(options.photos)) if options.photos else []
    own = [os.path.join(options.photos, name) for name in own if name.lower().endswith((".jpg", ".jpeg"))]
    pictures = own or [f"{nature}/{name}.jpg" for name in ("Garden", "LadyBird", "Wood", "YellowFlower")]
    if own:
        folder = os.path.join(place.path, "photos")
        os.makedirs(folder)
    four = [pictures[number % len(pictures)] for number in range(4)]
    # Scenes side by side, enlarged, with the grain of a sensor: what a camera's file weighs.
    mosaic = ["convert", "(", *four[:2], "-resize", "1920x1200!", "+append", ")"]
    mosaic += ["(", *four[2:], "-resize", "1920x1200!", "+append", ")", "-append"]
    grain = ["-attenuate", "0.3", "+noise", "Gaussian", "-strip"]
    baseline = ["-quality", "92", "-sampling-factor", "2x2"]

    def made(name, *commands):
        path = os.path.join(folder, name)
        if not os.path.exists(path):
            print(f"making {name}", file=sys.stderr)
            part = path + ".part" + os.path.splitext(name)[1]
            for command in commands:
                if callable(command):
                    command(part)
                else:
                    run([word.replace("OUT", part) for word in command])
            os.rename(part, path)
        return path

    paths = {}
    for name, size in (("cam12", "4000x3000"), ("cam24", "6000x4000"), ("cam45", "8192x5464")):
        paths[f"{name}.jpg"] = made(f"{name}.jpg", [*mosaic, "-resize", f"{size}!", *grain, *baseline, "OUT"])
    cam24 = paths["cam24.jpg"]
    paths["prog24.jpg"] = made("prog24.jpg", ["jpegtran", "-progressive", "-outfile", "OUT", cam24])
    paths["cam24_422.jpg"] = made(
        "cam24_422.jpg", [*mosaic, "-resize", "6000x4000!", *grain, "-quality", "92", "-sampling-factor", "2x1", "OUT"]
    )
    p3 = os.path.join(folder, "p3.icc")
    golden.write(p3, golden.profile("P3", ((0.5151, 0.2412, -0.0011), (0.2920, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841)), None))
    paths["phone12.jpg"] = made(
        "phone12.jpg",
        [*mosaic, "-resize", "4032x3024!", *grain, "-profile", p3, "-quality", "85", "-sampling-factor", "2x2", "OUT"],
        turned,
    )
    paths["alpha4.png"] = made(
        "alpha4.png",
        [*mosaic, "-resize", "2400x1700!", *grain, "(", "-size", "2400x1700", "radial-gradient:white-black", "-level", "10%,60%", ")"]
        + ["-alpha", "off", "-compose", "CopyOpacity", "-composite", "PNG32:OUT"],
    )
    paths["heic12.heic"] = made("heic12.heic", ["heif-enc", "-q", "75", paths["cam12.jpg"], "-o", "OUT"])
    paths["heic12.png"] = made("heic12.png", ["heif-convert", paths["heic12.heic"], "OUT"])
    # Sixty of mixed sizes and kinds for the server.
    dice = random.Random(1)
    for number in range(options.mixed):
        wide = dice.choice((1800, 2400, 3000, 4000, 4500, 6000))
        name = f"mixed{number:02}." + ("png" if number % 10 == 3 else "webp" if number % 10 == 7 else "jpg")
        if not name.endswith("jpg"):
            wide = min(wide, 3000)
        scene = pictures[number % len(pictures)]
        more = "[Q=92]" if name.endswith("jpg") else ""
        paths[name] = made(name, ["vipsthumbnail", scene, "--size", f"{wide}x{wide * 2 // 3}!", "-o", "OUT" + more])
    return paths


def turned(path):
    """Writes into a JPEG that the camera was held upright."""
    with open(path, "rb") as file:
        data = file.read()
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    with open(path, "wb") as out:
        out.write(data[:2] + struct.pack(">BBH", 0xFF, 0xE1, len(exif) + 2) + exif + data[2:])


def run(words):
    words = [os.path.join(os.path.dirname(word), word) if word == "OUT" else word for word in words]
    done = subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(words)}\n{done.stdout[-1000:]}{done.stderr[-1000:]}")
    return done.stdout


# The cost of one picture


class Cost:
    """What one picture cost."""

    def __init__(self, cpu_s, wall_s, peak_mib):
        self.cpu_s = cpu_s
        self.wall_s = wall_s
        self.peak_mib = peak_mib


class Refused(Exception):
    """A side that cannot do a task."""


def one_picture(options, place, tasks, photos):
    worker = os.path.join(os.path.dirname(os.path.abspath(options.binary)), "cloakroom-media")
    if not os.path.exists(worker):
        sys.exit(f"{worker} is not built yet: cargo build --release")
    base = os.path.join(place.path, "base2048.jpg")
    with MediaWorker(worker) as media:
        golden.write(base, media.base(photos["cam24.jpg"]).body)
    photos["base2048.jpg"] = base
    sharp = Sharp()
    thumbor, port = start_thumbor(place, photos)
    vips_start = vips_idle(place)
    makers = {
        "cloakroom": lambda task, out: ours(worker, task, photos[task.photo], out, options.count),
        "sharp": lambda task, out: sharp.make(task, photos[task.photo], out, options.count),
        "vips": lambda task, out: vips(task, photos[task.photo], out, options.count, vips_start),
        "thumbor": lambda task, out: ask_thumbor(thumbor, port, task, photos[task.photo], out, options.count),
    }
    rows, verdicts = [], []
    for task in tasks:
        reference = os.path.join(place.path, "reference.png")
        make_reference(task, photos, reference)
        out = {side: os.path.join(place.path, f"{side}.{EXTENSION[task.kind]}") for side in SIDES}
        costs, failed = {side: [] for side in SIDES}, {}
        scores = {}
        if task.quality is None:
            makers["sharp"](task, out["sharp"])
            scores["sharp"] = score(reference, out["sharp"], place.path)
            task.quality = equal_quality(worker, task, photos[task.photo], out["cloakroom"], reference, scores["sharp"], place.path)
        for number in range(options.rounds):
            for side in SIDES if number % 2 == 0 else reversed(SIDES):
                if side not in failed:
                    try:
                        costs[side].append(makers[side](task, out[side]))
                    except Refused as why:
                        failed[side] = str(why)
            print(f"{task.name}: round {number + 1}", file=sys.stderr)
        least = {}
        for side in SIDES:
            if side in failed:
                rows.append([f"{task.name}, {side}", None, None, None, None, None, None, failed[side][:60]])
                continue
            least[side] = Cost(*(min(getattr(cost, part) for cost in costs[side]) for part in ("cpu_s", "wall_s", "peak_mib")))
            scores[side] = scores.get(side) or score(reference, out[side], place.path)
            ratio = least["cloakroom"].cpu_s / least[side].cpu_s if side != "cloakroom" and "cloakroom" in least else None
            note = f"q{task.quality}" if side == "cloakroom" and task.kind in ("webp", "avif") else ""
            rows.append(
                [f"{task.name}, {side}", least[side].cpu_s * 1000, least[side].wall_s * 1000, least[side].peak_mib]
                + [os.path.getsize(out[side]) / 1000, scores[side], ratio, note]
            )
        verdicts += judge(task, least, scores, vips_start.cpu_s)
    sharp.stop()
    print(f"\nOne picture; the least of {options.rounds} rounds of {options.count}")
    bench.table(["", "ms CPU", "ms", "peak MiB", "kB", "ssimulacra2", "ours ÷ its CPU", ""], rows)
    print()
    for line in verdicts:
        print(line)


def judge(task, least, scores, vips_start_s):
    lines = []
    for side, goal in task.goals.items():
        if side in least and "cloakroom" in least:
            # Whoever uses vipsthumbnail pays for its start each time; the table has it without.
            theirs = least[side].cpu_s + (vips_start_s if side == "vips" else 0)
            found = least["cloakroom"].cpu_s / theirs
            mark = "ok  " if found <= goal else "MISS"
            whole = ", its start included" if side == "vips" else ""
            lines.append(f"{mark} {task.name}: {found:.2f}× the CPU of {side}{whole} (goal ≤ {goal}×)")
    if task.peak_mib and "cloakroom" in least:
        found = least["cloakroom"].peak_mib
        lines.append(f"{'ok  ' if found <= task.peak_mib else 'MISS'} {task.name}: {found:.0f} MiB at most (goal ≤ {task.peak_mib})")
    if scores.get("sharp") is not None and scores.get("cloakroom") is not None and scores["cloakroom"] < scores["sharp"] - 0.5:
        lines.append(f"MISS {task.name}: looks worse than sharp's, {scores['cloakroom']:.1f} beside {scores['sharp']:.1f}")
    return lines


def ours(worker, task, photo, out, count):
    # A fresh process, so that its peak is of this task; the first picture warms it.
    with MediaWorker(worker) as media:
        recipe = f"resize={task.box[0]},{task.box[1]}&quality={task.quality}"
        answers = [rendered(media, photo, recipe, task.kind) for _ in range(count + 1)][1:]
        peak, _ = media.memory_mib()
    with open(out, "wb") as file:
        file.write(answers[0].body)
    return Cost(min(answer.cpu_s for answer in answers), min(answer.wall_s for answer in answers), peak)


def rendered(media, photo, recipe, kind):
    try:
        answer = media.render(photo, recipe, kind)
    except WorkerGone as why:
        raise Refused(str(why)) from None
    if answer.refusal():
        raise Refused(str(answer.refusal()))
    return answer


def equal_quality(worker, task, photo, out, reference, wanted, folder):
    """Our quality whose score is nearest to this one, by halving."""
    low, high, best = 20, 98, None
    with MediaWorker(worker) as media:
        while low <= high:
            quality = (low + high) // 2
            with open(out, "wb") as file:
                file.write(rendered(media, photo, f"resize={task.box[0]},{task.box[1]}&quality={quality}", task.kind).body)
            found = score(reference, out, folder)
            if best is None or abs(found - wanted) < abs(best[0] - wanted):
                best = found, quality
            if found < wanted:
                low = quality + 1
            else:
                high = quality - 1
    return best[1]


class Sharp:
    """One warm Node process, and a fresh one for each task, so that its peak is of the task."""

    def __init__(self):
        self.task = self.process = None

    def make(self, task, photo, out, count):
        if task is not self.task:
            self.stop()
            environment = {**os.environ, "NODE_PATH": os.path.join(bench.PEERS, "sharp", "node_modules")}
            self.process = subprocess.Popen(
                ["node", os.path.join(PEERS, "sharp_worker.js")],
                env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            self.task = task
        order = {"path": photo, "out": out, "width": task.box[0], "height": task.box[1]}
        order |= {"format": task.kind, "options": SHARP_OPTIONS[task.kind]}
        answers = []
        for _ in range(count + 1):
            self.process.stdin.write(json.dumps(order) + "\n")
            self.process.stdin.flush()
            answer = json.loads(self.process.stdout.readline())
            if "error" in answer:
                raise Refused(answer["error"].replace("\n", " "))
            answers.append(answer)
        return Cost(*(min(answer[part] for answer in answers[1:]) for part in ("cpu_s", "wall_s", "peak_mib")))

    def stop(self):
        if self.process:
            self.process.stdin.close()
            self.process.wait()


def vips(task, photo, out, count, start=None):
    more = "[Q=85,strip]" if task.kind == "jpeg" else "[strip]"
    command = ["vipsthumbnail", photo, "--size", f"{task.box[0]}x{task.box[1]}>", "-o", out + more]
    if "phone" in photo:
        # Only where there is a profile: without one it would guess.
        command += ["--eprofile", "srgb"]
    costs = []
    for _ in range(count):
        began = time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env={**os.environ, "VIPS_CONCURRENCY": "1"})
        complaint = process.stderr.read().decode()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = status
        if status:
            raise Refused(complaint.strip().replace("\n", " "))
        costs.append(Cost(usage.ru_utime + usage.ru_stime, time.monotonic() - began, usage.ru_maxrss / 1024))
    least = Cost(*(min(getattr(cost, part) for cost in costs) for part in ("cpu_s", "wall_s", "peak_mib")))
    if start:
        least.cpu_s, least.wall_s = max(0.001, least.cpu_s - start.cpu_s), max(0.001, least.wall_s - start.wall_s)
    return least


def vips_idle(place):
    """What the program costs for next to nothing."""
    dot = os.path.join(place.path, "dot.jpg")
    golden.write(dot, picture.jpeg(16, 16))
    start = vips(Task("", dot, (16, 16)), dot, os.path.join(place.path, "dot-out.jpg"), 5)
    print(f"starting vipsthumbnail costs {start.cpu_s * 1000:.0f} ms CPU, which is taken off below", file=sys.stderr)
    return start


def start_thumbor(place, photos, processes=1):
    port = bench.free_port()
    home = os.path.join(place.path, f"thumbor-{port}")
    os.makedirs(home)
    for name, path in photos.items():
        os.symlink(path, os.path.join(home, name))
    with open(os.path.join(home, "thumbor.conf"), "w", encoding="ascii") as out:
        out.write(
            f"LOADER = 'thumbor.loaders.file_loader'\nFILE_LOADER_ROOT_PATH = '{home}'\n"
            "STORAGE = 'thumbor.storages.no_storage'\nRESPECT_ORIENTATION = True\nALLOW_UNSAFE_URL = True\n"
            "MAX_WIDTH = 10000\nMAX_HEIGHT = 10000\n"
        )
    program = os.path.join(bench.PEERS, "thumbor", "bin", "thumbor")
    command = [program, "-c", f"{home}/thumbor.conf", "-p", str(port), "-i", "127.0.0.1", "-l", "error", "--processes", str(processes)]
    process = place.start(command, port)
    return process, port


def ask_thumbor(process, port, task, photo, out, count):
    quality = ":quality(85)" if task.kind == "jpeg" else ""
    path = f"/unsafe/fit-in/{task.box[0]}x{task.box[1]}/filters:format({task.kind}){quality}/{task.photo}"
    costs = []
    # Forgets the highest memory so far, which was another task's.
    golden.write(f"/proc/{process.pid}/clear_refs", b"5")
    for _ in range(count + 1):
        before, began = schedstat(process.pid), time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise Refused(f"answered {answer.status}")
        with open(f"/proc/{process.pid}/status", encoding="ascii") as status:
            peak = int(re.search(r"VmHWM:\s+(\d+)", status.read())[1]) / 1024
        costs.append(Cost(schedstat(process.pid) - before, time.monotonic() - began, peak))
    with open(out, "wb") as file:
        file.write(body)
    return Cost(*(min(getattr(cost, part) for cost in costs[1:]) for part in ("cpu_s", "wall_s", "peak_mib")))


def schedstat(pid):
    """Processor seconds of all threads that a process has."""
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/schedstat", encoding="ascii") as file:
            total += int(file.read().split()[0])
    return total / 1e9


# Quality


def make_reference(task, photos, out):
    source = photos.get(task.photo.replace(".heic", ".png"), photos[task.photo])
    python = os.path.join(bench.PEERS, "thumbor", "bin", "python")
    run([python, os.path.join(PEERS, "reference.py"), source, out, *map(str, task.box)])


def score(reference, path, folder):
    """SSIMULACRA2, or `None` when the sizes differ. What is transparent is judged on grey."""
    shown = [os.path.join(folder, name) for name in ("score-a.png", "score-b.png")]
    decoded = os.path.join(folder, "score-decoded.png")
    if path.endswith(".avif"):
        run(["avifdec", path, decoded])
    elif path.endswith(".webp"):
        run(["dwebp", "-quiet", path, "-o", decoded])
    else:
        decoded = path
    for source, out in zip((reference, decoded), shown):
        run(["convert", source, "-background", "#808080", "-alpha", "remove", "-alpha", "off", "-strip", f"PNG24:{out}"])
    program = os.path.join(bench.PEERS, "ssimulacra2", "bin", "ssimulacra2_rs")
    done = subprocess.run([program, "image", *shown], capture_output=True, text=True, check=False)
    found = re.search(r"(-?[\d.]+)\s*$", done.stdout)
    return float(found[1]) if done.returncode == 0 and found else None


# The whole server


# Requests a second for the same crop on two processors, by the peers' own publications.
PUBLISHED = {"jpeg": "imgproxy 82", "webp": "imgproxy 24", "avif": "imagor 18"}


def whole_server(options, place, photos):
    """Two clients, each asking for the next crop as soon as it has one."""
    mixed = sorted(name for name in photos if name.startswith("mixed"))
    appliance = place.appliance(options.binary)
    assets = [delivery_upload(appliance, name, photos[name]) for name in mixed]
    bench.settle(appliance.process.pid)
    sharp_port = bench.free_port()
    environment = {**os.environ, "NODE_PATH": os.path.join(bench.PEERS, "sharp", "node_modules")}
    folder = os.path.join(place.path, "mixed")
    os.makedirs(folder)
    for name in mixed:
        os.symlink(photos[name], os.path.join(folder, name))
    sharp = place.start(
        ["node", os.path.join(PEERS, "sharp_worker.js"), "--serve", str(sharp_port), folder], sharp_port, env=environment
    )
    thumbor, thumbor_port = start_thumbor(place, {name: photos[name] for name in mixed}, processes=2)
    ours_port = urllib.parse.urlsplit(appliance.addresses[0]).port

    def our_path(kind, number, original):
        # A quality of its own makes a request that was never made; a rectangle of the original has no use for a base.
        crop = "crop=10,10,100000,100000&resize=512,512" if original else "crop=512,512"
        quality = 85 - number // len(assets)
        return f"/api/v1/assets/{assets[number % len(assets)]}/conversions?{crop}&quality={quality}&format={EXTENSION[kind]}"

    sides = {
        "cloakroom": (appliance.process.pid, ours_port, lambda kind, n: our_path(kind, n, False)),
        "cloakroom, from originals": (appliance.process.pid, ours_port, lambda kind, n: our_path(kind, n, True)),
        "sharp": (sharp.pid, sharp_port, lambda kind, n: f"/{mixed[n % len(mixed)]}?format={kind}"),
        "thumbor": (
            thumbor.pid, thumbor_port,
            lambda kind, n: f"/unsafe/512x512/smart/filters:format({kind})/{mixed[n % len(mixed)]}".replace("/smart", ""),
        ),
    }  # fmt: skip
    rows = []
    their_children = bench.descendants(thumbor.pid)
    for kind in ("jpeg", "webp", "avif"):
        for side, (pid, port, path) in sides.items():
            rate, cpu_ms, failures = load(options.seconds, pid, port, lambda n, p=path, k=kind: p(k, n))
            note = f"published: {PUBLISHED[kind]}" if side == "cloakroom" else ""
            rows.append([f"{kind}, {side}", rate, cpu_ms, f"{failures} failed" if failures else note])
    thumbor.terminate()
    thumbor.wait()
    # It leaves them behind.
    for pid in their_children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    print(f"\nCrops of 512 × 512 from {len(mixed)} photographs, never asked for before, two clients, two processors shared with them")
    bench.table(["", "requests/s", "ms CPU/request", ""], rows)


def delivery_upload(appliance, name, path):
    with open(path, "rb") as file:
        return delivery.upload(appliance, name, file.read())


def load(seconds, pid, port, path):
    """Requests a second, CPU ms of the server for each, and how many failed."""
    lock, taken, failed = threading.Lock(), [0], [0]
    end = time.monotonic() + seconds
    spent, began = bench.Spent(pid), time.monotonic()

    def client():
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        while time.monotonic() < end:
            with lock:
                number, taken[0] = taken[0], taken[0] + 1
            connection.request("GET", path(number), headers={"Accept": "*/*"})
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                failed[0] += 1
        connection.close()

    clients = [threading.Thread(target=client) for _ in range(2)]
    for each in clients:
        each.start()
    for each in clients:
        each.join()
    wall_s = time.monotonic() - began
    return taken[0] / wall_s, spent.all() / taken[0] * 1000, failed[0]


def cached(options, place):
    """A picture of 40 kB that was asked for before, beside nginx with the same file."""
    appliance = place.appliance(options.binary, name="cached")
    path, body = delivery.rendered(appliance)
    files = os.path.join(place.path, "files")
    os.makedirs(files)
    golden.write(os.path.join(files, "small.jpg"), body)
    os.chmod(files, 0o755)
    nginx, port = place.nginx(f"root {files};")
    bench.settle(appliance.process.pid)
    options.connections = 16
    sides = {
        "cloakroom": (appliance.process.pid, appliance.addresses[0] + path),
        "nginx": (nginx.pid, f"http://127.0.0.1:{port}/small.jpg"),
    }
    medians = delivery.measure(options, sides, None)
    print(f"\nA picture of {len(body)} bytes that is in the cache")
    bench.table(["", "requests/s", "µs CPU/request", "p50 ms", "p99 ms"], [[side, *values] for side, values in medians.items()])
    bench.ratio("CPU beside nginx", medians["cloakroom"][1], medians["nginx"][1], "≤ 2×")


if __name__ == "__main__":
    main()
