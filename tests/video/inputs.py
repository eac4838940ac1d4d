#!/usr/bin/python3
"""Films and recordings for the tests: what people upload, and what somebody could send to hurt the box.

    inputs.py [FOLDER]

`good()` gives about sixty small ones that must be taken, each with what is known about it; `bad(port)` about seventy
that are cut off, damaged, lie, promise more than they hold or point elsewhere. The good ones and the foundations of the
bad ones are made by Debian's ffmpeg out of its own test pictures, once for each state of this file, below
`target/video-inputs`; the bad ones are made by hand on top of them, the same bytes every time. Standard library only.
"""

import argparse
import dataclasses
import hashlib
import os
import random
import shutil
import struct
import subprocess
import sys
import zlib

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
# In every file that knows where it was shot; it must be in nothing that is made of them.
PLACE = "+48.8577+002.2950"
MOST = 0xFFFFFFFF


@dataclasses.dataclass
class Film:
    """A good one, and what every player would say about it."""

    name: str
    path: str = ""
    # As shown: upright, with square pixels. `None` for what can only be heard.
    width: int | None = 640
    height: int | None = 360
    # As it must be afterwards; `None` where the source has no regular rate.
    fps: float | None = 25
    seconds: float = 2.0
    audio: bool = True
    # ffmpeg's filters that bring the stored picture upright; `None` where nothing can be compared.
    upright: str | None = "null"
    # Where its sound ends, if that is not where its picture does.
    sound_seconds: float | None = None
    # White for a moment after one second, and loud in the same moment.
    clapped: bool = False


@dataclasses.dataclass
class Bad:
    """A bad one: `error`, it must be refused; `warning`, its good part comes with a sentence; `either`, or neither."""

    name: str
    data: bytes
    wanted: str = "error"
    # A library of GStreamer's own falls over it. That costs the errand, and the owner is told.
    falls: bool = False


def good(folder=None):
    """All good ones, made when they are not there yet."""
    folder = cache(folder)
    for film in FILMS:
        film.path = os.path.join(folder, film.name)
    return list(FILMS)


def bad(port, canary="/etc/passwd", folder=None):
    """All bad ones. Those that point elsewhere point at this port of the loopback and at this file."""
    base = lambda name: read(os.path.join(cache(folder), name))  # noqa: E731
    yield from no_films(base)
    yield from cut_off(base)
    yield from damaged(base)
    yield from bombs(base)
    yield from pointing_elsewhere(base, port, canary)
    yield from odd_times(base)


def cache(folder=None):
    """The folder of the made ones, complete."""
    if folder is None:
        with open(__file__, "rb") as file:
            state = hashlib.sha256(file.read()).hexdigest()[:12]
        folder = os.path.join(os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target")), "video-inputs", state)
    if os.path.exists(folder):
        return folder
    part = f"{folder}.part{os.getpid()}"
    os.makedirs(part)
    try:
        make(part)
        os.rename(part, folder)
    except OSError:
        # Somebody else was faster.
        if not os.path.exists(folder):
            raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


# The good ones


def make(folder):
    """Everything that ffmpeg has to make. The recipes are where `FILMS` says what came of them."""
    for name, words in RECIPES:
        ffmpeg(*words, "-y", os.path.join(folder, name))
    for name, source, matrix in (
        ("rot90.mp4", "h264.mp4", (0, 1, -1, 0)),
        ("rot180.mov", "h264.mov", (-1, 0, 0, -1)),
        ("rot270.mp4", "h264.mp4", (0, -1, 1, 0)),
        ("mirrored.mp4", "h264.mp4", (-1, 0, 0, 1)),
        ("mirrored90.mp4", "h264.mp4", (0, 1, 1, 0)),
    ):
        write(os.path.join(folder, name), turned(read(os.path.join(folder, source)), matrix))
    # An edit list that begins in the middle, as phones write when people trim.
    begins = iter((12800 + 1024, 48000 + 1024))
    trimmed = edited(read(os.path.join(folder, "long-gop.mp4")), {"elst": lambda _: elst((2000, next(begins), 1))})
    write(os.path.join(folder, "trimmed.mp4"), trimmed)


def picture(size="640x360", rate="25", seconds=2, filters="null", source="testsrc2"):
    return ["-f", "lavfi", "-i", f"{source}=size={size}:rate={rate}:duration={seconds},{filters}"]


def sound(seconds=2, rate=48000, channels="stereo", pitch=440):
    return ["-f", "lavfi", "-i", f"sine=frequency={pitch}:sample_rate={rate}:duration={seconds},aformat=channel_layouts={channels}"]


def x264(*more, gop=25):
    return ["-c:v", "libx264", "-preset", "ultrafast", "-crf", "18", "-g", str(gop), "-pix_fmt", "yuv420p", *more]


def x265(colours, params=""):
    primaries, transfer, matrix = colours
    tags = ["-color_primaries", primaries, "-color_trc", transfer, "-colorspace", matrix]
    said = f"log-level=none:colorprim={primaries}:transfer={transfer}:colormatrix={matrix}{params}"
    return ["-c:v", "libx265", "-preset", "ultrafast", "-crf", "20", "-pix_fmt", "yuv420p10le", "-tag:v", "hvc1", *tags, "-x265-params", said]


AAC = ["-c:a", "aac", "-b:a", "96k"]
CLAP = picture(seconds=3, source="color", filters="drawbox=t=fill:c=white:enable='between(t,0.99,1.19)'")
CLAP_SOUND = ["-f", "lavfi", "-i", "sine=frequency=1000:sample_rate=48000:duration=3,volume='between(t,1,1.2)':eval=frame,aformat=channel_layouts=stereo"]
PQ = ("bt2020", "smpte2084", "bt2020nc")
HLG = ("bt2020", "arib-std-b67", "bt2020nc")
MASTERING = ":hdr10=1:master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,1):max-cll=1000,400"
VFR = "setpts='(N+0.4*sin(N*1.7)+5*floor(N/15))/25/TB'"
BLACK_INTRO = "drawbox=t=fill:c=black:enable='lt(t,1.5)'"
GPS = ["-metadata", f"location={PLACE}/", "-metadata", "title=Secret title"]
NTSC = 30000 / 1001

RECIPES = [
    ("h264.mp4", picture() + sound() + x264() + AAC),
    ("ladder.mp4", picture("1280x720", seconds=5) + sound(5) + x264() + AAC),
    ("h264.mov", picture() + sound() + x264() + ["-c:a", "pcm_s16le"]),
    ("long-gop.mp4", picture(seconds=4) + sound(4) + x264("-bf", "2", gop=250) + AAC),
    ("odd.webm", picture("853x481", source="testsrc", filters="format=yuv420p") + sound() + ["-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-c:a", "libopus"]),
    ("vfr.mkv", picture(filters=VFR) + sound(3) + x264() + AAC + ["-fps_mode", "vfr"]),
    ("vfr.mp4", picture(filters=VFR) + sound(3) + x264() + AAC + ["-fps_mode", "vfr", "-video_track_timescale", "90000"]),
    ("tff.ts", picture("720x576", 50, filters="tinterlace=interleave_top,setsar=64/45,setfield=tff") + sound()
     + ["-c:v", "mpeg2video", "-b:v", "4M", "-flags", "+ildct+ilme", "-top", "1", "-g", "12", "-c:a", "mp2"]),
    ("bff.ts", picture("720x480", "60000/1001", filters="tinterlace=interleave_bottom,setsar=8/9,setfield=bff") + sound()
     + ["-c:v", "mpeg2video", "-b:v", "4M", "-flags", "+ildct+ilme", "-top", "0", "-g", "12", "-c:a", "ac3"]),
    ("dv.avi", picture("720x576", filters="setsar=16/15") + sound() + ["-c:v", "dvvideo", "-pix_fmt", "yuv420p", "-c:a", "pcm_s16le"]),
    ("anamorphic.mp4", picture("480x360", filters="setsar=4/3") + sound() + x264() + AAC),
    ("silent.mp4", picture() + x264()),
    ("two-audio.mkv", picture() + sound() + sound(pitch=880) + x264() + AAC + ["-map", "0", "-map", "1", "-map", "2"]),
    ("surround.mp4", picture() + sound(channels="5.1") + x264() + AAC),
    ("mono8k.mp4", picture() + sound(rate=8000, channels="mono") + x264() + AAC),
    ("hdr10.mp4", picture(filters="format=yuv420p10le") + sound() + x265(PQ, MASTERING) + AAC),
    ("hlg.mp4", picture(filters="format=yuv420p10le") + sound() + x265(HLG) + AAC),
    ("ten-bit.mkv", picture(filters="format=yuv420p10le") + sound() + x264("-pix_fmt", "yuv420p10le") + AAC),
    ("422.mov", picture() + sound() + x264("-pix_fmt", "yuv422p") + AAC),
    ("444.mp4", picture() + sound() + x264("-pix_fmt", "yuv444p") + AAC),
    ("bt601-full.mkv", picture(filters="scale=out_color_matrix=bt601:out_range=pc") + x264("-pix_fmt", "yuvj420p", "-colorspace", "smpte170m", "-color_primaries", "smpte170m", "-color_trc", "smpte170m", "-color_range", "pc")),
    ("vp8.webm", picture() + sound() + ["-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8", "-b:v", "2M", "-c:a", "libvorbis"]),
    ("vp9.webm", picture() + sound() + ["-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-c:a", "libopus"]),
    ("alpha.webm", picture(filters="format=yuva420p") + ["-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8"]),
    ("av1.mp4", picture(seconds=1) + sound(1) + ["-c:v", "libsvtav1", "-preset", "12", "-crf", "35"] + AAC),
    ("mjpeg.avi", picture() + sound() + ["-c:v", "mjpeg", "-q:v", "4", "-pix_fmt", "yuvj420p", "-c:a", "pcm_s16le"]),
    ("prores.mov", picture(seconds=1) + sound(1) + ["-c:v", "prores_ks", "-profile:v", "2", "-pix_fmt", "yuv422p10le", "-c:a", "pcm_s24le"]),
    ("film.wmv", picture() + sound() + ["-c:v", "wmv2", "-b:v", "2M", "-c:a", "wmav2"]),
    ("film.flv", picture() + sound(rate=44100) + ["-c:v", "flv", "-b:v", "2M", "-c:a", "libmp3lame"]),
    ("asp.avi", picture() + sound() + ["-c:v", "mpeg4", "-vtag", "XVID", "-b:v", "2M", "-bf", "2", "-c:a", "libmp3lame"]),
    ("film.mpg", picture() + sound() + ["-c:v", "mpeg1video", "-b:v", "2M", "-c:a", "mp2"]),
    ("23976.mp4", picture(rate="24000/1001") + sound() + x264() + AAC),
    ("5994.mp4", picture(rate="60000/1001") + sound() + x264() + AAC),
    ("60.mp4", picture(rate=60) + sound() + x264() + AAC),
    ("120.mp4", picture(rate=120, seconds=1) + sound(1) + x264() + AAC),
    ("12.5.mkv", picture(rate="25/2") + x264()),
    ("1440p.mp4", picture("2560x1440", 30, 1) + sound(1) + x264() + AAC),
    ("64x48.mp4", picture("64x48") + sound() + x264() + AAC),
    ("2x2.mp4", picture("2x2", source="color") + x264()),
    ("one-frame.mp4", picture() + x264("-frames:v", "1")),
    ("fifth.mp4", picture(seconds=0.2) + sound(0.2) + x264() + AAC),
    ("black-intro.mp4", picture(seconds=4, filters=BLACK_INTRO) + sound(4) + x264(gop=999) + AAC),
    ("portrait.mp4", picture("1080x1920", seconds=1) + sound(1) + x264() + AAC),
    ("wide.mp4", picture("1920x400") + sound() + x264() + AAC),
    ("gps.mp4", picture() + sound() + x264() + AAC + GPS),
    ("gps.mov", picture() + sound() + x264() + AAC + GPS + ["-metadata", f"com.apple.quicktime.location.ISO6709={PLACE}/", "-movflags", "use_metadata_tags"]),
    ("gps.mkv", picture() + sound() + x264() + AAC + GPS),
    ("long-audio.mp4", picture() + sound(4) + x264() + AAC),
    ("short-audio.mp4", picture(seconds=3) + sound(1) + x264() + AAC),
    ("late-audio.mkv", picture(seconds=3) + ["-itsoffset", "1"] + sound(2) + x264() + AAC),
    ("late-video.mkv", ["-itsoffset", "1"] + picture() + sound(3) + x264() + AAC),
    ("clap.mp4", CLAP + CLAP_SOUND + x264("-bf", "2") + AAC),
    ("clap.ts", CLAP + CLAP_SOUND + x264("-bf", "2") + ["-c:a", "mp2", "-output_ts_offset", "3600"]),
    ("clap.webm", CLAP + CLAP_SOUND + ["-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-c:a", "libopus"]),
    # Its sound begins half a second into the film.
    ("clap-late.mkv", CLAP + ["-ss", "0.5"] + CLAP_SOUND + x264() + AAC + ["-af", "asetpts=PTS+0.5/TB"]),
    ("offset.ts", picture() + sound() + x264() + AAC + ["-output_ts_offset", "36000"]),
    ("fragmented.mp4", picture() + sound() + x264() + AAC + ["-movflags", "frag_keyframe+empty_moov+default_base_moof"]),
    ("timecode.mov", picture() + sound() + x264() + AAC + ["-timecode", "10:00:00:00"]),
    ("subtitles.mkv", picture() + sound() + ["-i", "SUBTITLES"] + x264() + AAC + ["-c:s", "srt"]),
    ("cover.mp3", sound() + picture("300x300", 1, 1) + ["-map", "0", "-map", "1", "-frames:v", "1", "-c:v", "mjpeg", "-pix_fmt", "yuvj420p", "-disposition:v", "attached_pic", "-c:a", "libmp3lame", "-id3v2_version", "3"]),
    ("tone.flac", sound() + ["-c:a", "flac"]),
    ("tone.wav", sound() + ["-c:a", "pcm_s16le"]),
    ("mono8k.wav", sound(rate=8000, channels="mono") + ["-c:a", "pcm_u8"]),
    ("surround.flac", sound(channels="5.1") + ["-c:a", "flac"]),
    ("tone.ogg", sound() + ["-c:a", "libvorbis"]),
    ("tone.opus", sound() + ["-c:a", "libopus"]),
    ("tone.m4a", sound() + AAC),
    ("sound-only.mp4", sound() + AAC),
    # What the bad ones are made of.
    ("base/big.mp4", picture(seconds=6) + sound(6) + x264() + AAC),
    ("base/faststart.mp4", picture(seconds=6) + sound(6) + x264() + AAC + ["-movflags", "faststart"]),
    ("base/big.mkv", picture(seconds=6) + sound(6) + x264() + AAC),
    ("base/big.webm", picture(seconds=6) + sound(6) + ["-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "16", "-b:v", "1M", "-c:a", "libopus"]),
    ("base/big.ts", picture(seconds=6) + sound(6) + x264() + AAC),
    ("base/big.avi", picture(seconds=6) + sound(6) + ["-c:v", "mpeg4", "-vtag", "XVID", "-b:v", "2M", "-c:a", "libmp3lame"]),
    ("base/mjpeg.avi", picture("320x180", seconds=1) + ["-c:v", "mjpeg", "-q:v", "8", "-pix_fmt", "yuvj420p"]),
    ("base/small.ts", picture("320x180") + sound() + x264() + AAC + ["-output_ts_offset", "2"]),
    ("base/day.ts", picture() + sound() + x264() + AAC + ["-output_ts_offset", "80000"]),
    ("base/locked.mp4", picture() + sound() + x264() + AAC
     + ["-encryption_scheme", "cenc-aes-ctr", "-encryption_key", "0123456789abcdef" * 2, "-encryption_kid", "fedcba9876543210" * 2]),
    ("base/years.mkv", picture(filters="settb=1/1000,setpts='N*40+if(gt(N,24),31536000000,0)'") + x264() + ["-fps_mode", "passthrough", "-enc_time_base", "1/1000"]),
    ("base/negative.mkv", picture() + sound() + x264() + AAC + ["-output_ts_offset", "-5", "-avoid_negative_ts", "disabled"]),
    ("base/attached.mkv", picture() + sound() + x264() + AAC + ["-attach", "SUBTITLES", "-metadata:s:t", "mimetype=application/x-truetype-font", "-metadata:s:t", "filename=../../../etc/cron.d/x.ttf"]),
    ("base/still.jpg", picture("320x240", 1, 1) + ["-frames:v", "1", "-q:v", "4", "-pix_fmt", "yuvj420p"]),
]  # fmt: skip

# What the stored picture goes through to stand upright, in ffmpeg's words.
FILMS = [
    Film("h264.mp4"),
    Film("ladder.mp4", width=1280, height=720, seconds=5),
    Film("h264.mov"),
    Film("long-gop.mp4", seconds=4),
    Film("rot90.mp4", width=360, height=640, upright="transpose=clock"),
    Film("rot180.mov", upright="hflip,vflip"),
    Film("rot270.mp4", width=360, height=640, upright="transpose=cclock"),
    Film("mirrored.mp4", upright="hflip"),
    Film("mirrored90.mp4", width=360, height=640, upright="transpose=cclock_flip"),
    Film("trimmed.mp4"),
    Film("odd.webm", width=853, height=481),
    Film("vfr.mkv", fps=None, seconds=2.6, upright=None),
    Film("vfr.mp4", fps=None, seconds=2.6, upright=None),
    Film("tff.ts", width=1024, height=576),
    Film("bff.ts", width=640, height=480, fps=NTSC),
    Film("dv.avi", width=768, height=576),
    Film("anamorphic.mp4"),
    Film("silent.mp4", audio=False),
    Film("two-audio.mkv"),
    Film("surround.mp4"),
    Film("mono8k.mp4"),
    Film("hdr10.mp4", upright=None),
    Film("hlg.mp4", upright=None),
    Film("ten-bit.mkv"),
    Film("422.mov"),
    Film("444.mp4"),
    Film("bt601-full.mkv", audio=False),
    Film("vp8.webm"),
    Film("vp9.webm"),
    Film("alpha.webm", audio=False),
    Film("av1.mp4", seconds=1),
    Film("mjpeg.avi"),
    Film("prores.mov", seconds=1),
    Film("film.wmv"),
    Film("film.flv"),
    Film("asp.avi"),
    Film("film.mpg"),
    Film("23976.mp4", fps=24000 / 1001),
    Film("5994.mp4", fps=60000 / 1001),
    Film("60.mp4", fps=60),
    Film("120.mp4", fps=60, seconds=1),
    Film("12.5.mkv", fps=None, audio=False),
    Film("1440p.mp4", width=2560, height=1440, fps=30, seconds=1),
    Film("64x48.mp4", width=64, height=48),
    Film("2x2.mp4", width=2, height=2, audio=False, upright=None),
    Film("one-frame.mp4", seconds=0.04, audio=False),
    Film("fifth.mp4", seconds=0.2),
    Film("black-intro.mp4", seconds=4),
    Film("portrait.mp4", width=1080, height=1920, seconds=1),
    Film("wide.mp4", width=1920, height=400),
    Film("gps.mp4"),
    Film("gps.mov"),
    Film("gps.mkv"),
    Film("long-audio.mp4"),
    Film("short-audio.mp4", seconds=3, sound_seconds=1),
    Film("clap.mp4", seconds=3, clapped=True, upright=None),
    Film("clap.ts", seconds=3, clapped=True, upright=None),
    Film("clap.webm", seconds=3, clapped=True, upright=None),
    Film("clap-late.mkv", seconds=3, clapped=True, upright=None),
    Film("late-audio.mkv", seconds=3),
    Film("late-video.mkv", seconds=3, upright=None),
    Film("offset.ts"),
    Film("fragmented.mp4"),
    Film("timecode.mov"),
    Film("subtitles.mkv"),
    *(Film(name, width=None, height=None, fps=None) for name in (
        "cover.mp3", "tone.flac", "tone.wav", "mono8k.wav", "surround.flac", "tone.ogg", "tone.opus", "tone.m4a", "sound-only.mp4",
    )),
]  # fmt: skip


def turned(data, matrix):
    """An MP4 whose film is to be shown through this matrix."""
    a, b, c, d = matrix

    def change(payload):
        # Version 0; the matrix comes before width and height, which end the box.
        wide, high = (value >> 16 for value in struct.unpack(">II", payload[-8:]))
        if not wide:
            return payload
        right = (wide if a < 0 else 0) + (high if c < 0 else 0)
        down = (wide if b < 0 else 0) + (high if d < 0 else 0)
        fixed = [a << 16, b << 16, 0, c << 16, d << 16, 0, right << 16, down << 16, 1 << 30]
        return payload[:-44] + struct.pack(">9i", *fixed) + payload[-8:]

    return edited(data, {"tkhd": change})


# MP4


CONTAINERS = {"moov", "trak", "mdia", "minf", "stbl", "dinf", "edts", "udta", "mvex", "moof", "traf"}


def box(kind, payload=b"", size=None):
    size = len(payload) + 8 if size is None else size
    return struct.pack(">I", size) + kind.encode("latin-1") + payload


def boxes(data):
    """`(kind, payload)` of the boxes that lie side by side in here."""
    at = 0
    while at + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        head = 8
        if size == 1:
            size, head = struct.unpack_from(">Q", data, at + 8)[0], 16
        size = size or len(data) - at
        yield kind.decode("latin-1"), data[at + head : at + size]
        at += max(size, head)


def edited(data, changes):
    """The same file with the payload of every box of these kinds changed.

    Sizes around it follow; offsets do not, so what grows must come behind the media.
    """
    out = []
    for kind, payload in boxes(data):
        if kind in CONTAINERS:
            payload = edited(payload, changes)
        if kind in changes:
            payload = changes[kind](payload)
        out.append(box(kind, payload))
    return b"".join(out)


def full(payload=b"", version=0, flags=0):
    return struct.pack(">I", version << 24 | flags) + payload


def elst(*edits):
    return full(struct.pack(">I", len(edits)) + b"".join(struct.pack(">IiI", length, at, rate << 16) for length, at, rate in edits))


FTYP = box("ftyp", b"isom\0\0\2\0isomiso2avc1mp41")


# Matroska


def ebml(name, payload, size=None):
    """An element; `size` lies about it."""
    size = len(payload) if size is None else size
    return bytes.fromhex(name) + struct.pack(">Q", 1 << 56 | size) + payload


def matroska(*parts, kind=b"matroska"):
    return ebml("1a45dfa3", ebml("4282", kind) + ebml("4287", b"\4") + ebml("4285", b"\2")) + ebml("18538067", b"".join(parts))


INFO = ebml("1549a966", ebml("2ad7b1", struct.pack(">I", 1_000_000)))


def video_track(codec, wide, high, *more):
    size = ebml("b0", struct.pack(">I", wide)) + ebml("ba", struct.pack(">I", high))
    parts = [ebml("d7", b"\1"), ebml("73c5", b"\1"), ebml("83", b"\1"), ebml("86", codec), ebml("e0", size), *more]
    return ebml("1654ae6b", ebml("ae", b"".join(parts)))


def cluster(*frames):
    blocks = [ebml("a3", b"\x81" + struct.pack(">h", number * 40) + b"\x80" + frame) for number, frame in enumerate(frames)]
    return ebml("1f43b675", ebml("e7", b"\0") + b"".join(blocks))


# The bad ones


def no_films(base):
    yield Bad("empty.mp4", b"")
    yield Bad("text.mp4", b"Dear diary, this is not a film.\n" * 200)
    yield Bad("picture.mp4", base("base/still.jpg"), "either")
    yield Bad("document.mp4", b"%PDF-1.7\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n")
    yield Bad("page.mp4", b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"><script>alert(1)</script></svg>')
    dice = random.Random(1)
    yield Bad("noise.mp4", FTYP + dice.randbytes(200_000))
    yield Bad("noise.mkv", matroska()[:40] + dice.randbytes(200_000))
    yield Bad("noise.ts", b"".join(b"\x47" + dice.randbytes(187) for _ in range(2000)))
    yield Bad("head.mp4", FTYP)
    yield Bad("nothing-in.mkv", matroska(INFO))
    yield Bad("nothing-in.mp4", FTYP + box("moov", box("mvhd", full(bytes(16) + struct.pack(">II", 1000, 0) + bytes(76)))) + box("mdat"))


def cut_off(base):
    """What stops in the middle of an upload or a recording."""
    mp4, faststart = base("base/big.mp4"), base("base/faststart.mp4")
    at = mp4.rindex(b"moov") - 4
    yield Bad("no-moov.mp4", mp4[:at])
    yield Bad("moov-cut.mp4", mp4[: at + (len(mp4) - at) // 2])
    yield Bad("faststart-cut.mp4", faststart[: len(faststart) // 2], "warning")
    yield Bad("faststart-hardly.mp4", faststart[: faststart.index(b"mdat") + 300])
    for name in ("mkv", "webm", "ts"):
        data = base(f"base/big.{name}")
        # A stream has no length to be short of.
        yield Bad(f"cut.{name}", data[: len(data) // 2], "either" if name == "ts" else "warning")
    avi = base("base/big.avi")
    yield Bad("cut.avi", avi[: len(avi) // 2], "warning")
    fragmented = base("fragmented.mp4")
    yield Bad("fragmented-cut.mp4", fragmented[: len(fragmented) * 2 // 3], "either")


def damaged(base):
    dice = random.Random(2)
    mp4 = bytearray(base("base/big.mp4"))
    start, end = mp4.index(b"mdat") + 5000, mp4.rindex(b"moov") - 100
    for _ in range(3000):
        mp4[dice.randrange(start, end)] = dice.randrange(256)
    yield Bad("mdat-noise.mp4", bytes(mp4), "either")
    # Big enough to hit everything that is decoded, sync bytes included.
    for name in ("mkv", "ts", "avi", "webm"):
        data = bytearray(base(f"base/big.{name}"))
        for _ in range(len(data) // 200):
            data[dice.randrange(2000, len(data))] = dice.randrange(256)
        yield Bad(f"noise-in.{name}", bytes(data), "either")
    moov = bytearray(base("base/big.mp4"))
    at = moov.rindex(b"moov")
    for _ in range(60):
        moov[dice.randrange(at + 8, len(moov))] = dice.randrange(256)
    yield Bad("moov-noise.mp4", bytes(moov), "either")
    yield Bad("size-changes.ts", base("base/big.ts") + base("base/small.ts"), "either")
    yield Bad("locked.mp4", base("base/locked.mp4"), "either")
    marked = edited(base("h264.mp4"), {"stsd": lambda payload: payload.replace(b"avc1", b"encv", 1).replace(b"mp4a", b"enca", 1)})
    yield Bad("marked-locked.mp4", marked, "either")
    codec = edited(base("silent.mp4"), {"stsd": lambda payload: payload.replace(b"avc1", b"zzzz", 1)})
    yield Bad("unknown-codec.mp4", codec)


def bombs(base):
    """What is small until it is believed."""
    mp4 = base("silent.mp4")

    def counts(kind, start, *numbers):
        return edited(mp4, {kind: lambda payload: payload[:start] + struct.pack(f">{len(numbers)}I", *numbers) + payload[start + 4 * len(numbers) :]})

    yield Bad("stts-of-4-billion.mp4", counts("stts", 4, 1, MOST, 512), "either")
    yield Bad("stts-lies.mp4", counts("stts", 4, MOST), "either")
    yield Bad("stsz-of-4-billion.mp4", counts("stsz", 4, 1, MOST), "either")
    yield Bad("stsz-of-100-million.mp4", counts("stsz", 4, 1, 100_000_000), "either")
    yield Bad("stsc-lies.mp4", counts("stsc", 4, MOST), "either")
    yield Bad("stsc-of-4-billion.mp4", counts("stsc", 4, 1, 1, MOST), "either")
    yield Bad("stco-lies.mp4", counts("stco", 4, MOST), "either")
    yield Bad("stss-lies.mp4", counts("stss", 4, MOST), "either")
    yield Bad("sample-of-4-gigabytes.mp4", counts("stsz", 12, MOST - 7), "either")
    yield Bad("edits-without-end.mp4", edited(mp4, {"elst": lambda _: elst(*[(MOST, 0, 1)] * 200_000)}), "either")
    yield Bad("edit-of-years.mp4", edited(mp4, {"elst": lambda _: elst((MOST, -1, 1), (2000, 0, 1))}), "either")
    yield Bad("timescale-0.mp4", edited(mp4, {"mdhd": lambda payload: payload[:12] + bytes(4) + payload[16:]}), "either")
    yield Bad("timescale-1.mp4", edited(mp4, {"mdhd": lambda payload: payload[:12] + struct.pack(">I", 1) + payload[16:]}), "either")
    yield Bad("said-65535.mp4", edited(mp4, {"stsd": lambda payload: payload[:40] + struct.pack(">HH", 65535, 65535) + payload[44:]}), "either")
    yield Bad("box-of-exabytes.mp4", FTYP + struct.pack(">I4sQ", 1, b"moov", (1 << 63) - 1) + mp4[-2000:])
    yield Bad("moov-of-4-gigabytes.mp4", FTYP + box("moov", mp4[-2000:], size=MOST))
    nested = b""
    for _ in range(1000):
        nested = box("moov", nested)
    yield Bad("moov-1000-deep.mp4", FTYP + nested + box("mdat", bytes(100)))
    nested = b""
    for _ in range(50_000):
        nested = box("trak", nested)
    yield Bad("trak-50000-deep.mp4", FTYP + box("moov", nested) + box("mdat", bytes(100)), falls=True)
    track = box("trak", dict(boxes(dict(boxes(mp4))["moov"]))["trak"])
    yield Bad("10000-tracks.mp4", edited(mp4, {"moov": lambda payload: payload + track * 10_000}), "either")
    swollen = zlib.compress(bytes(300 << 20), 9)
    cmov = box("cmov", box("dcom", b"zlib") + box("cmvd", struct.pack(">I", 300 << 20) + swollen))
    yield Bad("compressed-moov.mp4", FTYP + box("moov", cmov) + box("mdat", bytes(100)))
    cmov = box("cmov", box("dcom", b"zlib") + box("cmvd", struct.pack(">I", MOST) + zlib.compress(bytes(100))))
    yield Bad("compressed-moov-lies.mp4", FTYP + box("moov", cmov) + box("mdat", bytes(100)))

    yield Bad("element-of-exabytes.mkv", matroska(INFO, ebml("1654ae6b", b"", size=(1 << 56) - 2)))
    yield Bad("void-of-exabytes.mkv", matroska(ebml("ec", b"", size=(1 << 55)), INFO))
    nested = b""
    for _ in range(1000):
        nested = ebml("67c8", ebml("45a3", b"x") + nested)
    yield Bad("tags-1000-deep.mkv", matroska(INFO, ebml("1254c367", ebml("7373", nested)), video_track(b"V_MJPEG", 64, 64), cluster(b"\xff\xd8")), "error")
    zipped = ebml("6d80", ebml("6240", ebml("5031", b"\0") + ebml("5032", b"\1") + ebml("5033", b"\0") + ebml("5034", ebml("4254", b"\0"))))
    yield Bad("zipped-frames.mkv", matroska(INFO, video_track(b"V_UNCOMPRESSED", 640, 360, zipped), cluster(*[zlib.compress(bytes(200 << 20), 9)] * 20)), "either")
    yield Bad("raw-65535.mkv", matroska(INFO, video_track(b"V_UNCOMPRESSED", 65535, 65535), cluster(bytes(1000))), "error")
    yield Bad("no-size.mkv", matroska(INFO, video_track(b"V_VP8", 0, 0), cluster(bytes(1000))), "error")
    webm = base("base/big.webm")
    # The size in the first key frame, which is what a decoder believes.
    at = webm.index(b"\x9d\x01\x2a") + 3
    yield Bad("vp8-16383.webm", webm[:at] + struct.pack("<HH", 16383, 16383) + webm[at + 4 :], "either")
    yield Bad("said-65535.webm", webm.replace(b"\xb0\x82\x02\x80", b"\xb0\x82\xff\xff", 1).replace(b"\xba\x82\x01\x68", b"\xba\x82\xff\xff", 1), "either")

    jpegs = base("base/mjpeg.avi")
    swollen = bytearray(jpegs)
    at = swollen.find(b"\xff\xc0\0\x11\x08")
    while at >= 0:
        swollen[at + 5 : at + 9] = b"\xff\xff\xff\xff"
        at = swollen.find(b"\xff\xc0\0\x11\x08", at + 9)
    yield Bad("jpeg-65535.avi", bytes(swollen), "either")
    at = jpegs.index(b"idx1")
    yield Bad("index-of-4-gigabytes.avi", jpegs[: at + 4] + struct.pack("<I", MOST - 15) + jpegs[at + 8 :], "either")
    entries = b"".join(b"00dc" + struct.pack("<III", 16, (number * 7919) & MOST, MOST) for number in range(200_000))
    yield Bad("index-of-nonsense.avi", jpegs[: at + 4] + struct.pack("<I", len(entries)) + entries, "either")
    at = jpegs.index(b"avih") + 8
    yield Bad("frames-of-4-billion.avi", jpegs[: at + 16] + struct.pack("<I", MOST) + jpegs[at + 20 :], "either")
    yield Bad("rate-of-4-billion.avi", jpegs[:at] + struct.pack("<I", 0) + jpegs[at + 4 :].replace(struct.pack("<II", 1, 25), struct.pack("<II", 1, MOST), 1), "either")
    # A picture, however many; it never comes to a video worker.
    frame = b"\x21\xf9\4\0\1\0\0\0\x2c\0\0\0\0\1\0\1\0\0\2\2\x44\1\0"
    yield Bad("frames.gif", b"GIF89a\1\0\1\0\x80\0\0\0\0\0\xff\xff\xff" + frame * 100_000 + b";", "either")
    wav = b"RIFF" + struct.pack("<I", MOST) + b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 65535, MOST, MOST, 65535, 32)
    yield Bad("65535-channels.wav", wav + b"data" + struct.pack("<I", MOST) + bytes(1000), "either")


def pointing_elsewhere(base, port, canary):
    """What would have us fetch something: over the network, or a file of our own."""
    away = f"http://127.0.0.1:{port}/away"
    file = f"file://{canary}"
    yield Bad("hls.mp4", f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{away}.ts\n#EXTINF:10,\n{file}\n#EXT-X-ENDLIST\n".encode())
    yield Bad("master.m3u8", f"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{away}.m3u8\n".encode())
    yield Bad("keyed.m3u8", f'#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXT-X-KEY:METHOD=AES-128,URI="{away}.key"\n#EXTINF:9,\n{canary}\n#EXT-X-ENDLIST\n'.encode())
    dash = '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT10S" minBufferTime="PT1S">'
    dash += f'<BaseURL>{away}/</BaseURL><Period><AdaptationSet mimeType="video/mp4"><Representation id="1" bandwidth="1">'
    yield Bad("dash.mp4", (dash + f"<BaseURL>{file}</BaseURL></Representation></AdaptationSet></Period></MPD>").encode())
    smooth = f'<?xml version="1.0"?><SmoothStreamingMedia MajorVersion="2" Duration="1"><StreamIndex Type="video" Url="{away}"/></SmoothStreamingMedia>'
    yield Bad("smooth.mp4", smooth.encode())
    yield Bad("smil.mp4", f'<smil><body><video src="{away}"/><video src="{file}"/></body></smil>'.encode())
    yield Bad("asx.wmv", f'<ASX version="3.0"><Entry><Ref href="{away}"/><Ref href="{file}"/></Entry></ASX>'.encode())
    yield Bad("asf-reference.wmv", f"[Reference]\r\nRef1={away}\r\nRef2={file}\r\n".encode())
    yield Bad("list.mp3", f"[playlist]\nNumberOfEntries=2\nFile1={away}\nFile2={file}\nVersion=2\n".encode())
    yield Bad("xspf.mp4", f'<?xml version="1.0"?><playlist xmlns="http://xspf.org/ns/0/"><trackList><track><location>{away}</location></track></trackList></playlist>'.encode())
    yield Bad("concat.mp4", f"ffconcat version 1.0\nfile '{canary}'\nfile '{away}'\n".encode())
    yield Bad("session.mp4", b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video %d RTP/AVP 96\na=rtpmap:96 H264/90000\n" % port)
    yield Bad("rtsp.mov", f"rtsptextRTSP://127.0.0.1:{port}/away\r\n".encode())

    for name, kind, where in (("dref-http.mp4", "url ", away), ("dref-file.mp4", "url ", file), ("dref-alias.mov", "alis", canary)):
        entry = box(kind, full(where.encode() + b"\0"))
        dref = full(struct.pack(">I", 1) + entry)
        yield Bad(name, edited(base("silent.mp4"), {"dref": lambda _, dref=dref: dref}), "either")
    for name, where in (("reference-http.mov", away), ("reference-file.mov", file)):
        rdrf = box("rdrf", full(b"url " + struct.pack(">I", len(where) + 1) + where.encode() + b"\0"))
        yield Bad(name, box("ftyp", b"qt  \0\0\2\0qt  ") + box("moov", box("rmra", box("rmda", rdrf))))
    linked = INFO[12:] + ebml("73a4", bytes(16)) + ebml("3eb923", bytes(range(16))) + ebml("3e83bb", canary.encode()) + ebml("3c83ab", away.encode())
    ordered = ebml("1043a770", ebml("45b9", ebml("45dd", b"\1") + ebml("b6", ebml("73c4", b"\1") + ebml("91", b"\0") + ebml("6e67", bytes(16)))))
    yield Bad("linked.mkv", matroska(ebml("1549a966", linked), ordered, video_track(b"V_VP8", 64, 64), cluster(b"")))
    yield Bad("attached.mkv", base("base/attached.mkv"), "either")
    # ID3v2 with a link in place of the picture.
    link = b"\0-->\0\3\0" + away.encode()
    link = b"APIC" + struct.pack(">IH", len(link), 0) + link
    size = len(link)
    tag = b"ID3\3\0\0" + bytes((size >> shift) & 0x7F for shift in (21, 14, 7, 0)) + link
    yield Bad("picture-link.mp3", tag + base("cover.mp3"), "either")


def odd_times(base):
    mp4 = base("silent.mp4")
    yield Bad("no-length.mp4", edited(mp4, {"stts": lambda payload: full(struct.pack(">III", 1, 50, 0))}), "either")
    # Two frames an age apart: twenty-five a second would be a film of years.
    yield Bad("years.mp4", edited(mp4, {"stts": lambda _: full(struct.pack(">5I", 2, 25, 512, 25, 0x7FFFFFFF))}), "either")
    yield Bad("years.mkv", base("base/years.mkv"))
    yield Bad("days.ts", base("base/small.ts") + base("base/day.ts"), "either")
    yield Bad("backwards.ts", base("base/day.ts") + base("base/small.ts"), "either")
    yield Bad("negative.mkv", base("base/negative.mkv"), "either")
    ctts = full(struct.pack(">I", 50) + struct.pack(">Ii", 1, 0x7FFFFFF) * 25 + struct.pack(">Ii", 1, -0x7FFFFFF) * 25, version=1)
    yield Bad("order-of-ages.mp4", edited(mp4, {"stbl": lambda payload: payload + box("ctts", ctts)}), "either")


def ffmpeg(*words):
    """Runs ffmpeg so that the same words give the same file."""
    out = words[-1]
    os.makedirs(os.path.dirname(out), exist_ok=True)
    text = os.path.join(os.path.dirname(out), "subtitles.srt")
    words = [text if word == "SUBTITLES" else word for word in words]
    if text in words:
        write(text, b"1\n00:00:00,000 --> 00:00:01,000\nHello\n")
    exact = ["-threads", "1", "-fflags", "+bitexact", "-flags:v", "+bitexact", "-flags:a", "+bitexact"]
    try:
        done = subprocess.run(
            ["ffmpeg", "-nostdin", "-hide_banner", "-v", "error", *words[:-1], *(() if "-flags" in words else exact), words[-1]],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip
    except FileNotFoundError:
        sys.exit("these films are made by ffmpeg: install ffmpeg")
    if done.returncode:
        sys.exit(f"{' '.join(words)}\n{done.stderr}")


def read(path):
    with open(path, "rb") as file:
        return file.read()


def write(path, data):
    with open(path, "wb") as file:
        file.write(data)


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("folder", nargs="?", help="below it: good/ and bad/")
    options = arguments.parse_args()
    made = cache()
    if not options.folder:
        print(made)
        return
    for part in ("good", "bad"):
        os.makedirs(os.path.join(options.folder, part), exist_ok=True)
    for film in good():
        shutil.copy(film.path, os.path.join(options.folder, "good"))
    for each in bad(9):
        write(os.path.join(options.folder, "bad", each.name), each.data)


if __name__ == "__main__":
    main()
