#!/usr/bin/python3
"""Makes pictures without any imaging library, and measures those that come back.

    picture.py OUT.jpg|OUT.png WIDTH HEIGHT [SEED]

`jpeg()` writes a baseline JPEG (4:2:0, like a camera's) of any size within a second: it makes up quantised
coefficients instead of transforming pixels, codes some rows of blocks of which each differs a little from the
one above, and repeats those up and down behind restart markers. The result shows coloured curtains, decodes like a
photograph and weighs about as much.
`measure()` reads type and size from the head of a JPEG, PNG, WebP or AVIF, so that a test need not believe
a Content-Type. Same arguments, same bytes.
"""

import random
import struct
import sys
import zlib

# Zig-zag positions of a block that carry detail, lowest frequency first.
_DETAIL_POSITIONS = range(1, 33)
# Enough that the repetition does not show, few enough to be quick.
_DIFFERENT_ROWS = 24
# Which component each block of sixteen by sixteen pixels belongs to: four of light, two of colour.
_BLOCKS = (0, 0, 0, 0, 1, 2)


def jpeg(width, height, seed=0, detail=4):
    """A JPEG of `width` × `height`; each step of `detail` adds about an eighth of a byte per pixel."""
    dice = random.Random(seed)
    blocks_across = -(-width // 16)
    blocks_down = -(-height // 16)
    levels = _first_levels(dice, blocks_across)
    rows = []
    for _ in range(min(_DIFFERENT_ROWS, blocks_down)):
        rows.append(_coded_row(dice, levels, detail))
        levels = [_near(dice, level, 5) for level in levels]
    there_and_back = rows + rows[-2:0:-1]
    scan = bytearray()
    for index in range(blocks_down):
        if index:
            scan += bytes((0xFF, 0xD0 + (index - 1) % 8))
        scan += there_and_back[index % len(there_and_back)]

    # Flat code tables, all codes of one length: a code is then the index of its symbol.
    dc_table = bytes([0x00] + [0, 0, 0, 12] + [0] * 12) + bytes(range(12))
    ac_table = bytes([0x10] + [0] * 7 + [len(_AC_SYMBOLS)] + [0] * 8) + bytes(_AC_SYMBOLS)
    quantisation = bytes([0] + [6 + position // 2 for position in range(64)])
    frame = struct.pack(">BHHB", 8, height, width, 3) + bytes((1, 0x22, 0, 2, 0x11, 0, 3, 0x11, 0))
    scan_head = bytes((3, 1, 0, 2, 0, 3, 0, 0, 63, 0))
    return b"".join(
        (
            b"\xff\xd8",
            _segment(0xE0, b"JFIF\0\1\1\1\0\x48\0\x48\0\0"),
            _segment(0xDB, quantisation),
            _segment(0xC0, frame),
            _segment(0xC4, dc_table),
            _segment(0xC4, ac_table),
            _segment(0xDD, struct.pack(">H", blocks_across)),
            _segment(0xDA, scan_head),
            bytes(scan),
            b"\xff\xd9",
        )
    )


def with_comment(picture, text):
    """The same JPEG with a comment in its head: another file, the same picture."""
    return picture[:2] + _segment(0xFE, text.encode()) + picture[2:]


def png(width, height, seed=0):
    """A PNG (RGB) of `width` × `height`: a gradient."""
    tint = random.Random(seed).randrange(256)
    lines = b"".join(
        b"\0" + b"".join(bytes((x * 255 // width, y * 255 // height, tint)) for x in range(width))
        for y in range(height)
    )
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", zlib.compress(lines)) + _chunk(b"IEND", b"")


def measure(data):
    """`(media type, width, height)` of a picture, read from its own bytes."""
    if data[:3] == b"\xff\xd8\xff":
        return ("image/jpeg", *_jpeg_size(data))
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return ("image/png", *struct.unpack(">II", data[16:24]))
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return ("image/webp", *_webp_size(data))
    if data[4:8] == b"ftyp" and b"avif" in data[8 : int.from_bytes(data[:4], "big")]:
        return ("image/avif", *_avif_size(data))
    raise ValueError(f"not a JPEG, PNG, WebP or AVIF; it begins with {data[:16]!r}")


# Every (zeroes before, bits of value) pair that a coefficient may need, end-of-block first.
_AC_SYMBOLS = [0x00] + [(run << 4) | size for run in range(16) for size in range(1, 11)] + [0xF0]
_AC_CODES = {symbol: format(index, "08b") for index, symbol in enumerate(_AC_SYMBOLS)}


def _first_levels(dice, blocks_across):
    """The mean of every block in the top row: six for each place, wandering from left to right."""
    light, *colours = (dice.randint(-60, 60) for _ in range(3))
    levels = []
    for _ in range(blocks_across):
        levels += [_near(dice, light, 3) for _ in range(4)] + colours
        light = _near(dice, light, 9)
        colours = [_near(dice, colour, 5) for colour in colours]
    return levels


def _near(dice, level, most):
    return max(-90, min(90, level + dice.randint(-most, most)))


def _coded_row(dice, levels, detail):
    bits = []
    before = [0, 0, 0]
    for index, level in enumerate(levels):
        component = _BLOCKS[index % len(_BLOCKS)]
        size, code = _magnitude(level - before[component])
        before[component] = level
        bits.append(format(size, "04b") + code)
        count = detail if component == 0 else detail // 4
        last = 0
        for position in sorted(dice.sample(_DETAIL_POSITIONS, min(count, len(_DETAIL_POSITIONS)))):
            run = position - last - 1
            while run > 15:
                bits.append(_AC_CODES[0xF0])
                run -= 16
            size, code = _magnitude(dice.choice((-3, -2, -1, 1, 2, 3)))
            bits.append(_AC_CODES[(run << 4) | size] + code)
            last = position
        bits.append(_AC_CODES[0x00])
    text = "".join(bits)
    text += "1" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big").replace(b"\xff", b"\xff\0")


def _magnitude(value):
    size = abs(value).bit_length()
    if size == 0:
        return 0, ""
    return size, format(value if value > 0 else value + (1 << size) - 1, f"0{size}b")


def _segment(marker, payload):
    return struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload


def _chunk(kind, payload):
    return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))


def _jpeg_size(data):
    at = 2
    while at < len(data):
        marker, length = struct.unpack(">HH", data[at : at + 4])
        if marker in (0xFFC0, 0xFFC1, 0xFFC2):
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return width, height
        at += 2 + length
    raise ValueError("a JPEG without a frame header")


def _webp_size(data):
    kind = data[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8L":
        packed = int.from_bytes(data[21:25], "little")
        return 1 + (packed & 0x3FFF), 1 + (packed >> 14 & 0x3FFF)
    width, height = struct.unpack("<HH", data[26:30])
    return width & 0x3FFF, height & 0x3FFF


def _avif_size(data):
    # One box for each image in the file; the picture itself is the largest of them.
    sizes = []
    at = data.find(b"ispe")
    while at >= 0:
        sizes.append(struct.unpack(">II", data[at + 8 : at + 16]))
        at = data.find(b"ispe", at + 4)
    return max(sizes)


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    make = png if sys.argv[1].endswith(".png") else jpeg
    with open(sys.argv[1], "wb") as out:
        out.write(make(int(sys.argv[2]), int(sys.argv[3]), int((sys.argv[4:] or [0])[0])))
