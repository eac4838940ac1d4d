#!/usr/bin/env python3
"""Makes the pictures of this folder (Python 3.11, pillow-heif 1.8.1, which brings libheif and x265).

The scene is computed, so nobody else has rights in it; `scene` in
src/media/imaging/heic/tests.rs computes the same one.
"""
import ctypes as c
import glob
import os
import sys

import numpy as np
import pillow_heif
from PIL import Image

HERE = os.path.dirname(os.path.abspath(__file__))


def scene(width, height):
    """Slopes, a light checkerboard, and a red corner at the top left."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    check = ((x // 16 + y // 16) % 2) * 24
    rgb = np.stack([30 + x * 150 // width + check, 40 + y * 140 // height + check, 90 + check], axis=-1)
    rgb[(x < width // 4) & (y < height // 4)] = [220, 20, 20]
    return rgb.astype(np.uint8)


def save(name, pixels, mode="RGB", **options):
    heif = pillow_heif.from_bytes(mode, (pixels.shape[1], pixels.shape[0]), pixels.tobytes())
    heif.save(os.path.join(HERE, name), **{"quality": 80, "chroma": 420, **options})


def grid(path, pixels, tile, columns, rows, quality=80):
    """As phones store them: tiles of one size, and the excess cut off at the right and the bottom."""
    lib = c.CDLL(glob.glob(os.path.join(os.path.dirname(pillow_heif.__file__), "..", "pillow_heif.libs", "libheif-*"))[0])

    class Error(c.Structure):
        _fields_ = [("code", c.c_int), ("subcode", c.c_int), ("message", c.c_char_p)]

    def call(name, *args):
        function = getattr(lib, name)
        function.restype = Error
        error = function(*args)
        if error.code:
            sys.exit(f"{name}: {error.message.decode()}")

    for name in ("heif_context_alloc", "heif_image_get_plane"):
        getattr(lib, name).restype = c.c_void_p
    context = c.c_void_p(lib.heif_context_alloc())
    encoder, handle = c.c_void_p(), c.c_void_p()
    call("heif_context_get_encoder_for_format", context, 1, c.byref(encoder))
    call("heif_encoder_set_lossy_quality", encoder, quality)
    height, width = pixels.shape[:2]
    call("heif_context_add_grid_image", context, width, height, columns, rows, None, c.byref(handle))
    padded = np.pad(pixels, ((0, rows * tile - height), (0, columns * tile - width), (0, 0)), mode="edge")
    for row in range(rows):
        for column in range(columns):
            image, stride = c.c_void_p(), c.c_int()
            call("heif_image_create", tile, tile, 1, 10, c.byref(image))
            call("heif_image_add_plane", image, 10, tile, tile, 8)
            plane = lib.heif_image_get_plane(image, 10, c.byref(stride))
            part = padded[row * tile:(row + 1) * tile, column * tile:(column + 1) * tile]
            for y in range(tile):
                c.memmove(plane + y * stride.value, np.ascontiguousarray(part[y]).tobytes(), tile * 3)
            call("heif_context_add_image_tile", context, handle, column, row, image, encoder)
            lib.heif_image_release(image)
    call("heif_context_set_primary_image", context, handle)
    call("heif_context_write_to_file", context, path.encode())


def exif(orientation=None):
    block = Image.Exif()
    block[271], block[272] = "Cloakroom", "Scene"
    if orientation:
        block[274] = orientation
    return block.tobytes()


def main():
    picture = scene(256, 192)
    p3 = open(os.path.join(HERE, "display-p3.icc"), "rb").read()
    save("plain.heic", picture)
    save("limited-709.heic", picture, save_nclx_profile=True, matrix_coefficients=1, full_range_flag=0)
    save("422.heic", picture, chroma=422)
    save("444.heic", picture, chroma=444)
    save("gray.heic", picture[:, :, 1].copy(), mode="L")
    save("slices.heic", picture, enc_params={"x265:slices": "3", "x265:ctu": "64"})
    save("odd.heic", scene(201, 151))
    # pillow-heif turns the orientation into properties of the container.
    save("turned.heic", picture, exif=exif(6))
    save("mirrored.heic", picture, exif=exif(2))
    save("turned-mirrored.heic", picture, exif=exif(7))
    save("10-bit.heic", (picture.astype(np.uint16) * 257), mode="RGB;16")
    alpha = np.full((192, 256, 1), 255, np.uint8)
    alpha[:, :128] = 0
    save("alpha.heic", np.concatenate([picture, alpha], axis=-1), mode="RGBA")
    save("exif-p3.heic", picture, exif=exif(), icc_profile=p3, icc_profile_type="prof",
         xmp=b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><dc:title><rdf:Alt><rdf:li>Opening</rdf:li></rdf:Alt></dc:title></x:xmpmeta>')
    heif = pillow_heif.from_bytes("RGB", (768, 576), scene(768, 576).tobytes())
    heif.info["thumbnails"] = [192]
    heif.save(os.path.join(HERE, "thumbnail.heic"), quality=60, chroma=420)
    grid(os.path.join(HERE, "grid.heic"), scene(250, 180), 128, 2, 2)


if __name__ == "__main__":
    pillow_heif.register_heif_opener()
    main()
