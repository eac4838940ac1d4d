#!/usr/bin/python3
"""A JPEG of 24 MP made into 800×600 at quality 85: us beside sharp and vipsthumbnail.

    thumbnail.py [BINARY] [--pictures 20] [--rounds 3] [--photo FILE.jpg] [--quick]

One at a time. We are asked over HTTP for a picture that is not in the cache, and render it in a sandboxed worker;
sharp works in one warm process on a buffer; vipsthumbnail is a process for each picture, as a shell script would
have it. Processor time counts every process involved. The sizes of the three results are printed, so that nobody
wins by encoding worse.
"""

import json
import os
import resource
import subprocess
import sys
import time

import bench
from bench import picture


def main():
    options = bench.arguments(__doc__, pictures=20, rounds=3, photo="").parse_args()
    if options.quick:
        options.pictures, options.rounds = 4, 1
    bench.need_packages(libvips_tools="vipsthumbnail", nodejs="node", npm="npm")
    if options.photo:
        with open(options.photo, "rb") as file:
            photo = file.read()
    else:
        photo = picture.jpeg(6000, 4000)
    results = {"cloakroom": [], "sharp": [], "vipsthumbnail": []}
    with bench.Workplace() as place:
        path = os.path.join(place.path, "photo.jpg")
        with open(path, "wb") as out:
            out.write(photo)
        appliance = place.appliance(options.binary)
        sharp = sharp_peer()
        sides = {
            "cloakroom": lambda: ours(appliance, photo, options.pictures),
            "sharp": lambda: sharp(path, options.pictures),
            "vipsthumbnail": lambda: vips(path, options.pictures),
        }
        sizes = {}
        for number in range(options.rounds):
            for side, run in sides.items() if number % 2 == 0 else reversed(sides.items()):
                wall_s, cpu_s, sizes[side] = run()
                results[side].append((wall_s / options.pictures * 1000, cpu_s / options.pictures * 1000))
                print(f"round {number + 1}, {side}: {results[side][-1][0]:.0f} ms", file=sys.stderr)

    medians = {side: [bench.median(column) for column in zip(*rows)] for side, rows in results.items()}
    print(f"24 MP of {len(photo) / 1e6:.1f} MB to fit 800×600, quality 85, one at a time")
    bench.table(["", "ms", "ms CPU", "kB"], [[side, *values, sizes[side] / 1000] for side, values in medians.items()])
    for peer in ("sharp", "vipsthumbnail"):
        bench.ratio(f"time beside {peer}", medians["cloakroom"][0], medians[peer][0])
        bench.ratio(f"CPU beside {peer}", medians["cloakroom"][1], medians[peer][1])


def ours(appliance, photo, count):
    """Uploads fresh copies, waits until nothing runs, then asks for each thumbnail once."""
    connection = appliance.connect()
    assets = []
    for number in range(count):
        body = picture.with_comment(photo, f"{number} {time.monotonic_ns()}")
        status, answer = bench.post_file(connection, f"{number}.jpg", body, "image/jpeg")
        if status not in (200, 202):
            sys.exit(f"an upload was answered {status}: {answer[:200]!r}")
        assets.append(json.loads(answer)["assets"][0]["id"])
    for asset in assets:
        appliance.wait_until_ok(asset)
    bench.settle(appliance.process.pid)
    connection.close()
    connection = appliance.connect()
    spent = bench.Spent(appliance.process.pid)
    began = time.monotonic()
    for asset in assets:
        # Only JPEG: the peers make nothing else.
        connection.request(
            "GET", f"/api/v1/assets/{asset}/conversions?resize=800,600&quality=85", headers={"Accept": "image/jpeg"}
        )
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200 or picture.measure(body) not in (("image/jpeg", 800, 533), ("image/jpeg", 800, 534)):
            sys.exit(f"a thumbnail was answered {answer.status}: {body[:200]!r}")
    wall_s = time.monotonic() - began
    connection.close()
    return wall_s, spent.all(), len(body)


def sharp_peer():
    """sharp in a directory of its own; the function that runs it."""
    home = os.path.join(bench.PEERS, "sharp")
    if not os.path.isdir(os.path.join(home, "node_modules", "sharp")):
        print("installing sharp", file=sys.stderr)
        os.makedirs(home, exist_ok=True)
        install = ["npm", "install", "--prefix", home, "--no-audit", "--no-fund", "--loglevel=error", "sharp"]
        subprocess.run(install, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    program = os.path.join(os.path.dirname(os.path.abspath(__file__)), "peers", "sharp_thumbnail.js")
    environment = {**os.environ, "NODE_PATH": os.path.join(home, "node_modules")}

    def run(path, count):
        said = subprocess.run(
            ["node", program, path, str(count)], env=environment, capture_output=True, text=True, check=True
        )
        wall_s, cpu_s, size_bytes = map(float, said.stdout.split())
        return wall_s, cpu_s, size_bytes

    return run


def vips(path, count):
    out = path + ".thumbnail.jpg"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.monotonic()
    for _ in range(count):
        subprocess.run(["vipsthumbnail", path, "--size", "800x600", "-o", f"{out}[Q=85]"], check=True)
    wall_s = time.monotonic() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall_s, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, os.path.getsize(out)


if __name__ == "__main__":
    main()
