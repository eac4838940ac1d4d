"""Reads MP4, whole and in fragments, strictly: what does not add up is `Wrong`, and nothing is guessed.

`read_movie` takes a file or the map of a stream, `read_segment` a segment of one; what comes out are tracks with their
samples, in the clock of the track, and edits as they stand there.
"""

import dataclasses
import struct


class Wrong(Exception):
    """Something that cannot be read any further."""


@dataclasses.dataclass
class Sample:
    at: int
    length: int
    shown: int
    key: bool
    size: int


@dataclasses.dataclass
class Track:
    number: int
    kind: str
    scale: int
    matrix: bytes
    wide: int = 0
    high: int = 0
    shown_size: tuple = ()
    entry: str = ""
    codec: str = ""
    pixel: tuple = (1, 1)
    colour: tuple = ()
    samples: list = dataclasses.field(default_factory=list)
    # `(length in the movie's clock, from)`
    edits: list = dataclasses.field(default_factory=list)
    movie_scale: int = 1000
    default: tuple = (0, 0, 0)

    def start_s(self):
        """When its first picture or sound is due."""
        return min(sample.shown for sample in self.samples) / self.scale + self.shift_s()

    def end_s(self):
        end = max(sample.shown + sample.length for sample in self.samples) / self.scale + self.shift_s()
        lengths = [length for length, _ in self.edits]
        return min(end, sum(lengths) / self.movie_scale) if self.edits and all(lengths) else end

    def shift_s(self):
        """What edits add to the media's own time."""
        shift = 0.0
        for length, start in self.edits:
            if start < 0:
                shift += length / self.movie_scale
            else:
                return shift - start / self.scale
        return shift

    def keys_s(self):
        return sorted(sample.shown / self.scale + self.shift_s() for sample in self.samples if sample.key)

    def fps(self):
        lengths = sum(sample.length for sample in self.samples)
        return len(self.samples) * self.scale / lengths if lengths else 0

    def bits(self):
        return 8 * sum(sample.size for sample in self.samples)


@dataclasses.dataclass
class Movie:
    tracks: list
    order: list
    data: bytes

    def one(self, kind):
        found = [track for track in self.tracks if track.kind == kind]
        if len(found) > 1:
            raise Wrong(f"it has {len(found)} {kind} tracks")
        return found[0] if found else None

    @property
    def video(self):
        return self.one("vide")

    @property
    def audio(self):
        return self.one("soun")


def strict_boxes(data, where):
    at = 0
    while at < len(data):
        if at + 8 > len(data):
            raise Wrong(f"{len(data) - at} bytes are left over in {where}")
        size, kind = struct.unpack_from(">I4s", data, at)
        head = 8
        if size == 1:
            size, head = struct.unpack_from(">Q", data, at + 8)[0], 16
        if size < head or at + size > len(data):
            raise Wrong(f"box {kind!r} in {where} says that it is of {size} bytes")
        yield kind.decode("latin-1"), data[at + head : at + size], at
        at += size


def child(data, *path):
    for kind in path:
        data = next((payload for name, payload, _ in strict_boxes(data, kind) if name == kind), None)
        if data is None:
            return None
    return data


def needed(data, *path):
    found = child(data, *path)
    if found is None:
        raise Wrong(f"it has no {'/'.join(path)}")
    return found


def read_movie(data):
    order = [kind for kind, _, _ in strict_boxes(data, "the file")]
    moov = needed(data, "moov")
    _, movie_scale = times(needed(moov, "mvhd"))
    tracks = []
    for kind, payload, _ in strict_boxes(moov, "moov"):
        if kind == "trak":
            tracks.append(read_track(payload, movie_scale))
    extends = child(moov, "mvex")
    for kind, payload, _ in strict_boxes(extends or b"", "mvex"):
        if kind == "trex":
            number, _, *default = struct.unpack_from(">5I", payload, 4)
            next(track for track in tracks if track.number == number).default = tuple(default)
    return Movie(tracks, order, data)


def times(payload):
    """`(offset behind, timescale)` of an mvhd or mdhd."""
    at = 20 if payload[0] == 1 else 12
    return at + 4, struct.unpack_from(">I", payload, at)[0]


def read_track(trak, movie_scale):
    head = needed(trak, "tkhd")
    number = struct.unpack_from(">I", head, 20 if head[0] == 1 else 12)[0]
    size = tuple(value / 65536 for value in struct.unpack(">II", head[-8:]))
    mdia = needed(trak, "mdia")
    kind = needed(mdia, "hdlr")[8:12].decode("latin-1")
    _, scale = times(needed(mdia, "mdhd"))
    if not scale:
        raise Wrong("its clock stands still")
    track = Track(number, kind, scale, head[-44:-8], shown_size=size, movie_scale=movie_scale)
    stbl = needed(mdia, "minf", "stbl")
    read_description(track, needed(stbl, "stsd"))
    edits = child(trak, "edts", "elst")
    if edits:
        form = ">QqI" if edits[0] == 1 else ">IiI"
        count = struct.unpack_from(">I", edits, 4)[0]
        for at in range(count):
            length, start, rate = struct.unpack_from(form, edits, 8 + at * struct.calcsize(form))
            if rate != 1 << 16:
                raise Wrong(f"an edit runs at a rate of {rate / 65536}")
            track.edits.append((length, start))
    read_table(track, stbl)
    return track


def read_description(track, stsd):
    entries = list(strict_boxes(stsd[8:], "stsd"))
    if len(entries) != 1:
        raise Wrong(f"a track has {len(entries)} descriptions")
    track.entry, entry, _ = entries[0]
    if track.kind == "vide":
        track.wide, track.high = struct.unpack_from(">HH", entry, 24)
        inner = {kind: payload for kind, payload, _ in strict_boxes(entry[78:], track.entry)}
        if "avcC" in inner:
            track.codec = "avc1." + inner["avcC"][1:4].hex().upper()
        if "pasp" in inner:
            track.pixel = struct.unpack(">II", inner["pasp"][:8])
        if "colr" in inner and inner["colr"][:4] in (b"nclx", b"nclc"):
            track.colour = struct.unpack_from(">3H", inner["colr"], 4)
    elif track.kind == "soun":
        inner = {kind: payload for kind, payload, _ in strict_boxes(entry[28:], track.entry)}
        if "esds" in inner:
            track.codec = aac(inner["esds"][4:])


def aac(payload):
    """`mp4a.40.2` and the like, from the descriptors."""
    at = 0
    object_type = 0
    while at < len(payload):
        tag, at = payload[at], at + 1
        size = 0
        while True:
            byte, at = payload[at], at + 1
            size = size << 7 | byte & 0x7F
            if byte < 0x80:
                break
        if tag == 3:
            at += 3
        elif tag == 4:
            object_type = payload[at]
            at += 13
        elif tag == 5:
            return f"mp4a.{object_type:x}.{payload[at] >> 3}"
        else:
            at += size
    raise Wrong("its esds has no configuration")


def read_table(track, stbl):
    def entries(kind, form, required=True):
        payload = needed(stbl, kind) if required else child(stbl, kind)
        if payload is None:
            return None
        count = struct.unpack_from(">I", payload, 4)[0]
        return [struct.unpack_from(form, payload, 8 + at * struct.calcsize(form)) for at in range(count)]

    lengths = [length for count, length in entries("stts", ">II") for _ in range(count)]
    same, count = struct.unpack_from(">II", needed(stbl, "stsz"), 4)
    sizes = [same] * count if same else [size for (size,) in struct.iter_unpack(">I", needed(stbl, "stsz")[12 : 12 + 4 * count])]
    offsets = [offset for count, offset in entries("ctts", ">Ii", False) or [(count, 0)] for _ in range(count)]
    keys = entries("stss", ">I", False)
    keys = set(range(1, count + 1)) if keys is None else {number for (number,) in keys}
    if not len(lengths) == len(sizes) == len(offsets):
        raise Wrong(f"its tables disagree: {len(lengths)} times, {len(sizes)} sizes, {len(offsets)} offsets")
    at = 0
    for number, (length, size, offset) in enumerate(zip(lengths, sizes, offsets), 1):
        track.samples.append(Sample(at, length, at + offset, number in keys, size))
        at += length


def read_segment(data, track):
    """The samples of one segment of a stream."""
    samples = []
    kinds = []
    for kind, payload, at in strict_boxes(data, "a segment"):
        kinds.append(kind)
        if kind != "moof":
            continue
        traf = needed(payload, "traf")
        head = needed(traf, "tfhd")
        flags, number = struct.unpack_from(">II", head)
        if number != track.number:
            raise Wrong(f"a segment is of track {number}, not {track.number}")
        cursor = 8
        length, size, sample_flags = track.default
        for bit, form in ((1, "Q"), (2, "I"), (8, "I"), (16, "I"), (32, "I")):
            if flags & bit:
                (value,) = struct.unpack_from(">" + form, head, cursor)
                cursor += struct.calcsize(form)
                length = value if bit == 8 else length
                size = value if bit == 16 else size
                sample_flags = value if bit == 32 else sample_flags
        tfdt = needed(traf, "tfdt")
        (now,) = struct.unpack_from(">Q" if tfdt[0] == 1 else ">I", tfdt, 4)
        if samples and samples[-1].at + samples[-1].length != now:
            raise Wrong(f"a fragment begins at {now}, and the one before ends at {samples[-1].at + samples[-1].length}")
        for kind, run, _ in strict_boxes(traf, "traf"):
            if kind == "trun":
                now = read_run(run, now, (length, size, sample_flags), samples)
    if kinds.count("moof") == 0 or kinds.count("moof") != kinds.count("mdat"):
        raise Wrong(f"a segment is made of {' '.join(kinds)}")
    return samples


def read_run(run, now, defaults, samples):
    flags, count = struct.unpack_from(">II", run)
    flags, version = flags & 0xFFFFFF, run[0]
    cursor = 8 + (4 if flags & 1 else 0)
    first = None
    if flags & 4:
        (first,) = struct.unpack_from(">I", run, cursor)
        cursor += 4
    for number in range(count):
        length, size, sample_flags = defaults
        if number == 0 and first is not None:
            sample_flags = first
        offset = 0
        for bit in (0x100, 0x200, 0x400, 0x800):
            if not flags & bit:
                continue
            (value,) = struct.unpack_from(">i" if bit == 0x800 and version else ">I", run, cursor)
            cursor += 4
            if bit == 0x100:
                length = value
            elif bit == 0x200:
                size = value
            elif bit == 0x400:
                sample_flags = value
            else:
                offset = value
        samples.append(Sample(now, length, now + offset, not sample_flags & 0x10000, size))
        now += length
    return now
