#!/usr/bin/python3
"""Every output opens in other people's programs, and none of them tells where it was made.

    outputs_open.py BASE_ADDRESS API_KEY

Uploads a few pictures of the golden set, among them one that is full of names and places, asks for each in every
format, and shows the answers to djpeg, pngcheck, dwebp, avifdec and exiftool; and to Chromium, where there is one.
Standard library only.
"""

import base64
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request

import picture

GOLDEN = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "golden", "inputs")
SOURCES = ("jpeg_gps.jpg", "jpeg_p3.jpg", "jpeg_turned_6.jpg", "png_alpha.png", "webp_animated.webp", "photo.jpg")
RECIPES = ("", "resize=51,51", "crop=31,17", "rotate=33&blur=1", "quality=10", "resize=1,1")
OPENERS = {
    "jpg": ["djpeg", "-outfile", "/dev/null", "FILE"],
    "png": ["pngcheck", "-q", "FILE"],
    "webp": ["dwebp", "-quiet", "FILE", "-o", "/dev/null"],
    "avif": ["avifdec", "--info", "FILE"],
}
# Groups that exiftool makes up itself, or that describe pixels.
INNOCENT = {"ExifTool", "File", "System", "Composite", "JFIF", "PNG", "RIFF", "Meta", "QuickTime", "ICC_Profile"}
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def main():
    base, key = sys.argv[1:3]
    missing = [words[0] for words in [*OPENERS.values(), ["exiftool"]] if not shutil.which(words[0])]
    if missing:
        sys.exit(f"these programs are needed and missing: {' '.join(missing)}")
    with tempfile.TemporaryDirectory() as folder:
        made = []
        for source in SOURCES:
            asset = upload(base, key, source)
            for number, recipe in enumerate(RECIPES):
                for kind in OPENERS:
                    path = os.path.join(folder, f"{source.replace('.', '_')}-{number}.{kind}")
                    query = "&".join(part for part in (recipe, f"format={kind}") if part)
                    fetch(f"{base}/api/v1/assets/{asset}/conversions?{query}", path)
                    made.append(path)
        for path in made:
            opens(path)
        tells_nothing(folder)
        in_browser(made, folder)
    print(f"{len(made)} pictures open and tell nothing")


def upload(base, key, name):
    with open(os.path.join(GOLDEN, name), "rb") as file:
        content = file.read()
    body = (
        f'--b\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'.encode()
        + content
        + b"\r\n--b--\r\n"
    )
    request = urllib.request.Request(
        f"{base}/api/v1/assets/new/content/original/upload",
        body,
        {"X-FileSpin-Api-Key": key, "Content-Type": "multipart/form-data; boundary=b"},
    )
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)["assets"][0]["id"]


def fetch(address, path):
    with urllib.request.urlopen(urllib.request.Request(address, headers={"Accept": "*/*"})) as answer:
        body = answer.read()
    with open(path, "wb") as out:
        out.write(body)


def opens(path):
    with open(path, "rb") as file:
        media_type, wide, high = picture.measure(file.read())
    wanted = {"jpg": "image/jpeg"}.get(path.rpartition(".")[2], f"image/{path.rpartition('.')[2]}")
    if media_type != wanted or not wide or not high:
        sys.exit(f"{path} is {media_type} of {wide} × {high}")
    run([path if word == "FILE" else word for word in opener(path)])


def opener(path):
    # dwebp decodes stills alone; of what moves, webpinfo parses every frame.
    if path.endswith(".webp") and b"ANMF" in open(path, "rb").read():
        return ["webpinfo", "-quiet", "FILE"]
    return OPENERS[path.rpartition(".")[2]]


def tells_nothing(folder):
    """No place, no name, no camera, no metadata block of any kind, by the program that knows them all."""
    for tags in json.loads(run(["exiftool", "-j", "-G1", "-a", "-u", "-ee", folder])):
        for name, value in tags.items():
            group, _, tag = name.rpartition(":")
            telling = group.split("-")[0] not in INNOCENT and name != "SourceFile"
            if telling or re.search("GPS|Creator|Author|Artist|By-line|Serial|Comment", tag) or "Gold" in str(value):
                if tag not in ("ProfileCreator",):
                    sys.exit(f"{tags['SourceFile']} tells {name}: {value}")


def in_browser(paths, folder):
    """All pictures on one page, in a browser that says which of them it could not show."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        print("NOT CHECKED in a browser: there is no Chromium here", file=sys.stderr)
        return
    page = ["<!doctype html><body>"]
    for path in paths:
        with open(path, "rb") as file:
            data = file.read()
        media_type, wide, high = picture.measure(data)
        source = f"data:{media_type};base64,{base64.b64encode(data).decode()}"
        page.append(f'<img src="{source}" data-name="{os.path.basename(path)}" data-size="{wide}x{high}">')
    # The document that is dumped then says of each picture what it was shown as.
    page.append(
        "<script>onload=()=>{document.body.textContent=[...document.images].map(i=>"
        "`shown ${i.dataset.name} ${i.dataset.size} ${i.naturalWidth}x${i.naturalHeight}`).join('\\n')+'\\nall'}</script>"
    )
    with open(os.path.join(folder, "page.html"), "w", encoding="utf-8") as out:
        out.write("".join(page))
    quiet = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    quiet += " --disable-component-update --disable-sync --virtual-time-budget=20000"
    address = "file://" + urllib.parse.quote(os.path.join(folder, "page.html"))
    command = [browser, *quiet.split(), f"--user-data-dir={folder}/browser", "--dump-dom", address]
    shown = re.findall(r"shown (\S+) (\S+) (\S+)", run(command))
    wrong = [f"{name}: {said} was shown as {size}" for name, said, size in shown if said != size]
    if wrong or len(shown) != len(paths):
        sys.exit(f"the browser showed {len(shown)} of {len(paths)} pictures:\n" + "\n".join(wrong))
    print(f"{os.path.basename(browser)} shows all {len(shown)}", file=sys.stderr)


def run(command):
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


if __name__ == "__main__":
    main()
