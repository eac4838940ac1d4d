#!/usr/bin/python3
"""Every film of `inputs.py` to the real video worker in its sandbox: the good ones become what players need, the bad ones an answer.

    workers.py CLOAKROOM_VIDEO [--only NAME] [--all] [--kind good|bad] [--slowness 1] [--keep DIRECTORY]

A good film becomes its whole ladder and a stream, held to `check.py`; a poster that is not black and a storyboard; a
recording becomes a picture and a copy. A bad film ends in a sentence for its owner, or in a film with a warning, within
the limits of time and memory, and without a connection to anywhere or a look at a file of ours. Without `--all`, of the
good ones those that differ most. In service a worker that dies costs one errand; here it is a finding. Ends with 0, or
with the findings.
"""

import argparse
import collections
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time

import check
import inputs
import video_worker

# Those that differ most; the rest is for a night or a release.
FEW = {
    "ladder.mp4", "rot90.mp4", "odd.webm", "vfr.mp4", "tff.ts", "silent.mp4", "surround.mp4", "hdr10.mp4", "5994.mp4", "64x48.mp4",
    "one-frame.mp4", "portrait.mp4", "black-intro.mp4", "gps.mov", "clap.ts", "clap-late.mkv", "short-audio.mp4", "cover.mp3", "mono8k.wav",
}  # fmt: skip
# What a film of a second or two may cost; on a busy machine it is processor time that counts.
MOST_CPU_S = 40
MOST_CPU_BAD_S = 30
MOST_MIB = 1500
# What a stranger need not know.
TOO_MUCH = re.compile(r"/home/|/usr/|/work|/tmp/|\.rs:|0x[0-9a-f]{6}|Gst|gst_")


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("program")
    arguments.add_argument("--only", default="", help="films with this in their name")
    arguments.add_argument("--all", action="store_true")
    arguments.add_argument("--kind", choices=("good", "bad"))
    arguments.add_argument("--slowness", type=int, default=1, help="how much longer a build without optimisation may take")
    arguments.add_argument("--keep", default="", help="where films of findings go")
    options = arguments.parse_args()
    findings = []
    home = tempfile.mkdtemp(prefix="video-workers-")
    os.chmod(home, 0o755)
    try:
        with Elsewhere(home) as elsewhere:
            if options.kind != "bad":
                findings += all_good(options, home)
            if options.kind != "good":
                findings += all_bad(options, home, elsewhere)
            findings += elsewhere.touched()
    finally:
        shutil.rmtree(home)
    if findings:
        sys.exit(f"{len(findings)} findings:\n" + "\n".join(findings))


class Elsewhere:
    """What films point to: a port of the loopback where somebody listens, and a file. Neither is to be touched."""

    def __init__(self, home):
        self.listener = socket.socket()
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(64)
        self.listener.setblocking(False)
        self.port = self.listener.getsockname()[1]
        self.canary = os.path.join(home, "canary.mp4")
        self.twin = os.path.join(home, "twin")

    def __enter__(self):
        # A film, so that whoever follows the pointer has something to show for it.
        shutil.copy(inputs.good()[0].path, self.canary)
        inputs.write(self.twin, b"x")
        for path in (self.canary, self.twin):
            # Read before it was written last: the next reading is noted, even where few are.
            os.utime(path, (1_000_000_000, 1_000_000_001))
        return self

    def __exit__(self, *_):
        self.listener.close()

    def touched(self):
        found = []
        try:
            self.listener.accept()
            found.append(f"somebody followed an address to port {self.port}")
        except BlockingIOError:
            pass
        if os.stat(self.canary).st_atime != 1_000_000_000:
            found.append("somebody read the file that films point to")
        inputs.read(self.twin)
        if os.stat(self.twin).st_atime == 1_000_000_000:
            print("this file system notes no reading, so that one of a file that films point to would go unseen")
        return found


def all_good(options, home):
    findings = []
    costs = []
    for film in inputs.good():
        if options.only not in film.name or not (options.all or options.only or film.name in FEW):
            continue
        began = time.monotonic()
        wrong, answer = (heard if film.width is None else seen)(options, film, home)
        costs.append((answer.cpu_s, film.name))
        findings += [f"{film.name}: {what}" for what in wrong]
        said = "; ".join(wrong) or "good"
        print(f"{film.name}: {answer.cpu_s:.1f} s CPU, {answer.peak_mib:.0f} MiB, {time.monotonic() - began:.1f} s in all: {said}", flush=True)
        if wrong and options.keep:
            os.makedirs(options.keep, exist_ok=True)
            shutil.copy(film.path, options.keep)
    if costs:
        print(f"{len(costs)} good ones; dearest {max(costs)[1]} with {max(costs)[0]:.1f} s CPU", flush=True)
    return findings


def seen(options, film, home):
    """A film: its ladder, its stream, a poster, a storyboard."""
    folder = video_worker.emptied(os.path.join(home, "work"))
    # A stream begins at 360 lines.
    hls = video_worker.LADDER if min(film.width, film.height) >= 360 else ()
    answer = errand(options, video_worker.transcode(film.path, folder, hls=hls), film, folder)
    wrong = limits(answer, options, MOST_CPU_S)
    made = answer.made("Transcoded")
    if not made:
        return wrong + [f"no film: {describe(answer)}"], answer
    names = [each["name"] for each in made["renditions"]]
    skipped = [name for name, _ in made["skipped"]]
    if sorted(names + skipped) != sorted(f"{lines}p-video" for lines in video_worker.LADDER):
        wrong.append(f"made {names}, left out {skipped}")
    if made["warnings"]:
        wrong.append(f"warned without a reason: {made['warnings']}")
    sizes = {(each["width"], each["height"]) for each in made["renditions"]}
    if len(sizes) != len(names):
        wrong.append(f"two renditions of the same size: {made['renditions']}")
    for each in made["renditions"]:
        size = os.path.getsize(os.path.join(folder, each["name"] + ".mp4"))
        if size != each["size_bytes"]:
            wrong.append(f"{each['name']} is of {size} bytes, not {each['size_bytes']}")
    if bool(made["hls"]) != bool(hls):
        wrong.append("it has no stream" if hls else "it has a stream")
    if made["hls"]:
        listed = set(made["hls"]["files"])
        top = os.path.join(folder, "hls")
        there = {os.path.relpath(os.path.join(directory, name), top) for directory, _, files in os.walk(top) for name in files}
        if {name.removeprefix("hls/") for name in listed} != there or not made["hls"]["files"][-1].endswith("playlist.m3u8"):
            wrong.append(f"it says {sorted(listed)[:5]}…, and there are {sorted(there)[:5]}…")
    wanted = [f"{name}.mp4" for name in names] + (["hls"] if made["hls"] else [])
    wrong += check.check(folder, film, wanted=wanted)
    wrong += still(options, film, home)
    return wrong, answer


def still(options, film, home):
    folder = video_worker.emptied(os.path.join(home, "work"))
    answer = errand(options, video_worker.poster(film.path, folder), film, folder)
    wrong = limits(answer, options, MOST_CPU_S)
    made = answer.made("Poster")
    if not made:
        return wrong + [f"no poster: {describe(answer)}"]
    path = os.path.join(folder, made["file"])
    wrong += [f"poster: {what}" for what in picture(path, made, film)]
    if os.listdir(folder) != [made["file"]]:
        wrong.append(f"beside the poster there is {os.listdir(folder)}")
    folder = video_worker.emptied(os.path.join(home, "work"))
    answer = errand(options, video_worker.storyboard(film.path, folder), film, folder)
    frames = answer.made("Storyboard")
    if not frames:
        return wrong + [f"no storyboard: {describe(answer)}"]
    listed = {frame["file"] for frame in frames} | {"storyboard.vtt"}
    if set(os.listdir(folder)) != listed or "sprite.jpg" not in listed:
        wrong.append(f"storyboard: {sorted(os.listdir(folder))} instead of {sorted(listed)}")
    frames = [frame for frame in frames if frame["file"] != "sprite.jpg"]
    for frame in frames:
        wrong += [f"{frame['file']}: {what}" for what in picture(os.path.join(folder, frame["file"]), frame, film, light=False)]
    moments = [frame["at_seconds"] for frame in frames]
    if moments != sorted(moments) or moments[-1] > film.seconds + 0.1:
        wrong.append(f"storyboard: its moments are {moments}")
    return wrong


def picture(path, made, film, light=True):
    """A still is of the size it is said to be, of the film's shape, not black, and tells nothing."""
    wrong = []
    words = ["ffmpeg", "-nostdin", "-v", "error", "-i", path, "-vf", "scale=out_range=pc,format=gray", "-f", "rawvideo", "-"]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode or len(done.stdout) != made["width"] * made["height"]:
        return [f"it is not {made['width']}x{made['height']}: {done.stderr.decode()[:200]}"]
    shape, wanted = made["width"] / made["height"], film.width / film.height
    # A side of a few pixels cannot keep it.
    if abs(shape / wanted - 1) > 2 / min(made["width"], made["height"]):
        wrong.append(f"{made['width']}x{made['height']} is not of the shape {film.width}x{film.height}")
    mean = sum(done.stdout) / len(done.stdout)
    dark = film.name in ("2x2.mp4",) or film.clapped
    if light and not dark and mean < 30:
        wrong.append(f"it is black: {mean:.0f}")
    if light and not dark and dark_edges(done.stdout, made["width"]):
        wrong.append("it has black bars")
    with open(path, "rb") as file:
        if inputs.PLACE.encode() in file.read():
            wrong.append("it knows where it was shot")
    return wrong


def dark_edges(grey, wide):
    """Whether the first or last column or row of a test picture, which is coloured all over, is black."""
    high = len(grey) // wide
    edges = [grey[:wide], grey[-wide:], grey[::wide], grey[wide - 1 :: wide]]
    return high > 8 and any(max(edge) < 20 for edge in edges)


def heard(options, film, home):
    """A recording: a waveform, a copy; and no film."""
    folder = video_worker.emptied(os.path.join(home, "work"))
    answer = errand(options, video_worker.recording(film.path, folder), film, folder)
    wrong = limits(answer, options, MOST_CPU_S)
    made = answer.made("Recording")
    if not made:
        return wrong + [f"nothing was made of it: {describe(answer)}"], answer
    if abs(made["duration_seconds"] - film.seconds) > 0.2:
        wrong.append(f"it lasts {made['duration_seconds']} s, and its source {film.seconds}")
    copy = os.path.join(folder, "preview.m4a")
    report = check.Report("preview.m4a", wrong)
    movie = check.attempt(report, lambda _, path: check.read_movie(inputs.read(path)), copy)
    if movie:
        sound = movie.audio
        report.expect(sound is not None and sound.codec == "mp4a.40.2" and len(movie.tracks) == 1, "it is no AAC alone")
        report.expect(movie.order.index("moov") < movie.order.index("mdat"), "its index does not come first")
        report.expect(sound is None or abs(sound.end_s() - film.seconds) < 0.1, f"it lasts {sound.end_s() if sound else 0:.2f} s")
        report.expect(made["preview_bytes"] == len(movie.data), f"it is of {len(movie.data)} bytes, not {made['preview_bytes']}")
        check.decode(report, copy)
    words = ["ffmpeg", "-nostdin", "-v", "error", "-i", os.path.join(folder, "waveform.png"), "-vf", "alphaextract,format=gray", "-f", "rawvideo", "-"]
    drawn = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, check=False).stdout
    if not drawn:
        words[7] = "format=gray"
        drawn = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, check=False).stdout
    wave = made["waveform"]
    if len(drawn) != wave["width"] * wave["height"] or len(set(drawn)) < 2:
        wrong.append(f"the waveform is {len(drawn)} pixels of {len(set(drawn))} shades")
    folder = video_worker.emptied(os.path.join(home, "work"))
    film_of_it = errand(options, video_worker.transcode(film.path, folder, hls=()), film, folder)
    if not film_of_it.failed or "invalid" not in film_of_it.failed:
        wrong.append(f"it became a film: {describe(film_of_it)}")
    return wrong, answer


def errand(options, document, film, folder):
    return video_worker.run(options.program, document, [film.path], folder, wall_s=300 * options.slowness)


def limits(answer, options, most_cpu_s):
    wrong = []
    if answer.killed:
        wrong.append(f"killed: {answer.killed}")
    elif answer.code:
        wrong.append(f"the worker died: {answer.code}")
    if answer.cpu_s > most_cpu_s * options.slowness:
        wrong.append(f"it took {answer.cpu_s:.1f} s CPU")
    if answer.peak_mib > MOST_MIB:
        wrong.append(f"it took {answer.peak_mib:.0f} MiB")
    return wrong


def describe(answer):
    return f"{str(answer.last)[:500]} (exit {answer.code}{', ' + answer.killed if answer.killed else ''})"


def all_bad(options, home, elsewhere):
    findings = []
    outcomes = collections.Counter()
    costs = []
    for each in inputs.bad(elsewhere.port, elsewhere.canary):
        if options.only not in each.name:
            continue
        source = os.path.join(home, each.name)
        inputs.write(source, each.data)
        folder = video_worker.emptied(os.path.join(home, "work"))
        document = video_worker.transcode(source, folder, rungs=(360,), hls=(360,))
        if each.name.endswith((".mp3", ".wav")):
            document = video_worker.recording(source, folder)
        answer = video_worker.run(options.program, document, [source], folder, wall_s=120 * options.slowness)
        wrong, outcome = judge(each, answer, folder)
        if not (each.falls and answer.code < 0):
            wrong += limits(answer, options, MOST_CPU_BAD_S)
        outcomes[outcome] += 1
        costs.append((answer.cpu_s, each.name))
        findings += [f"{each.name}: {what}" for what in wrong]
        if wrong:
            print(f"FOUND {each.name}: {'; '.join(wrong)}", flush=True)
            if options.keep:
                os.makedirs(options.keep, exist_ok=True)
                shutil.copy(source, options.keep)
        elif options.only:
            print(f"{each.name}: {describe(answer)}")
        os.remove(source)
    said = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.most_common())
    if costs:
        print(f"{len(costs)} bad ones: {said}; dearest {max(costs)[1]} with {max(costs)[0]:.1f} s CPU", flush=True)
    return findings


def judge(each, answer, folder):
    """What is wrong with an answer to a bad one, and what it was."""
    if answer.killed or answer.code:
        return [], "died"
    if answer.failed:
        kind, said = next(iter(answer.failed.items()))
        if kind != "invalid":
            return [f"it is said to be our fault: {answer.failed}"], "our fault"
        wrong = [f"not a sentence for its owner: {said}"] if not said.endswith(".") or TOO_MUCH.search(said) else []
        if each.wanted == "warning":
            wrong.append(f"its good part is lost: {said}")
        return wrong, "refused"
    if not answer.last or "done" not in answer.last:
        return [f"it was not answered: {answer.last}"], "not answered"
    wrong = []
    if each.wanted == "error":
        wrong.append("it was taken for a film")
    for warning in answer.warnings:
        if not warning.endswith(".") or TOO_MUCH.search(warning):
            wrong.append(f"not a sentence for its owner: {warning}")
    if each.wanted == "warning" and not answer.warnings:
        wrong.append("nobody says that something is missing")
    if answer.made("Transcoded"):
        # Whatever came of it, it is a good film now.
        wrong += check.check(folder)
    return wrong, "made, with a warning" if answer.warnings else "made"


if __name__ == "__main__":
    main()
