"""Hostile pictures, made by hand: each claims, hides or promises more than it holds.

`all_files()` yields `(name, bytes)`; the name's ending is what a browser would send. Nothing here is large: what
swells does so only when it is believed. Same bytes every time. Standard library only.
"""

import gzip
import os
import struct
import zlib

GOLDEN = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "golden", "inputs")
MOST = 0xFFFFFFFF


def all_files(million=1_000_000):
    """`million` is how many frames, paths and so on the files have that live by their number."""
    yield from nothing()
    yield from pngs(million)
    yield from jpegs()
    yield from gifs(million)
    yield from webps()
    yield from tiffs()
    yield from boxes()
    yield from drawings(million)
    yield from documents()
    yield from others()
    yield from liars()


def golden(name):
    with open(os.path.join(GOLDEN, name), "rb") as file:
        return file.read()


def nothing():
    yield "zero.jpg", b""
    yield "one.jpg", b"\xff"
    yield "two.jpg", b"\xff\xd8"
    for name in sorted(os.listdir(GOLDEN)):
        if name.endswith(("_420.jpg", "_8.png", "_still.gif", "_lossy.webp", "_444.avif", "_420.heic", "_plain.tif", "_24.bmp")):
            # The beginning alone, as far as recognition looks.
            yield f"head-of-{name}", golden(name)[:32]


# PNG


def chunk(kind, payload, crc=None):
    crc = zlib.crc32(kind + payload) if crc is None else crc
    return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", crc)


def png(wide, high, depth, colour, *between, data=None, interlaced=0, end=True):
    head = struct.pack(">IIBBBBB", wide, high, depth, colour, 0, 0, interlaced)
    data = zlib.compress(bytes(1000)) if data is None else data
    parts = [b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", head), *between, chunk(b"IDAT", data)]
    return b"".join(parts) + (chunk(b"IEND", b"") if end else b"")


def zeros(size):
    """So many zeros, deflated, without holding them."""
    squeeze = zlib.compressobj(9)
    out = [squeeze.compress(bytes(1 << 20)) for _ in range(size >> 20)]
    return b"".join(out) + squeeze.compress(bytes(size & 0xFFFFF)) + squeeze.flush()


def pngs(million):
    grey, colour = 0, 2
    yield "60000x60000.png", png(60_000, 60_000, 1, grey)
    yield "2-to-the-31.png", png(0x7FFFFFFF, 0x7FFFFFFF, 16, 6)
    yield "no-pixels.png", png(0, 0, 8, grey)
    # Within the limits, and nearly nothing on the disk: this one may be decoded.
    yield "90-megapixels-of-zeros.png", png(30_000, 3_000, 1, grey, data=zeros(3_000 * (30_000 // 8 + 1)))
    yield "one-column-interlaced.png", png(1, 30_000, 16, 6, interlaced=1, data=zeros(30_000 * 9))
    swollen = zeros(200 << 20)
    yield "ztxt-bomb.png", png(8, 8, 8, grey, chunk(b"zTXt", b"Comment\0\0" + swollen))
    yield "itxt-bomb.png", png(8, 8, 8, grey, chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + swollen))
    yield "iccp-bomb.png", png(8, 8, 8, grey, chunk(b"iCCP", b"icc\0\0" + swollen))
    yield "many-ztxt-bombs.png", png(8, 8, 8, grey, *[chunk(b"zTXt", b"C\0\0" + zeros(1 << 20))] * 2000)
    yield "idat-bomb.png", png(8, 8, 8, grey, data=zeros(200 << 20))
    yield "exif-bomb.png", png(8, 8, 8, grey, chunk(b"eXIf", exif_flood()))
    yield "bad-crc.png", png(8, 8, 8, grey)[:-20] + bytes(20)
    yield "chunk-of-4-gb.png", png(8, 8, 8, grey)[:33] + struct.pack(">I", MOST) + b"IDAT" + bytes(100)
    yield "chunk-of-2-gb.png", png(8, 8, 8, grey)[:33] + struct.pack(">I", 0x7FFFFFFF) + b"tEXt" + bytes(100)
    frames = [chunk(b"acTL", struct.pack(">II", MOST, 0))]
    still = chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 8, 8, 0, 0, 0, 1, 0, 0))
    for number in range(million // 50):
        frames.append(chunk(b"fcTL", struct.pack(">IIIIIHHBB", 2 * number + 1, 1, 1, 0, 0, 0, 1, 0, 0)))
        frames.append(chunk(b"fdAT", struct.pack(">I", 2 * number + 2) + b"\x78\x01\x63\x60\0\0\0\2\0\1"))
    yield "many-frames.png", png(8, 8, 8, grey, frames[0], still) [:-12] + b"".join(frames[1:]) + chunk(b"IEND", b"")
    yield "frame-outside.png", png(8, 8, 8, colour, frames[0], chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, MOST, MOST, MOST, MOST, 0, 0, 9, 9)))


# JPEG


def segment(marker, payload):
    return struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload


def jpeg_with(*segments, name="jpeg_420.jpg"):
    data = golden(name)
    return data[:2] + b"".join(segments) + data[2:]


def resized(data, wide, high):
    """The same JPEG with another size in its frame header."""
    at = next(data.index(marker) for marker in (b"\xff\xc0", b"\xff\xc2") if marker in data)
    return data[: at + 5] + struct.pack(">HH", high, wide) + data[at + 9 :]


def tiff_directory(entries, following=0, at=8):
    out = struct.pack(">H", len(entries))
    for tag, kind, count, value in entries:
        out += struct.pack(">HHII", tag, kind, count, value)
    return out + struct.pack(">I", following)


def exif_recursive():
    """Directories that follow one another in a circle."""
    return b"MM\0*\0\0\0\x08" + tiff_directory([(0x8769, 4, 1, 8), (0x8825, 4, 1, 8), (0x014A, 4, 1, 8)], following=8)


def exif_lies():
    """Values at the end of the world, four thousand million of them."""
    return b"MM\0*\0\0\0\x08" + tiff_directory([(0x010F, 2, MOST, 8), (0x0110, 12, MOST, MOST - 3), (0x9003, 2, 20, MOST)])


def exif_flood():
    """Five thousand values, all of the same fifty thousand bytes."""
    entries = [(0x0100 + number, 2, 50_000, 26) for number in range(5_000)]
    return b"MM\0*\0\0\0\x08" + tiff_directory(entries) + b"x" * 1000


def jpegs():
    plain, progressive = golden("jpeg_420.jpg"), golden("jpeg_progressive.jpg")
    yield "65535x65535.jpg", resized(plain, 65_535, 65_535)
    yield "no-height.jpg", resized(plain, 96, 0)
    yield "9000x9000-cut-short.jpg", resized(plain, 9_000, 9_000)
    # Every scan is a pass over all the pixels that the header claims.
    first = progressive.index(b"\xff\xda")
    scans = progressive[first:-2]
    yield "thousand-scans.jpg", resized(progressive, 9_000, 9_000)[:first] + scans * 1000 + b"\xff\xd9"
    yield "thousand-small-scans.jpg", progressive[:first] + scans * 1000 + b"\xff\xd9"
    yield "endless-restarts.jpg", jpeg_with(name="jpeg_restart.jpg")[:-2] + b"\xff\xd0" * 100_000
    yield "endless-fill.jpg", plain[:2] + b"\xff" * 5_000_000 + plain[2:]
    yield "endless-comments.jpg", jpeg_with(*[segment(0xFE, b"x" * 60_000)] * 200)
    yield "exif-recursive.jpg", jpeg_with(segment(0xE1, b"Exif\0\0" + exif_recursive()))
    yield "exif-lies.jpg", jpeg_with(segment(0xE1, b"Exif\0\0" + exif_lies()))
    yield "exif-flood.jpg", jpeg_with(segment(0xE1, b"Exif\0\0" + exif_flood()[:65_000]))
    yield "many-exifs.jpg", jpeg_with(*[segment(0xE1, b"Exif\0\0" + exif_recursive())] * 500)
    yield "icc-of-255-parts.jpg", jpeg_with(*[segment(0xE2, b"ICC_PROFILE\0" + bytes((n, 255)) + bytes(60_000)) for n in range(1, 255)])
    yield "icc-lies.jpg", jpeg_with(segment(0xE2, b"ICC_PROFILE\0\1\1" + struct.pack(">I", MOST) + bytes(124) + struct.pack(">I", MOST) + b"rTRC" * 10))
    yield "xmp-entities.jpg", jpeg_with(segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + entity_bomb()))
    yield "iptc-lies.jpg", jpeg_with(segment(0xED, b"Photoshop 3.0\x008BIM\x04\x04\0\0" + struct.pack(">I", MOST) + b"\x1c\x02\x19\xff\xff\xff\xff\xff"))
    yield "twelve-bits.jpg", plain.replace(plain[plain.index(b"\xff\xc0") : plain.index(b"\xff\xc0") + 5], plain[plain.index(b"\xff\xc0") : plain.index(b"\xff\xc0") + 4] + b"\x0c")
    page = b"<html><script>alert(document.domain)</script>"
    yield "polyglot.jpg", jpeg_with(segment(0xFE, page)) + page
    yield "polyglot.html", jpeg_with(segment(0xFE, page)) + page


# GIF, WebP


def gifs(million):
    def gif(wide, high, frames):
        return b"GIF89a" + struct.pack("<HHBBB", wide, high, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff" + frames + b";"

    frame = b"," + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\0"
    yield "million-frames.gif", gif(1, 1, frame * million)
    yield "screen-of-65535.gif", gif(65_535, 65_535, frame)
    yield "frame-of-65535.gif", gif(1, 1, b"," + struct.pack("<HHHHB", 0, 0, 65_535, 65_535, 0) + b"\x02\x02\x44\x01\0")
    yield "frame-outside.gif", gif(8, 8, b"," + struct.pack("<HHHHB", 65_535, 65_535, 8, 8, 0) + b"\x02\x02\x44\x01\0")
    yield "no-frame.gif", gif(100, 100, b"")
    yield "endless-comment.gif", gif(8, 8, b"!\xfe" + (b"\xff" + b"x" * 255) * 20_000)
    yield "lzw-twelve.gif", gif(8, 8, b"," + struct.pack("<HHHHB", 0, 0, 8, 8, 0) + b"\x0c" + (b"\xff" + b"\xff" * 255) * 50 + b"\0")


def webps():
    def riff(*chunks):
        body = b"WEBP" + b"".join(kind + struct.pack("<I", len(data)) + data + bytes(len(data) % 2) for kind, data in chunks)
        return b"RIFF" + struct.pack("<I", len(body)) + body

    vast = b"\x2f" + struct.pack("<I", 0x3FFF | 0x3FFF << 14) + bytes(100)
    yield "16384x16384-lossless.webp", riff((b"VP8L", vast))
    yield "16383x16383.webp", riff((b"VP8 ", b"\x10\2\0\x9d\x01\x2a\xff\x3f\xff\x3f" + bytes(100)))
    yield "canvas-of-2-to-the-24.webp", riff((b"VP8X", b"\x02\0\0\0" + b"\xff" * 6), (b"VP8L", vast))
    frame = b"\0" * 6 + b"\0" * 6 + b"\1\0\0\0" + b"VP8L" + struct.pack("<I", 10) + b"\x2f" + bytes(9)
    yield "many-frames.webp", riff((b"VP8X", b"\x02\0\0\0" + bytes(6)), (b"ANIM", bytes(6)), *[(b"ANMF", frame)] * 50_000)
    yield "size-lies.webp", golden("webp_lossy.webp")[:4] + struct.pack("<I", MOST) + golden("webp_lossy.webp")[8:]
    yield "chunk-lies.webp", golden("webp_lossy.webp")[:16] + struct.pack("<I", MOST) + golden("webp_lossy.webp")[20:]


# TIFF


def tiffs():
    def tiff(*entries, following=0):
        return b"MM\0*\0\0\0\x08" + tiff_directory(list(entries), following) + bytes(500)

    short, long = 3, 4

    def head(wide, high, bits=8, compression=1):
        return [(256, long, 1, wide), (257, long, 1, high), (258, short, 1, bits << 16), (259, short, 1, compression << 16),
                (262, short, 1, 1 << 16), (277, short, 1, 1 << 16)]  # fmt: skip

    strips = [(273, long, 1, 8), (278, long, 1, 100), (279, long, 1, 100)]
    yield "2-to-the-32.tif", tiff(*head(MOST, MOST), *strips)
    yield "tile-count.tif", tiff(*head(10_000, 10_000), (322, long, 1, 16), (323, long, 1, 16), (324, long, MOST, 8), (325, long, MOST, 8))
    yield "strip-count.tif", tiff(*head(100, 100), (273, long, MOST, 8), (278, long, 1, 1), (279, long, MOST, 8))
    yield "tiles-of-nothing.tif", tiff(*head(100, 100), (322, long, 1, 0), (323, long, 1, 0), (324, long, 1, 8), (325, long, 1, 8))
    yield "vast-tile.tif", tiff(*head(100, 100), (322, long, 1, 1 << 30), (323, long, 1, 1 << 30), (324, long, 1, 8), (325, long, 1, 8))
    yield "linked-to-itself.tif", tiff(*head(100, 100), *strips, (330, long, 1, 8), following=8)
    yield "bits.tif", tiff(*head(100, 100, bits=65_535), *strips)
    yield "samples.tif", tiff(*head(100, 100)[:-1], (277, short, 1, 65_535 << 16), *strips)
    yield "nothing-in-it.tif", tiff()
    for compression in (2, 3, 4, 5, 6, 7, 8, 32773, 32946, 34676, 50000, 50001, 65535):
        yield f"compressed-by-{compression}.tif", tiff(*head(9_000, 9_000, compression=compression), *strips)
    bomb = zeros(100 << 20)
    entries = head(10_000, 10_000, compression=8) + [(273, long, 1, 200), (278, long, 1, 10_000), (279, long, 1, len(bomb))]
    # Within the limits: this one may be decoded.
    yield "100-megapixels-of-zeros.tif", (b"MM\0*\0\0\0\x08" + tiff_directory(entries)).ljust(200, b"\0") + bomb


# HEIC, AVIF, JPEG XL, JPEG 2000


def box(kind, payload, size=None):
    return struct.pack(">I", len(payload) + 8 if size is None else size) + kind + payload


def boxes():
    for kind, name in (("avif", "avif_444.avif"), ("heic", "heic_420.heic")):
        data = golden(name)
        at = data.index(b"ispe") + 8
        yield f"claims-2-to-the-31.{kind}", data[:at] + struct.pack(">II", 0x7FFFFFFF, 0x7FFFFFFF) + data[at + 8 :]
        yield f"claims-9000.{kind}", data[:at] + struct.pack(">II", 9_000, 9_000) + data[at + 8 :]
        at = data.index(b"iloc")
        brand = box(b"ftyp", kind.encode() + bytes(4) + b"mif1" + kind.encode() + b"miaf")
        for version in (0, 1, 2):
            items = b"\xff" * 2 if version < 2 else b"\xff" * 4
            extents = struct.pack(">HHHH", 1, 0, 0, 65_535) + struct.pack(">II", 0, MOST) * 1000
            flood = box(b"iloc", bytes((version, 0, 0, 0)) + b"\x44\x00" + items + extents)
            meta = box(b"meta", bytes(4) + box(b"hdlr", bytes(8) + b"pict" + bytes(13)) + box(b"pitm", bytes(4) + b"\0\1") + flood)
            yield f"iloc-flood-{version}.{kind}", brand + meta
        grid = bytes((0, 1, 255, 255)) + struct.pack(">II", MOST, MOST)
        code = b"av01" if kind == "avif" else b"hvc1"
        infe = [box(b"infe", bytes((2, 0, 0, 0)) + struct.pack(">HH", n, 0) + (b"grid" if n == 1 else code) + b"\0") for n in (1, 2)]
        parts = box(b"hdlr", bytes(8) + b"pict" + bytes(13)) + box(b"pitm", bytes(4) + b"\0\1")
        parts += box(b"iinf", bytes(4) + b"\0\2" + b"".join(infe))
        refs = struct.pack(">HH", 1, 65_535) + b"\0\2" * 65_535
        parts += box(b"iref", bytes(4) + box(b"dimg", refs))
        parts += box(b"iprp", box(b"ipco", box(b"ispe", bytes(4) + struct.pack(">II", 9_000, 9_000))) + box(b"ipma", bytes(4) + struct.pack(">IHBB", 1, 1, 1, 1)))
        parts += box(b"idat", grid) + box(b"iloc", bytes((1, 0, 0, 0)) + b"\x44\x00\0\1" + struct.pack(">HHHH", 1, 1, 0, 1) + struct.pack(">II", 0, len(grid)))
        yield f"grid-of-65535.{kind}", brand + box(b"meta", bytes(4) + parts)
        circle = box(b"iref", bytes(4) + box(b"dimg", struct.pack(">HHH", 1, 1, 1)))
        yield f"grid-of-itself.{kind}", brand + box(b"meta", bytes(4) + parts.replace(box(b"iref", bytes(4) + box(b"dimg", refs)), circle))
        for size in (0, 1, 7, MOST):
            yield f"box-of-{size}.{kind}", brand + box(b"meta", bytes(100), size)
        deep = b""
        for _ in range(2_000):
            deep = box(b"meta", deep)
        yield f"deep.{kind}", brand + deep
    yield "header-alone.jxl", b"\xff\x0a\xff\xff\xff\xff\xff\xff\xff\xff"
    yield "box-lies.jxl", b"\0\0\0\x0cJXL \r\n\x87\n" + box(b"ftyp", b"jxl \0\0\0\0jxl ") + box(b"jxlc", b"\xff\x0a" + b"\xff" * 50, MOST)
    yield "brob-bomb.jxl", b"\0\0\0\x0cJXL \r\n\x87\n" + box(b"ftyp", b"jxl \0\0\0\0jxl ") + box(b"brob", b"Exif" + b"\xff" * 5000)
    j2k = golden("jp2_bare.j2k")
    at = j2k.index(b"\xff\x51")
    yield "claims-2-to-the-32.j2k", j2k[: at + 6] + struct.pack(">II", MOST, MOST) + j2k[at + 14 :]
    yield "tiles-of-one.j2k", j2k[: at + 6] + struct.pack(">IIIIII", 30_000, 3_000, 0, 0, 1, 1) + j2k[at + 30 :]


# SVG


def entity_bomb():
    names = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    return f'<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY l0 "lol">{names}]><svg xmlns="http://www.w3.org/2000/svg"><text>&l9;</text></svg>'.encode()


def drawings(million):
    def svg(inner, more='width="100" height="100"'):
        return f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" {more}>{inner}</svg>'.encode()

    yield "entities.svg", entity_bomb()
    quadratic = f'<!DOCTYPE svg [<!ENTITY a "{"a" * 50_000}">]>'.encode()
    yield "quadratic.svg", quadratic + svg("<text>" + "&a;" * 50_000 + "</text>")
    yield "entity-of-a-file.svg", b'<!DOCTYPE svg [<!ENTITY x SYSTEM "file:///etc/passwd">]>' + svg("<text>&x;</text>")
    yield "doctype-elsewhere.svg", b'<!DOCTYPE svg SYSTEM "http://127.0.0.1:9/x.dtd">' + svg("<rect/>")
    for name, place in (
        ("file", "file:///etc/passwd"), ("path", "/etc/hostname"), ("web", "http://127.0.0.1:9/x.png"),
        ("data", "data:image/svg+xml;base64," + "A" * 100_000), ("itself", "#a"),
    ):  # fmt: skip
        yield f"image-from-{name}.svg", svg(f'<image id="a" width="99" height="99" xlink:href="{place}"/>')
        yield f"image-now-from-{name}.svg", svg(f'<image id="a" width="99" height="99" href="{place}"/>')
    uses = "".join(f'<g id="u{n}"><use href="#u{n - 1}"/><use href="#u{n - 1}"/></g>' for n in range(1, 21))
    yield "uses-doubling.svg", svg(f'<defs><g id="u0"><rect width="9" height="9"/></g>{uses}</defs><use href="#u20"/>')
    yield "use-of-itself.svg", svg('<g id="a"><use href="#a"/></g>')
    yield "uses-in-a-circle.svg", svg('<g id="a"><use href="#b"/></g><g id="b"><use href="#a"/></g>')
    yield "patterns-in-a-circle.svg", svg('<pattern id="a" width="9" height="9"><rect width="9" height="9" fill="url(#a)"/></pattern><rect width="99" height="99" fill="url(#a)"/>')
    yield "masks-in-a-circle.svg", svg('<mask id="a" mask="url(#a)"><rect width="9" height="9"/></mask><rect width="99" height="99" mask="url(#a)"/>')
    yield "script.svg", svg("<script>while(true);</script>", 'width="9" height="9" onload="while(true);"')
    yield "foreign.svg", svg("<foreignObject><iframe xmlns='http://www.w3.org/1999/xhtml' src='file:///etc/passwd'/></foreignObject>")
    yield "style-from-elsewhere.svg", svg("<style>@import url(http://127.0.0.1:9/x.css);rect{fill:url(file:///etc/passwd)}</style><rect/>")
    yield "viewbox-of-1e9.svg", svg('<rect width="1e9" height="1e9"/>', 'width="1e9" height="1e9" viewBox="0 0 1e9 1e9"')
    yield "viewbox-of-nan.svg", svg("<rect/>", 'width="NaN" height="-1e99" viewBox="0 0 1e-300 1e300"')
    yield "many-paths.svg", svg('<path d="M0 0L9 9"/>' * (million // 10))
    yield "long-path.svg", svg('<path stroke="red" stroke-dasharray="0.0001" d="M0 0' + "L9 9L0 1" * (million // 20) + '"/>')
    yield "tiny-dashes.svg", svg('<path stroke="red" stroke-dasharray="1e-9" d="M0 0L1e9 1e9"/>')
    yield "deep.svg", svg("<g>" * 100_000 + "</g>" * 100_000)
    filters = "".join('<feGaussianBlur stdDeviation="1000"/><feTurbulence numOctaves="1000" baseFrequency="9"/>' for _ in range(500))
    yield "filters.svg", svg(f'<filter id="f">{filters}</filter><rect width="99" height="99" filter="url(#f)"/>')
    yield "wide-filter.svg", svg('<filter id="f" x="-1e6" y="-1e6" width="1e9" height="1e9"><feFlood/></filter><rect width="99" height="99" filter="url(#f)"/>')
    yield "utf-16.svg", b"\xff\xfe" + svg("<rect/>").decode().encode("utf-16-le")
    yield "bomb.svgz", gzip.compress(svg("<!--" + " " * (100 << 20) + "-->"), mtime=0)
    yield "gzip-alone.svgz", gzip.compress(bytes(200 << 20), mtime=0)


# Documents


def documents():
    def pdf(*objects, tail=b""):
        body = b"%PDF-1.7\n" + b"".join(b"%d 0 obj\n%s\nendobj\n" % (n, what) for n, what in enumerate(objects, 1))
        return body + tail + b"trailer\n<</Root 1 0 R/Size %d>>\nstartxref\n0\n%%%%EOF" % (len(objects) + 1)

    catalog, page = b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 100 100]/Contents 4 0 R/Resources<</XObject<</X 5 0 R>>>>>>"
    pages = b"<</Type/Pages/Count 1/Kids[3 0 R]>>"
    yield "pages-in-a-circle.pdf", pdf(catalog, b"<</Type/Pages/Count 1/Kids[2 0 R]>>")
    yield "form-of-itself.pdf", pdf(catalog, pages, page, b"<</Length 4>>\nstream\n/X Do\nendstream",
                                    b"<</Type/XObject/Subtype/Form/BBox[0 0 9 9]/Resources<</XObject<</X 5 0 R>>>>/Length 11>>\nstream\n/X Do /X Do\nendstream")  # fmt: skip
    yield "vast-page.pdf", pdf(catalog, pages, page.replace(b"0 0 100 100", b"0 0 1e9 1e9"), b"<</Length 0>>\nstream\n\nendstream")
    yield "no-page.pdf", pdf(catalog, pages, page.replace(b"0 0 100 100", b"0 0 0 0"), b"<</Length 0>>\nstream\n\nendstream")
    bomb = zeros(200 << 20)
    yield "stream-bomb.pdf", pdf(catalog, pages, page, b"<</Filter/FlateDecode/Length %d>>\nstream\n%s\nendstream" % (len(bomb), bomb))
    yield "length-lies.pdf", pdf(catalog, pages, page, b"<</Length 99999999999>>\nstream\nq\nendstream")
    yield "deep.pdf", pdf(catalog, pages, page, b"<</Length 9>>\nstream\n" + b"[" * 100_000 + b"\nendstream", b"<<" * 100_000)
    yield "million-pages.pdf", pdf(catalog, b"<</Type/Pages/Count 2147483647/Kids[" + b"3 0 R " * 100_000 + b"]>>", page)
    image = b"<</Type/XObject/Subtype/Image/Width 60000/Height 60000/BitsPerComponent 1/ColorSpace/DeviceGray/Length 9>>\nstream\nxxxxxxxxx\nendstream"
    yield "vast-image.pdf", pdf(catalog, pages, page, b"<</Length 23>>\nstream\n99 0 0 99 0 0 cm /X Do \nendstream", image)
    yield "opens-a-shell.pdf", pdf(b"<</Type/Catalog/Pages 2 0 R/OpenAction<</S/Launch/F(/bin/sh)>>>>", pages, page)


def others():
    yield "300000.psd", b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 30_000, 30_000, 8, 3) + bytes(100)
    yield "four-billion.psd", b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 56, 0xffffffff, 0xffffffff, 16, 3) + struct.pack(">III", 0, 0, 0) + b"\0\0" + bytes(100)
    yield "channels.psd", b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 56, 9_000, 9_000, 16, 3) + struct.pack(">III", 0, 0, 0) + b"\0\1" + bytes(100)
    yield "2-to-the-32.psb", b"8BPS\0\2" + bytes(6) + struct.pack(">HIIHH", 65_535, MOST, MOST, 32, 3) + b"\xff" * 100
    bmp = golden("bmp_24.bmp")
    for name, wide, high in (("huge", 0x7FFFFFFF, 0x7FFFFFFF), ("upside-down", 96, -0x80000000), ("negative", -96, 64)):
        yield f"{name}.bmp", bmp[:18] + struct.pack("<ii", wide, high) + bmp[26:]
    rle = golden("bmp_rle.bmp")
    yield "rle-of-9000.bmp", rle[:18] + struct.pack("<ii", 9_000, 9_000) + rle[26:]
    yield "palette-of-2-to-the-32.bmp", rle[:46] + struct.pack("<I", MOST) + rle[50:]
    ico = golden("ico_png.ico")
    yield "64-entries.ico", struct.pack("<HHH", 0, 1, 64) + struct.pack("<BBBBHHII", 0, 0, 0, 0, 1, 32, MOST, 6) * 64
    vast = png(60_000, 60_000, 8, 6)
    yield "vast-inside.ico", ico[:14] + struct.pack("<II", len(vast), 22) + vast
    yield "of-itself.ico", ico[:14] + struct.pack("<II", len(ico), 0) + ico[22:]
    yield "vast.qoi", b"qoif" + struct.pack(">IIBB", MOST, MOST, 4, 0) + bytes(100)
    yield "runs.qoi", b"qoif" + struct.pack(">IIBB", 9_000, 9_000, 4, 0) + b"\xfd" * 1000
    yield "vast.ppm", b"P6\n99999999 99999999\n255\n"
    yield "digits.ppm", b"P3\n" + b"9" * 1_000_000
    yield "vast.pam", b"P7\nWIDTH 99999999\nHEIGHT 99999999\nDEPTH 4\nMAXVAL 255\nTUPLTYPE RGB_ALPHA\nENDHDR\n"
    tga = golden("tga_rle.tga")
    yield "65535.tga", tga[:12] + b"\xff" * 4 + tga[16:]
    raw = golden("raw_bayer.dng")
    at = raw.index(struct.pack("<HHI", 330, 4, 1)) + 8
    yield "raw-of-itself.dng", raw[:at] + struct.pack("<I", 8) + raw[at + 4 :]
    yield "raw-in-a-circle.dng", exif_recursive()


def liars():
    """Files that are something else than their name says; the first group is good."""
    yield "good-png-named.jpg", golden("png_8.png")
    yield "good-jpeg-named.txt", golden("jpeg_420.jpg")
    yield "good-webp-named.gif", golden("webp_lossy.webp")
    archive = b"PK\3\4\x14\0\0\0\0\0" + bytes(16) + b"\x05\0\0\0a.txthello"
    yield "archive.jpg", archive
    yield "document.png", archive + b"[Content_Types].xml"
    yield "playlist.jpg", b"#EXTM3U\nfile:///etc/passwd\n"
    yield "manifest.png", b'<?xml version="1.0"?><MPD><BaseURL>http://127.0.0.1:9/</BaseURL></MPD>'
    yield "vector-magic.jpg", b"push graphic-context\nimage over 0,0 0,0 'url(http://127.0.0.1:9/)'\npop graphic-context"
    yield "postscript.jpg", b"%!PS\n(/etc/passwd) (r) file showpage"
    yield "text.jpg", b"\xff\xd8\xff not a picture at all " * 1000
    yield "film.jpg", box(b"ftyp", b"isom\0\0\2\0isommp42") + box(b"moov", box(b"mvhd", bytes(100)), MOST)
    yield "program.png", b"\x7fELF" + bytes(1000)
