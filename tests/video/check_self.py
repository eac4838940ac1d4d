#!/usr/bin/python3
"""Shows that `check.py` finds what it looks for: films of ffmpeg's pass, and each of these changes is found.

A checker that never fails proves nothing. The films are a ladder and a stream as ffmpeg makes them, with a master
playlist written here; every change is made on a copy.
"""

import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile

import check
import inputs

RUNGS = {"360p": (640, 360), "720p": (1280, 720)}
PLAIN = ["-map_metadata", "-1", "-fflags", "+bitexact"]
COLOURS = ["-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709", "-color_range", "tv"]
X264 = ["-c:v", "libx264", "-preset", "ultrafast", "-profile:v", "main", "-crf", "23", "-g", "50", "-keyint_min", "50"]
X264 += ["-sc_threshold", "0", "-pix_fmt", "yuv420p", *COLOURS]


def main():
    with tempfile.TemporaryDirectory(prefix="check-self-") as home:
        sound = os.path.join(home, "good")
        make(sound)
        found = check.check(sound, FILM)
        if found:
            print("what is good was found wrong:\n" + "\n".join(found))
            return 1
        missed = []
        for name, change in CHANGES.items():
            copy = os.path.join(home, "changed")
            shutil.copytree(sound, copy)
            change(copy)
            if not check.check(copy, FILM, hasty=True):
                missed.append(name)
            shutil.rmtree(copy)
    print(f"{len(CHANGES)} changes, {len(CHANGES) - len(missed)} found")
    if missed:
        print("not found:\n" + "\n".join(missed))
    return int(bool(missed))


FILM = next(film for film in inputs.good() if film.name == "ladder.mp4")


def make(folder):
    """What is good. The source is `ladder.mp4`: 5 s of 1280 × 720 with sound."""
    hls = os.path.join(folder, "hls")
    os.makedirs(hls)
    source = FILM.path
    audio = ["-c:a", "aac", "-b:a", "96k", "-ar", "48000", "-ac", "2"]
    for name, (wide, high) in RUNGS.items():
        scale = f"scale={wide}:{high}:in_color_matrix=bt601:out_color_matrix=bt709,setparams=colorspace=bt709:color_primaries=bt709:color_trc=bt709:range=tv"
        out = os.path.join(folder, f"{name}-video.mp4")
        ffmpeg("-i", source, "-vf", scale, *X264, *audio, *PLAIN, "-t", "5", "-movflags", "+faststart", out)
        stream("-i", out, "-map", "0:v", "-c", "copy", home=os.path.join(hls, name))
    stream("-i", source, "-map", "0:a", *audio, home=os.path.join(hls, "audio"))
    master(hls)


def stream(*words, home):
    os.makedirs(home)
    ffmpeg(
        *words, *PLAIN, "-f", "hls", "-hls_time", "2", "-hls_segment_type", "fmp4", "-hls_playlist_type", "vod", "-hls_flags", "independent_segments",
        "-hls_fmp4_init_filename", "init.mp4", "-hls_segment_filename", f"{home}/%03d.m4s", f"{home}/playlist.m3u8",
    )  # fmt: skip


def master(hls):
    def rates(name):
        rows = inputs.read(f"{hls}/{name}/playlist.m3u8").decode().split("\n")
        lengths = [float(row[8:].rstrip(",")) for row in rows if row.startswith("#EXTINF:")]
        sizes = [os.path.getsize(f"{hls}/{name}/{row}") for row in rows if row.endswith(".m4s")]
        return max(8 * size / length for size, length in zip(sizes, lengths)), 8 * sum(sizes) / sum(lengths)

    text = "#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-INDEPENDENT-SEGMENTS\n"
    text += '#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="audio",NAME="Sound",DEFAULT=YES,AUTOSELECT=YES,CHANNELS="2",URI="audio/playlist.m3u8"\n'
    for name, (wide, high) in RUNGS.items():
        (peak, average), (sound_peak, sound_average) = rates(name), rates("audio")
        init = inputs.read(f"{hls}/{name}/init.mp4")
        codec = init[init.index(b"avcC") + 5 :][:3].hex()
        text += f"#EXT-X-STREAM-INF:BANDWIDTH={peak + sound_peak:.0f},AVERAGE-BANDWIDTH={average + sound_average:.0f},"
        text += f'CODECS="avc1.{codec},mp4a.40.2",RESOLUTION={wide}x{high},FRAME-RATE=25.000,AUDIO="audio"\n{name}/playlist.m3u8\n'
    inputs.write(f"{hls}/playlist.m3u8", text.encode())


def ffmpeg(*words):
    subprocess.run(["ffmpeg", "-nostdin", "-v", "error", "-y", *words], check=True)


# Changes


def replaced(path, old, new, count=1):
    """A change of the text in a file; one that changes nothing is a mistake here."""

    def change(folder):
        data = inputs.read(os.path.join(folder, path)).decode()
        after = re.sub(old, new, data, count=count)
        if after == data:
            raise SystemExit(f"{old} is not in {path}")
        inputs.write(os.path.join(folder, path), after.encode())

    return change


def edited(path, changes):
    """A change of the payloads of boxes."""

    def change(folder):
        place = os.path.join(folder, path)
        data = inputs.read(place)
        after = inputs.edited(data, changes)
        if after == data:
            raise SystemExit(f"{path} is what it was")
        inputs.write(place, after)

    return change


def made(path, *words):
    """A file made again from itself, with these words for ffmpeg."""

    def change(folder):
        place = os.path.join(folder, path)
        ffmpeg("-i", place, *words, place + ".new.mp4")
        os.rename(place + ".new.mp4", place)

    return change


def removed(path):
    return lambda folder: os.remove(os.path.join(folder, path))


def added(path, data=b"x"):
    return lambda folder: inputs.write(os.path.join(folder, path), data)


def swapped(one, other):
    def change(folder):
        one_data, other_data = (inputs.read(os.path.join(folder, path)) for path in (one, other))
        inputs.write(os.path.join(folder, one), other_data)
        inputs.write(os.path.join(folder, other), one_data)

    return change


def noise(path, at):
    def change(folder):
        place = os.path.join(folder, path)
        data = bytearray(inputs.read(place))
        begin = int(len(data) * at)
        data[begin : begin + 200] = bytes(200)
        inputs.write(place, bytes(data))

    return change


def turned(folder):
    path = os.path.join(folder, "720p-video.mp4")
    inputs.write(path, inputs.turned(inputs.read(path), (0, 1, -1, 0)))


def upside_down(folder):
    made("720p-video.mp4", *X264, "-vf", "vflip", "-c:a", "copy", *FAST)(folder)


def grown(payload):
    return payload[:-8] + struct.pack(">II", 1920 << 16, 1080 << 16) if payload[-8:] != bytes(8) else payload


def ends_early(folder):
    """Its playlist without the last segment, which stays."""
    path = os.path.join(folder, "hls/720p/playlist.m3u8")
    rows = inputs.read(path).decode().strip().split("\n")
    inputs.write(path, "\n".join(rows[:-3] + rows[-1:] + [""]).encode())


FAST = ["-movflags", "+faststart"]
COPY = ["-c", "copy", *PLAIN]
SEVEN, MASTER = "hls/720p/playlist.m3u8", "hls/playlist.m3u8"
CHANGES = {
    "index behind the media": made("720p-video.mp4", *COPY),
    "fragments": made("720p-video.mp4", *COPY, "-movflags", "frag_keyframe+empty_moov"),
    "turned by a matrix": turned,
    "upside down": upside_down,
    "a place": made("720p-video.mp4", "-c", "copy", "-metadata", f"location={inputs.PLACE}/", *FAST),
    "two sounds": made("720p-video.mp4", "-map", "0", "-map", "0:a", *COPY, *FAST),
    "no sound": made("720p-video.mp4", "-map", "0:v", *COPY, *FAST),
    "sound too short": made("720p-video.mp4", "-c:v", "copy", "-af", "atrim=0:4.5", *PLAIN, *FAST),
    "sound too long": made("720p-video.mp4", "-c:v", "copy", "-af", "apad=pad_dur=1", *PLAIN, *FAST),
    "too short": made("720p-video.mp4", "-c", "copy", "-t", "4", *PLAIN, *FAST),
    "key frames elsewhere": made("720p-video.mp4", *X264, "-g", "40", "-keyint_min", "40", "-c:a", "copy", *FAST),
    "key frames too rare": made("720p-video.mp4", *X264, "-g", "125", "-keyint_min", "125", "-c:a", "copy", *FAST),
    "another rate": made("720p-video.mp4", *X264, "-r", "24", "-c:a", "copy", *FAST),
    "no regular rate": made("720p-video.mp4", *X264, "-vf", "setpts='PTS+if(mod(N,2),0.3,0)/25/TB'", "-fps_mode", "vfr", "-enc_time_base", "1/1000", "-c:a", "copy", *FAST),
    "larger than its source": made("720p-video.mp4", *X264, "-vf", "scale=1920:1080", "-c:a", "copy", *FAST),
    "another shape": made("720p-video.mp4", *X264, "-vf", "scale=960:720", "-c:a", "copy", *FAST),
    "pixels that are not square": made("720p-video.mp4", *X264, "-vf", "setsar=4/3", "-c:a", "copy", *FAST),
    "shown in another size": edited("720p-video.mp4", {"tkhd": grown}),
    "tags of HDR": made("720p-video.mp4", *X264, "-color_trc", "smpte2084", "-colorspace", "bt2020nc", "-c:a", "copy", *FAST),
    "no tags of colours": made("720p-video.mp4", "-c", "copy", "-bsf:v", "h264_metadata=colour_primaries=2:transfer_characteristics=2:matrix_coefficients=2", *PLAIN, *FAST),
    "wrong colours": made("720p-video.mp4", *X264, "-vf", "hue=s=0.5", "-c:a", "copy", *FAST),
    "ten bits": made("720p-video.mp4", *X264, "-profile:v", "high10", "-pix_fmt", "yuv420p10le", "-c:a", "copy", *FAST),
    "HEVC": made("720p-video.mp4", "-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=none", "-c:a", "copy", *FAST),
    "noise in the media": noise("720p-video.mp4", 0.5),
    "cut off": lambda folder: os.truncate(os.path.join(folder, "720p-video.mp4"), 300_000),
    "something left over": added("720p-video.mp4.tmp"),
    "no version": replaced(SEVEN, "#EXT-X-VERSION:7\n", ""),
    "version 3": replaced(SEVEN, "VERSION:7", "VERSION:3"),
    "target too short": replaced(SEVEN, r"TARGETDURATION:\d+", "TARGETDURATION:1"),
    "no target": replaced(SEVEN, r"#EXT-X-TARGETDURATION:\d+\n", ""),
    "an event": replaced(SEVEN, "TYPE:VOD", "TYPE:EVENT"),
    "no end": replaced(SEVEN, "#EXT-X-ENDLIST\n", ""),
    "no map": replaced(SEVEN, r"#EXT-X-MAP.*\n", ""),
    "map that is not there": replaced(SEVEN, "init.mp4", "start.mp4"),
    "a wrong length": replaced(SEVEN, r"#EXTINF:2\.0", "#EXTINF:1.9"),
    "a length that is no number": replaced(SEVEN, r"#EXTINF:2\.0", "#EXTINF:two"),
    "a tag from elsewhere": replaced(SEVEN, "#EXT-X-MAP", "#EXT-X-GAP\n#EXT-X-MAP"),
    "a segment that is not there": removed("hls/720p/001.m4s"),
    "a segment nobody mentions": ends_early,
    "segments in another order": swapped("hls/720p/000.m4s", "hls/720p/001.m4s"),
    "noise in a segment": noise("hls/720p/001.m4s", 0.6),
    "a segment of another variant": lambda folder: shutil.copy(f"{folder}/hls/360p/001.m4s", f"{folder}/hls/720p/001.m4s"),
    "a map of another variant": lambda folder: shutil.copy(f"{folder}/hls/360p/init.mp4", f"{folder}/hls/720p/init.mp4"),
    "another host": replaced(SEVEN, "000.m4s", "http://127.0.0.1/000.m4s"),
    "out of the folder": replaced(SEVEN, "000.m4s", "../720p/000.m4s"),
    "not a playlist": replaced(SEVEN, "#EXTM3U", "#EXTM3V"),
    "segments that do not stand alone": replaced(MASTER, "#EXT-X-INDEPENDENT-SEGMENTS\n", ""),
    "too little bandwidth": replaced(MASTER, r"[:,]BANDWIDTH=(\d+)\d", r":BANDWIDTH=\1"),
    "too much bandwidth": replaced(MASTER, r":BANDWIDTH=(\d+)", r":BANDWIDTH=\g<1>0"),
    "a wrong average": replaced(MASTER, r"AVERAGE-BANDWIDTH=(\d)", r"AVERAGE-BANDWIDTH=9\1"),
    "another codec": replaced(MASTER, r"avc1\.\w+", "avc1.42C00B"),
    "no codec for the sound": replaced(MASTER, ",mp4a.40.2", ""),
    "another resolution": replaced(MASTER, "640x360", "640x362"),
    "another frame rate": replaced(MASTER, "FRAME-RATE=25.000", "FRAME-RATE=24.000"),
    "no such group": replaced(MASTER, 'AUDIO="audio"', 'AUDIO="sound"'),
    "no group": replaced(MASTER, r"#EXT-X-MEDIA.*\n", ""),
    "a variant that is not there": replaced(MASTER, "360p/playlist", "480p/playlist"),
    "the same variant twice": replaced(MASTER, r"(#EXT-X-STREAM-INF.*\n.*\n)", r"\1\1"),
    "attributes without order": replaced(MASTER, ",RESOLUTION", ";RESOLUTION"),
}  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
