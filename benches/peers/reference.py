"""What a picture should look like at a smaller size: decoded in full, then Lanczos in floating point, uncompressed.

    reference.py IN OUT.png WIDTH HEIGHT – fits into the box, upright and in sRGB; runs in thumbor's Python for its Pillow.
"""

import io
import sys

from PIL import Image
from PIL import ImageChops
from PIL import ImageCms
from PIL import ImageOps

Image.MAX_IMAGE_PIXELS = None


def main():
    source, out, width, height = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    image = ImageOps.exif_transpose(Image.open(source))
    profile = image.info.get("icc_profile")
    image = image.convert("RGBA" if "A" in image.getbands() else "RGB")
    shrink = min(width / image.width, height / image.height, 1)
    size = (max(1, round(image.width * shrink)), max(1, round(image.height * shrink)))
    bands = list(image.split())
    alpha = bands.pop() if len(bands) == 4 else None
    if alpha:
        # Without premultiplying, the colour of what cannot be seen would count.
        bands = [ImageChops.multiply(band, alpha) for band in bands]
    small = [band.convert("F").resize(size, Image.LANCZOS) for band in bands]
    if alpha:
        alpha = alpha.convert("F").resize(size, Image.LANCZOS)
        lists = [list(band.getdata()) for band in small]
        opaque = list(alpha.getdata())
        for band, values in zip(small, lists):
            band.putdata([v * 255 / a if a > 0.5 else 0 for v, a in zip(values, opaque)])
        small.append(alpha)
    # Pillow cuts off what is behind the point.
    small = [band.point(lambda v: v * 1 + 0.5).convert("L") for band in small]
    image = Image.merge("RGBA" if alpha else "RGB", small)
    if profile and not alpha:
        image = ImageCms.profileToProfile(image, io.BytesIO(profile), ImageCms.createProfile("sRGB"))
    image.save(out)


if __name__ == "__main__":
    main()
