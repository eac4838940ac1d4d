#!/usr/bin/python3
"""Holds films that were made, and their stream, to what players need.

    check.py FOLDER [NAME]     the films (`*.mp4`) and the stream (`hls/playlist.m3u8`) in it; NAME is one of `inputs.py`
    check.py --self-test       films of ffmpeg's pass, and fail as soon as one thing is wrong with them

MP4 boxes and playlists are read here, by the letter and from their bytes, so that nothing is forgiven; then ffmpeg
decodes everything, and GStreamer plays it. One line for each thing that is wrong; ends with 1 if there is one.
Standard library only.
"""

import argparse
import dataclasses
import functools
import http.server
import math
import os
import re
import struct
import subprocess
import sys
import tempfile
import threading

import inputs
from mp4 import Track
from mp4 import Wrong
from mp4 import read_movie
from mp4 import read_segment

# Between two key frames, and a little for the clock of a container.
MOST_BETWEEN_KEYS_S = 2.0
LADDER = re.compile(r"^(\d+)p-(wm-)?video\.mp4$")
# Where a film was shot, as cameras write it.
PLACES = (inputs.PLACE.encode(), b"\xa9xyz", b"ISO6709", b"loci", b"GPSL")
# Alike to this degree, two small pictures differ by an encoder; another matrix or moment gives 25 at most.
LIKE_DB = 28
# What reading what is not there comes to.
UNREADABLE = (Wrong, struct.error, IndexError, KeyError, ValueError, StopIteration)
UPRIGHT = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)


def check(folder, film=None, wanted=None, hasty=False):
    """What is wrong with the films in here; `wanted` names what must be there, and nothing else.

    With `hasty`, nothing is decoded once something is found to be wrong.
    """
    found = []
    names = sorted(name for name in os.listdir(folder) if name.endswith(".mp4"))
    if not names and not os.path.isdir(os.path.join(folder, "hls")):
        return ["there is nothing here"]
    there = set(os.listdir(folder))
    unlike = there ^ set(wanted) if wanted is not None else there - set(names) - {"hls"}
    if unlike:
        found.append(f"there are, or are not, {', '.join(sorted(unlike))}")
    movies = {name: movie for name in names if (movie := attempt(Report(name, found), read_one, folder, name, film))}
    streams = None
    if "hls" in there:
        streams = attempt(Report("hls", found), read_streams, os.path.join(folder, "hls"), film)
    ladder = {name: movie.video for name, movie in movies.items() if LADDER.match(name)}
    ladder |= {f"hls/{variant.uri}": variant.track for variant in streams.variants} if streams else {}
    check_together(found, ladder)
    if hasty and found:
        return found
    for name, movie in movies.items():
        attempt(Report(name, found), see_one, os.path.join(folder, name), movie, film if LADDER.match(name) else None)
    if streams:
        attempt(Report("hls", found), see_streams, os.path.join(folder, "hls"), streams, film)
    return found


def attempt(report, work, *arguments):
    """What the work gives, or `None` where something could not be read any further."""
    try:
        return work(report, *arguments)
    except UNREADABLE as why:
        report.wrong(f"{why} ({type(why).__name__})")
        return None


def read_one(report, folder, name, film):
    movie = read_movie(inputs.read(os.path.join(folder, name)))
    check_file(report, os.path.join(folder, name), movie)
    check_tracks(report, movie, film if LADDER.match(name) else None)
    return movie


class Report:
    """Collects what is wrong with one thing."""

    def __init__(self, name, found):
        self.name = name
        self.found = found

    def wrong(self, what):
        self.found.append(f"{self.name}: {what}")

    def expect(self, condition, what):
        if not condition:
            self.wrong(what)
        return condition

    def of(self, name):
        return Report(f"{self.name}/{name}", self.found)


# One film


def check_file(report, path, movie):
    order = movie.order
    report.expect(order[:1] == ["ftyp"], f"it begins with {order[:1]}")
    report.expect("mdat" in order and order.index("moov") < order.index("mdat"), f"its index does not come first: {' '.join(order)}")
    report.expect("moof" not in order, "it is in fragments")
    for place in PLACES:
        report.expect(place not in movie.data[: movie.data.index(b"mdat")], f"it knows where it was shot: {place!r}")
    report.expect(inputs.PLACE.encode() not in movie.data and b"Secret title" not in movie.data, "it carries its source's words")
    kinds = sorted(track.kind for track in movie.tracks)
    report.expect(kinds in (["vide"], ["soun", "vide"]), f"its tracks are {kinds}")
    report.expect(not os.path.exists(path + ".tmp"), "something was left beside it")


def check_tracks(report, movie, film):
    video, audio = movie.video, movie.audio
    if video is None or not video.samples or audio and not audio.samples:
        raise Wrong("it has no picture, or no sound in its sound")
    check_video_track(report, video)
    frame_s = 1 / video.fps()
    report.expect(abs(video.start_s()) < frame_s, f"its picture begins at {video.start_s():.3f} s")
    keys = video.keys_s()
    report.expect(keys and abs(keys[0] - video.start_s()) < 0.001, "its first frame is no key frame")
    gaps = [after - before for before, after in zip(keys, keys[1:] + [video.end_s()])]
    report.expect(max(gaps, default=0) <= MOST_BETWEEN_KEYS_S + frame_s / 2, f"{max(gaps, default=0):.3f} s between key frames")
    if audio:
        report.expect(audio.entry == "mp4a" and audio.codec == "mp4a.40.2", f"its sound is {audio.entry} {audio.codec}")
        report.expect(audio.scale in (44100, 48000), f"its sound is sampled {audio.scale} times a second")
        close_enough(report, video, audio, film)
    if film:
        check_expected(report, video, audio, film)


def check_video_track(report, video):
    report.expect(video.entry == "avc1" and video.codec, f"its picture is {video.entry}")
    report.expect(video.matrix == UPRIGHT, "it is to be turned or mirrored by the player")
    report.expect(video.pixel[0] == video.pixel[1], f"its pixels are not square: {video.pixel}")
    report.expect(video.wide % 2 == 0 and video.high % 2 == 0, f"its size is odd: {video.wide}x{video.high}")
    shown = tuple(round(side) for side in video.shown_size)
    report.expect(shown == (video.wide, video.high), f"it is {video.wide}x{video.high} and to be shown as {shown}")
    report.expect(not video.colour or video.colour == (1, 1, 1), f"its container says colours {video.colour}")
    lengths = {sample.length for sample in video.samples[:-1]}
    report.expect(len(lengths) <= 1 or max(lengths) - min(lengths) <= max(1, video.scale // 10_000), f"its frames last {sorted(lengths)} of {video.scale}")
    shown = sorted(sample.shown for sample in video.samples)
    steps = {after - before for before, after in zip(shown, shown[1:])}
    report.expect(not steps or min(steps) > 0 and max(steps) - min(steps) <= max(1, video.scale // 10_000), f"its frames are shown {sorted(steps)[:5]} of {video.scale} apart")


def close_enough(report, video, audio, film):
    """Sound and picture end together, or as the source has it."""
    most = max(1 / video.fps(), 1024 / audio.scale) + 0.002
    over = audio.end_s() - video.end_s()
    report.expect(over <= most, f"its sound ends {over:.3f} s after its picture")
    sound = film.sound_seconds if film and film.sound_seconds else video.end_s()
    under = min(sound, video.end_s()) - audio.end_s()
    report.expect(under <= most, f"its sound ends {under:.3f} s too early")


def check_expected(report, video, audio, film):
    """What is known about the source."""
    report.expect(film.width is not None, "a recording became a film")
    if film.width is None:
        return
    # Encoders want sixteen pixels at least.
    most = tuple(max(side + 1, 16) for side in (film.width, film.height))
    report.expect(video.wide <= most[0] and video.high <= most[1], f"{video.wide}x{video.high} is larger than its source")
    # A side may be rounded to an even number, and to the nearest.
    shape, wanted = video.wide / video.high, film.width / film.height
    slack = 2 / min(video.wide, video.high)
    report.expect(abs(shape / wanted - 1) <= slack, f"{video.wide}x{video.high} is not of the shape {film.width}x{film.height}")
    if film.fps:
        report.expect(abs(video.fps() - film.fps) < 0.01, f"{video.fps():.3f} frames a second instead of {film.fps:.3f}")
    report.expect(video.fps() <= 60.01, f"{video.fps():.3f} frames a second")
    length = video.end_s() - video.start_s()
    report.expect(abs(length - film.seconds) <= max(2 / video.fps(), 0.1), f"it lasts {length:.3f} s, and its source {film.seconds} s")
    report.expect((audio is not None) == film.audio, "it has no sound" if film.audio else "it has a sound that its source has not")


def see_one(report, path, movie, film):
    """What ffprobe and decoders say, and what is seen."""
    video, audio = movie.video, movie.audio
    fields = probe(report, path)
    seen = next((stream for stream in fields if stream.get("codec_type") == "video"), {})
    expect_colours(report, seen)
    report.expect(not seen.get("side_data"), f"it still carries {seen.get('side_data')}")
    frames = decode(report, path)
    report.expect(frames is None or frames == len(video.samples), f"{frames} of {len(video.samples)} frames could be decoded")
    play(report, path, bool(audio))
    if film:
        check_pictures(report, path, movie, film)


def expect_colours(report, seen):
    wanted = {"pix_fmt": "yuv420p", "color_space": "bt709", "color_transfer": "bt709", "color_primaries": "bt709"}
    for field, value in wanted.items():
        report.expect(seen.get(field) == value, f"{field} is {seen.get(field)}")
    report.expect(seen.get("color_range") in ("tv", "unknown"), f"color_range is {seen.get('color_range')}")
    report.expect(seen.get("sample_aspect_ratio") in ("1:1", "N/A"), f"sample_aspect_ratio is {seen.get('sample_aspect_ratio')}")
    report.expect(seen.get("profile") in ("Constrained Baseline", "Baseline", "Main", "High"), f"profile is {seen.get('profile')}")


def probe(report, path):
    words = ["ffprobe", "-v", "error", "-show_streams", "-of", "default", path]
    done = run(words)
    if done.returncode or done.stderr.strip():
        report.wrong(f"ffprobe says: {done.stderr.strip()[:300]}")
    streams = []
    for line in done.stdout.splitlines():
        if line == "[STREAM]":
            streams.append({})
        elif line.startswith("[SIDE_DATA]") and streams:
            streams[-1]["side_data"] = True
        elif "=" in line and streams:
            name, _, value = line.partition("=")
            if name == "side_data_type":
                streams[-1]["side_data"] = value
            else:
                streams[-1].setdefault(name, value)
    return streams


def decode(report, path):
    """How many frames ffmpeg gets out of it, without a word of complaint."""
    words = ["ffmpeg", "-nostdin", "-hide_banner", "-v", "error", "-xerror", "-err_detect", "explode", "-i", path]
    done = run([*words, "-map", "0", "-fps_mode", "passthrough", "-f", "null", "-progress", "-", "-"])
    if done.returncode or done.stderr.strip():
        report.wrong(f"ffmpeg says: {done.stderr.strip()[:300]}")
        return None
    frames = re.findall(r"^frame=(\d+)", done.stdout, re.MULTILINE)
    return int(frames[-1]) if frames else None


def play(report, path, audio):
    """GStreamer reads it to its end."""
    sink = "queue ! fakesink sync=false"
    words = f"gst-launch-1.0 -q filesrc location={path} ! decodebin name=d d. ! {sink}" + (f" d. ! {sink}" if audio else "")
    expect_quiet(report, words.split(), "GStreamer")


def expect_quiet(report, words, who):
    done = run(words, environment={"GST_DEBUG_NO_COLOR": "1", "GST_DEBUG": "1"})
    said = done.stdout + done.stderr
    report.expect(done.returncode == 0 and "ERROR" not in said and "CRITICAL" not in said, f"{who} says: {said.strip()[-300:]}")


def run(words, environment=None, timeout_s=60, again=True):
    """Runs a player; one that does not end gets a second chance, as those of others hang now and then."""
    try:
        return subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False, timeout=timeout_s,
            env={**os.environ, **(environment or {})},
        )  # fmt: skip
    except FileNotFoundError:
        sys.exit(f"{words[0]} is needed: install ffmpeg and gstreamer1.0-tools")
    except subprocess.TimeoutExpired:
        if again:
            return run(words, environment, timeout_s, again=False)
        return subprocess.CompletedProcess(words, 1, "", f"no end after {timeout_s} s")


# What is seen and heard


def check_pictures(report, path, movie, film):
    """The picture stands upright and in its colours, compared small, so that only what matters counts."""
    if film.clapped:
        check_clap(report, path)
    if film.upright is None:
        return
    length = movie.video.end_s()
    for share in (0.3, 0.7):
        moment = min(length * share, length - 1 / movie.video.fps())
        ours = thumbnail(path, (), "null", "bt709", moment)
        best = max((likeness(ours, theirs) for theirs in originals(film, moment, length)), default=0)
        report.expect(best > LIKE_DB, f"at {moment:.2f} s it looks unlike its source: {best:.1f} dB")


@functools.cache
def tagged(path):
    """Whether a film says what its colours mean. Where it does not, players guess, and either guess is right."""
    words = ["ffprobe", "-v", "quiet", "-select_streams", "v:0", "-show_entries", "stream=color_space", "-of", "csv=p=0", path]
    return run(words).stdout.split("\n")[0].strip(", ") not in ("unknown", "")


def originals(film, moment, length):
    """What the source shows at a moment, a frame earlier and a frame later."""
    step = 1 / (film.fps or 25)
    matrices = ("auto",) if tagged(film.path) else ("bt601", "bt709")
    for number in (0, -1, 1):
        at = min(max(0, moment + number * step), max(0, length - step))
        for matrix in matrices:
            yield thumbnail(film.path, ("-noautorotate",), film.upright, matrix, at)


def thumbnail(path, rotate, filters, matrix, at):
    """32 × 32 pixels of a moment, in RGB."""
    # A little before, because two clocks round differently.
    moment = f"setpts=PTS-STARTPTS,trim=start={max(0, at - 0.002):.4f}"
    # Of full colour, ffmpeg's scaler overlooks the matrix.
    small = f"format=yuv420p,scale=32:32:flags=area:in_color_matrix={matrix},format=rgb24"
    words = ["ffmpeg", "-nostdin", "-v", "error", *rotate, "-i", path, "-map", "0:v:0", "-vf", f"{moment},{filters},{small}"]
    return subprocess.run(
        [*words, "-frames:v", "1", "-f", "rawvideo", "-"], stdin=subprocess.DEVNULL, capture_output=True, check=False
    ).stdout


def likeness(one, other):
    """PSNR, in dB."""
    if not one or len(one) != len(other):
        return 0
    error = sum((a - b) ** 2 for a, b in zip(one, other)) / len(one)
    return 99 if error == 0 else 10 * math.log10(255**2 / error)


def check_clap(report, path):
    """What is seen and what is heard happen at once."""
    words = ["ffmpeg", "-nostdin", "-v", "error", "-i", path, "-map", "0:v:0", "-vf", "fps=100,scale=1:1:flags=area,format=gray"]
    light = subprocess.run([*words, "-f", "rawvideo", "-"], stdin=subprocess.DEVNULL, capture_output=True, check=False).stdout
    words = ["ffmpeg", "-nostdin", "-v", "error", "-i", path, "-map", "0:a:0", "-af", "aresample=8000:async=1:first_pts=0"]
    sound = subprocess.run([*words, "-ac", "1", "-f", "u8", "-"], stdin=subprocess.DEVNULL, capture_output=True, check=False).stdout
    seen = next((at / 100 for at, level in enumerate(light) if level > 128), None)
    heard = next((at / 8000 for at, level in enumerate(sound) if abs(level - 128) > 8), None)
    if not report.expect(seen is not None and heard is not None, f"the clap is seen at {seen} and heard at {heard}"):
        return
    report.expect(abs(seen - 1) < 0.06, f"the clap is seen at {seen:.3f} s instead of 1 s")
    report.expect(abs(seen - heard) < 0.06, f"the clap is seen at {seen:.3f} s and heard at {heard:.3f} s")


# The stream


@dataclasses.dataclass
class Segment:
    uri: str
    said_s: float
    samples: list
    size: int

    def start(self):
        return self.samples[0].at

    def length(self):
        return sum(sample.length for sample in self.samples)

    def first_shown(self):
        return min(sample.shown for sample in self.samples)


@dataclasses.dataclass
class Stream:
    """A media playlist and what it leads to."""

    uri: str
    track: Track
    segments: list
    target_s: int
    # Its map.
    head: str

    def seconds(self):
        return sum(segment.said_s for segment in self.segments)

    def average(self):
        return 8 * sum(segment.size for segment in self.segments) / self.seconds()

    def peak(self):
        """RFC 8216, 4.1: the most of any neighbouring segments that last half a target or more, up to one and a half."""
        best = 0
        for first in range(len(self.segments)):
            size = length = 0
            for segment in self.segments[first:]:
                size, length = size + segment.size, length + segment.said_s
                if length > 1.5 * self.target_s and length > segment.said_s:
                    break
                if length >= 0.5 * self.target_s or len(self.segments) == 1:
                    best = max(best, 8 * size / length)
        return best or self.average()


ATTRIBUTE = re.compile(r'([A-Z0-9-]+)=("[^"\r\n]*"|[^",\s]+)(?:,|$)')
MASTER_TAGS = {"EXT-X-VERSION", "EXT-X-INDEPENDENT-SEGMENTS", "EXT-X-MEDIA", "EXT-X-STREAM-INF"}
MEDIA_TAGS = {
    "EXT-X-VERSION", "EXT-X-INDEPENDENT-SEGMENTS", "EXT-X-TARGETDURATION", "EXT-X-MEDIA-SEQUENCE", "EXT-X-PLAYLIST-TYPE",
    "EXT-X-MAP", "EXTINF", "EXT-X-ENDLIST",
}  # fmt: skip


def lines(report, folder, uri, known):
    """`(tag, value)` of a playlist, and `("", uri)`; every tag must be one of those that belong there."""
    data = inputs.read(inside(folder, uri))
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise Wrong("it is not UTF-8") from None
    report.expect(not text.startswith("\ufeff"), "it begins with a byte order mark")
    report.expect(text.endswith("\n"), "its last line has no end")
    rows = text.split("\n")
    if rows[0].rstrip("\r") != "#EXTM3U":
        raise Wrong(f"it begins with {rows[0][:40]!r}")
    found = []
    for row in rows[1:]:
        row = row.rstrip("\r")
        if not row:
            continue
        if row.startswith("#EXT"):
            tag, _, value = row[1:].partition(":")
            report.expect(tag in known, f"what is {tag} doing here?")
            found.append((tag, value))
        elif not row.startswith("#"):
            found.append(("", row))
    return found


def inside(folder, uri):
    """Where a relative address leads, which is nowhere but into the folder."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*", uri):
        raise Wrong(f"it points to {uri!r}")
    path = os.path.join(folder, uri)
    if not os.path.isfile(path):
        raise Wrong(f"it points to {uri}, which is not there")
    return path


def attributes(value):
    found = {}
    at = 0
    while at < len(value):
        match = ATTRIBUTE.match(value, at)
        if not match or match[1] in found:
            raise Wrong(f"the attributes {value!r} cannot be read from {value[at:]!r} on")
        found[match[1]] = match[2]
        at = match.end()
    return found


def quoted(value):
    if value is None or len(value) < 2 or value[0] != '"':
        raise Wrong(f"{value} is not in quotes")
    return value[1:-1]


def single(report, rows, tag, required=True):
    values = [value for name, value in rows if name == tag]
    report.expect(len(values) == 1 or not required and not values, f"{tag} is there {len(values)} times")
    return values[0] if values else None


@dataclasses.dataclass
class Streams:
    variants: list
    sounds: list

    def all(self):
        return self.variants + self.sounds


def read_streams(report, folder, film):
    """Everything that the master leads to."""
    rows = lines(report, folder, "playlist.m3u8", MASTER_TAGS)
    version = single(report, rows, "EXT-X-VERSION")
    report.expect(version and int(version) >= 6, f"its version is {version}")
    single(report, rows, "EXT-X-INDEPENDENT-SEGMENTS")
    groups = {}
    for value in (value for tag, value in rows if tag == "EXT-X-MEDIA"):
        said = attributes(value)
        report.expect(said.get("TYPE") == "AUDIO", f"it has {said.get('TYPE')}")
        report.expect(said.get("DEFAULT") == "YES" and said.get("AUTOSELECT") == "YES", f"nobody would choose {value}")
        report.expect(quoted(said.get("NAME")) != "", "a group has no name")
        uri = quoted(said.get("URI"))
        groups[quoted(said.get("GROUP-ID"))] = read_stream(report.of(uri), folder, uri)
    report.expect(len(groups) <= 1, f"it has {len(groups)} groups of sound")
    variants = []
    for at, (tag, value) in enumerate(rows):
        if tag == "EXT-X-STREAM-INF":
            if at + 1 == len(rows) or rows[at + 1][0]:
                raise Wrong("a variant has no address")
            uri = rows[at + 1][1]
            variants.append((attributes(value), read_stream(report.of(uri), folder, uri)))
        elif not tag and (at == 0 or rows[at - 1][0] != "EXT-X-STREAM-INF"):
            report.wrong(f"nobody says what {value} is")
    if not variants:
        raise Wrong("it has no variant")
    for said, variant in variants:
        check_variant(report.of(variant.uri), said, variant, groups, film)
    for group in groups.values():
        check_sound(report.of(group.uri), group, variants[0][1], film)
    check_alike(report, [variant for _, variant in variants])
    streams = Streams([variant for _, variant in variants], list(groups.values()))
    known = {"playlist.m3u8"}
    for stream in streams.all():
        known |= {stream.uri, stream.head, *(segment.uri for segment in stream.segments)}
    there = {os.path.relpath(os.path.join(directory, name), folder) for directory, _, names in os.walk(folder) for name in names}
    report.expect(there == known, f"nothing leads to {', '.join(sorted(there - known))}")
    return streams


def read_stream(report, folder, uri):
    rows = lines(report, folder, uri, MEDIA_TAGS)
    version = single(report, rows, "EXT-X-VERSION")
    # A map wants 6 where there are more than key frames; times with a fraction want 3.
    report.expect(version and int(version) >= 6, f"its version is {version}")
    target = single(report, rows, "EXT-X-TARGETDURATION")
    if not target or not target.isdigit():
        raise Wrong(f"its target duration is {target}")
    report.expect(single(report, rows, "EXT-X-PLAYLIST-TYPE") == "VOD", "it is not of the type VOD")
    single(report, rows, "EXT-X-INDEPENDENT-SEGMENTS", required=False)
    single(report, rows, "EXT-X-MEDIA-SEQUENCE", required=False)
    report.expect(rows[-1][0] == "EXT-X-ENDLIST", "it has no end")
    said = attributes(single(report, rows, "EXT-X-MAP") or "")
    base = os.path.dirname(uri)
    head = quoted(said.get("URI"))
    report.expect("BYTERANGE" not in said, "its map is a part of a file")
    movie = read_movie(inputs.read(inside(folder, os.path.join(base, head))))
    if len(movie.tracks) != 1:
        raise Wrong(f"{head} has {len(movie.tracks)} tracks")
    report.expect(not movie.tracks[0].samples, f"{head} has samples of its own")
    places = [place for place in PLACES if place in movie.data]
    report.expect(not places, f"{head} knows where it was shot: {places}")
    track = movie.tracks[0]
    stream = Stream(uri, track, [], int(target), os.path.join(base, head))
    duration = None
    mapped = False
    for tag, value in rows:
        if tag == "EXT-X-MAP":
            mapped = True
        elif tag == "EXTINF":
            match = re.fullmatch(r"(\d+(?:\.\d+)?),.*", value)
            if duration is not None or not match:
                raise Wrong(f"EXTINF:{value} cannot be understood")
            duration = float(match[1])
        elif not tag:
            if duration is None or not mapped:
                raise Wrong(f"nobody says how long {value} is, or what maps it")
            data = inputs.read(inside(folder, os.path.join(base, value)))
            stream.segments.append(Segment(os.path.join(base, value), duration, read_segment(data, track), len(data)))
            duration = None
    if not stream.segments:
        raise Wrong("it has no segment")
    check_segments(report, stream)
    track.samples = [sample for segment in stream.segments for sample in segment.samples]
    return stream


def check_segments(report, stream):
    scale = stream.track.scale
    frame_s = stream.segments[0].samples[0].length / scale
    due = stream.segments[0].start()
    said = 0.0
    for number, segment in enumerate(stream.segments):
        name = segment.uri
        report.expect(segment.said_s > 0, f"{name} lasts {segment.said_s} s")
        # Rounded to the nearest, as the RFC has it.
        report.expect(int(segment.said_s + 0.5) <= stream.target_s, f"{name} lasts {segment.said_s} s, more than {stream.target_s}")
        # A clock of nanoseconds does not meet every sample.
        report.expect(abs(segment.start() - due) <= 2, f"{name} begins at {segment.start()}, and the one before ends at {due}")
        due = segment.start() + segment.length()
        length = segment.length() / scale
        report.expect(abs(segment.said_s - length) < frame_s / 2, f"{name} is said to last {segment.said_s} s, and lasts {length:.4f}")
        begins = (segment.start() - stream.segments[0].start()) / scale
        report.expect(abs(said - begins) < frame_s / 2, f"{name} begins at {begins:.4f} s, and by the playlist at {said:.4f}")
        said += segment.said_s
        if stream.track.kind == "vide":
            report.expect(segment.samples[0].key, f"{name} does not begin with a key frame")
            report.expect(segment.samples[0].shown == segment.first_shown(), f"{name} shows a frame before its key frame")
        if number + 1 < len(stream.segments):
            report.expect(segment.said_s >= stream.target_s / 3, f"{name} lasts only {segment.said_s} s in the middle")


def check_variant(report, said, variant, groups, film):
    track = variant.track
    report.expect(track.kind == "vide", "it has no picture")
    check_video_track(report, track)
    frame_s = 1 / track.fps()
    keys = track.keys_s()
    gaps = [after - before for before, after in zip(keys, keys[1:] + [track.end_s()])]
    report.expect(max(gaps) <= MOST_BETWEEN_KEYS_S + frame_s / 2, f"{max(gaps):.3f} s between key frames")
    sound = groups.get(quoted(said["AUDIO"])) if "AUDIO" in said else None
    report.expect("AUDIO" not in said or sound, f"there is no group {said.get('AUDIO')}")
    report.expect(bool(groups) == ("AUDIO" in said), "it does not say which sound goes with it")
    codecs = [track.codec] + ([sound.track.codec] if sound else [])
    wanted = quoted(said.get("CODECS")).replace(" ", "").split(",")
    report.expect([name.lower() for name in wanted] == [name.lower() for name in codecs], f"its codecs are said to be {wanted}, and are {codecs}")
    report.expect(said.get("RESOLUTION") == f"{track.wide}x{track.high}", f"{said.get('RESOLUTION')} is {track.wide}x{track.high}")
    rate = said.get("FRAME-RATE", "")
    report.expect(re.fullmatch(r"\d+(\.\d{1,3})?", rate) and abs(float(rate) - track.fps()) < 0.01, f"FRAME-RATE {rate} is {track.fps():.3f}")
    peak, average = variant.peak(), variant.average()
    if sound:
        peak, average = peak + sound.peak(), average + sound.average()
    bandwidth, average_said = (int(said.get(name, 0)) for name in ("BANDWIDTH", "AVERAGE-BANDWIDTH"))
    report.expect(0.999 * peak <= bandwidth <= 1.1 * peak, f"BANDWIDTH {bandwidth} is {bandwidth / peak:.3f} of the measured peak, {peak:.0f}")
    report.expect(abs(average_said / average - 1) <= 0.05, f"AVERAGE-BANDWIDTH {average_said} is {average_said / average:.3f} of {average:.0f}")
    if film and film.width:
        report.expect(track.wide <= film.width + 1 and track.high <= film.height + 1, f"{track.wide}x{track.high} is larger than its source")
        length = track.end_s() - track.start_s()
        report.expect(abs(length - film.seconds) <= max(2 * frame_s, 0.1), f"it lasts {length:.3f} s, and its source {film.seconds} s")


def check_sound(report, group, variant, film):
    track = group.track
    report.expect(track.kind == "soun" and track.codec == "mp4a.40.2", f"it is {track.kind} {track.codec}")
    close_enough(report, variant.track, track, film)
    most = max(1 / variant.track.fps(), 1024 / track.scale) + 0.002
    report.expect(abs(track.start_s() - variant.track.start_s()) <= most or film and not film.sound_seconds is None,
                  f"its sound begins at {track.start_s():.3f} s, and its picture at {variant.track.start_s():.3f} s")  # fmt: skip
    report.expect(group.target_s <= variant.target_s + 1, f"its segments are longer than the picture's: {group.target_s} s")


def check_alike(report, variants):
    """Segments begin and end together, so that a player may change at every one."""
    first = variants[0]
    wanted = [(segment.start() / first.track.scale, segment.length() / first.track.scale) for segment in first.segments]
    for variant in variants[1:]:
        found = [(segment.start() / variant.track.scale, segment.length() / variant.track.scale) for segment in variant.segments]
        alike = len(found) == len(wanted) and all(
            abs(one - other) < 0.002 for a, b in zip(found, wanted) for one, other in zip(a, b)
        )
        report.expect(alike, f"the segments of {variant.uri} do not lie where those of {first.uri} do")
    sizes = [variant.track.wide * variant.track.high for variant in variants]
    report.expect(len(set(sizes)) == len(sizes), "two variants are of the same size")


def see_streams(report, folder, streams, film):
    for stream in streams.all():
        # As one film, which is what a player puts together.
        with tempfile.NamedTemporaryFile(suffix=".mp4") as whole:
            for name in [stream.head, *(segment.uri for segment in stream.segments)]:
                whole.write(inputs.read(os.path.join(folder, name)))
            whole.flush()
            inner = report.of(stream.uri)
            frames = decode(inner, whole.name)
            if stream.track.kind == "vide":
                expect_colours(inner, next(iter(probe(inner, whole.name)), {}))
                report.expect(frames in (None, len(stream.track.samples)), f"{frames} of {len(stream.track.samples)} frames could be decoded")
    # From the master, as players take it.
    master = os.path.join(os.path.abspath(folder), "playlist.m3u8")
    found = probe(report, master)
    report.expect(any(stream.get("codec_type") == "video" for stream in found), "ffprobe finds no picture in it")
    # By HTTP: from files, its playbin waits for the sound of a group for ever. Not playbin3: that of 1.22.0 aborts
    # every other time, also on ffmpeg's streams.
    with Served(folder) as address:
        words = f"gst-launch-1.0 -q playbin uri={address}/playlist.m3u8".split()
        expect_quiet(report, [*words, "video-sink=fakesink sync=false", "audio-sink=fakesink sync=false"], "playbin")
    if film and film.clapped:
        check_clap(report, master)


class Served:
    """A folder by HTTP, on a port of its own, for as long as the `with` block lasts."""

    def __init__(self, folder):
        folder = os.path.abspath(folder)

        class Files(http.server.SimpleHTTPRequestHandler):
            def __init__(self, *rest):
                super().__init__(*rest, directory=folder)

            def log_message(self, *_):
                pass

        Files.extensions_map |= {".m3u8": "application/vnd.apple.mpegurl", ".m4s": "video/iso.segment", ".mp4": "video/mp4"}
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Files)
        # A player that has enough goes without a word.
        self.server.handle_error = lambda *_: None
        self.server.daemon_threads = True

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self.server.server_port}"

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


def check_together(found, ladder):
    """Key frames lie at the same moments in all of them."""
    tracks = {name: track for name, track in ladder.items() if track and track.samples}
    moments = {name: [key - track.start_s() for key in track.keys_s()] for name, track in tracks.items()}
    first = next(iter(moments), None)
    for name, keys in moments.items():
        same = len(keys) == len(moments[first]) and all(abs(a - b) < 0.002 for a, b in zip(keys, moments[first]))
        if not same:
            found.append(f"{name}: its key frames do not lie where those of {first} do")
    ends = {name: track.end_s() - track.start_s() for name, track in tracks.items()}
    for name, end in ends.items():
        if abs(end - ends[first]) > 1 / tracks[name].fps():
            found.append(f"{name}: it lasts {end:.3f} s, and {first} {ends[first]:.3f} s")


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("folder", nargs="?")
    arguments.add_argument("name", nargs="?", help="of the source, if it is one of inputs.py")
    arguments.add_argument("--self-test", action="store_true")
    options = arguments.parse_args()
    if options.self_test:
        import check_self

        sys.exit(check_self.main())
    if not options.folder:
        arguments.error("which folder?")
    film = next((film for film in inputs.good() if film.name == options.name), None) if options.name else None
    found = check(options.folder, film)
    print("\n".join(found) or "nothing is wrong")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
