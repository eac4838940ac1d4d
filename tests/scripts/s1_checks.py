#!/usr/bin/python3
"""Script S1 in full: upload, wait, serve, and every promise about the picture that is served.

    s1_checks.py BASE API_KEY

Checked by the bytes that arrive, not by what the headers claim: both documented shapes of the upload's
answer, fitting into a box with the aspect kept, the choice of format by Accept, PNG staying PNG, and the
largest size that is ever served. Ends with 0, or with a sentence that says what went wrong.
"""

import hashlib
import re
import sys
import time

import requests

import picture

# Nothing larger is ever served, whatever is asked for.
LARGEST = (2048, 1536)


def main(base, api_key):
    api = f"{base}/api/v1"
    headers = {"X-FileSpin-Api-Key": api_key}
    photo = upload(api, headers, "p.jpg", picture.jpeg(3000, 2000))
    drawing = upload(api, headers, "d.png", picture.png(640, 400))

    fits = "?resize=400,300&quality=80"
    for who, asset, query, accept, kind, box, source in (
        ("a client that takes anything", photo, fits, "*/*", "image/jpeg", (400, 300), (3000, 2000)),
        ("a client that says nothing", photo, fits, None, "image/jpeg", (400, 300), (3000, 2000)),
        ("a browser with AVIF", photo, fits, "image/avif,image/webp", "image/avif", (400, 300), (3000, 2000)),
        (
            "a browser as they ask",
            photo,
            fits,
            "image/avif,image/webp,image/apng,*/*;q=0.8",
            "image/avif",
            (400, 300),
            (3000, 2000),
        ),
        ("a browser with WebP alone", photo, fits, "image/webp", "image/webp", (400, 300), (3000, 2000)),
        ("a browser with WebP and the rest", photo, fits, "image/webp,*/*", "image/webp", (400, 300), (3000, 2000)),
        ("a PNG and no Accept", drawing, fits, None, "image/png", (400, 300), (640, 400)),
        ("a PNG and any Accept", drawing, fits, "*/*", "image/png", (400, 300), (640, 400)),
        ("a PNG and AVIF accepted", drawing, fits, "image/avif,*/*", "image/avif", (400, 300), (640, 400)),
        ("a tall box", photo, "?resize=300,1000", "*/*", "image/jpeg", (300, 1000), (3000, 2000)),
        ("far too large a box", photo, "?resize=9999,9999", "*/*", "image/jpeg", LARGEST, (3000, 2000)),
        (
            "format over Accept",
            photo,
            fits + "&format=png",
            "image/avif,image/webp",
            "image/png",
            (400, 300),
            (3000, 2000),
        ),
    ):
        check(f"{api}/assets/{asset}/conversions{query}", who, accept, kind, box, source)

    answer = get(f"{api}/assets/{photo}/conversions", "*/*")
    _, width, height = picture.measure(answer.content)
    if width > LARGEST[0] or height > LARGEST[1]:
        sys.exit(f"without any parameter a picture of {width}×{height} came, larger than {LARGEST}")
    print("S1: all promises kept")


def upload(api, headers, name, body):
    """Uploads, compares both shapes of the answer with the file, waits until it is ready; the asset's id."""
    answer = requests.post(
        f"{api}/assets/new/content/original/upload", headers=headers, files={"file": (name, body)}, timeout=60
    )
    if answer.status_code not in (200, 202):
        sys.exit(f"the upload of {name} was answered {answer.status_code}: {answer.text[:200]}")
    said = answer.json()
    item = said["assets"][0]
    asset = item["id"]
    if not re.fullmatch("[0-9a-f]{32}", asset):
        sys.exit(f"{asset!r} is not an id of 32 hex digits")
    if said["files"][0]["id"] != asset or said["success"] is not True:
        sys.exit(f"the two shapes of the answer disagree: {answer.text[:400]}")
    truth = {"name": name, "size": len(body), "checksum": hashlib.md5(body).hexdigest()}
    for key, value in truth.items():
        if item[key] != value:
            sys.exit(f"{key} of {name} is {item[key]!r} in the answer, and is really {value!r}")
    for _ in range(30):
        data = requests.get(f"{api}/assets/{asset}/data", headers=headers, timeout=30).json()
        if data["status"] == "OK":
            break
        time.sleep(1)
    else:
        sys.exit(f"{name} is still {data['status']} after 30 s")
    for key, value in truth.items():
        if data[key] != value:
            sys.exit(f"{key} of {name} is {data[key]!r} in its data, and is really {value!r}")
    _, width, height = picture.measure(body)
    if (data["metadata"].get("width"), data["metadata"].get("height")) != (width, height):
        sys.exit(f"{name} is {width}×{height}; its metadata says {data['metadata']}")
    return asset


def check(url, who, accept, kind, box, source):
    answer = get(url, accept)
    came, width, height = picture.measure(answer.content)
    if came != kind or answer.headers["Content-Type"].split(";")[0] != kind:
        sys.exit(f"{who}: expected {kind}, came {came} labelled {answer.headers['Content-Type']}")
    if "accept" not in answer.headers.get("Vary", "").lower() and "format=" not in url:
        sys.exit(f"{who}: the format was chosen by Accept, but Vary does not say so: caches would mix them up")
    scale = min(box[0] / source[0], box[1] / source[1], 1)
    # A side that does not come out even may be rounded either way.
    if abs(width - source[0] * scale) >= 1 or abs(height - source[1] * scale) >= 1:
        sys.exit(f"{who}: {source[0]}×{source[1]} made to fit {box[0]}×{box[1]} came as {width}×{height}")
    print(f"{who}: {came} of {width}×{height}, {len(answer.content)} bytes")


def get(url, accept):
    # `None` takes the header away, which `requests` would otherwise send by itself. No key: ODI is public.
    answer = requests.get(url, headers={"Accept": accept}, timeout=60)
    if answer.status_code != 200:
        sys.exit(f"{url} with Accept {accept} was answered {answer.status_code}: {answer.text[:200]}")
    return answer


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
