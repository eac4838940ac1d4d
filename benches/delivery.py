#!/usr/bin/python3
"""A cached picture of about 40 kB and ranges of 2 MiB of a 200 MB file: us beside nginx, plain and over TLS 1.3.

    delivery.py [BINARY] [--seconds 5] [--rounds 3] [--connections 16] [--quick]

The picture is one that we rendered; nginx serves the same bytes from a file with sendfile and open_file_cache. The
ranges are asked at random places of an original. wrk asks, on keep-alive connections, and both sides share the
processors with it; so requests a second are a floor, and CPU per request is the figure to compare.
"""

import os
import re
import subprocess
import sys

import bench
from bench import picture

FILE_MB = 200
RANGE_BYTES = 2 * bench.MIB


# Enough of a film to be taken for one.
MP4 = b"\0\0\0\x18ftypisom\0\0\2\0isommp42"


def main():
    options = bench.arguments(__doc__, seconds=5, rounds=3, connections=16).parse_args()
    if options.quick:
        options.seconds, options.rounds = 2, 1
    bench.need_packages(wrk="wrk")
    with bench.Workplace() as place:
        appliance = place.appliance(options.binary, listen=("http://127.0.0.1:0", "https://127.0.0.1:0"))
        small_path, small = rendered(appliance)
        big_path = original(appliance)
        files = os.path.join(place.path, "files")
        os.makedirs(files)
        with open(os.path.join(files, "small.jpg"), "wb") as out:
            out.write(small)
        os.link(newest_original(appliance), os.path.join(files, "big.bin"))
        os.chmod(files, 0o755)
        plain, plain_port = place.nginx(f"root {files};")
        secure, secure_port = place.nginx(f"root {files};", tls=True)
        bench.settle(appliance.process.pid)

        cases = (
            ("40 kB", small_path, "/small.jpg", None, "≤ 2×", "≤ 1×"),
            ("2 MiB range", big_path, "/big.bin", ranges(place.path), "≤ 3.5×", "≤ 1×"),
        )
        rows = []
        verdicts = []
        for what, our_path, their_path, script, plain_target, secure_target in cases:
            for protocol, index, peer, port, target in (
                ("http", 0, plain, plain_port, plain_target),
                ("https", 1, secure, secure_port, secure_target),
            ):
                sides = {
                    "cloakroom": (appliance.process.pid, appliance.addresses[index] + our_path),
                    "nginx": (peer.pid, f"{protocol}://127.0.0.1:{port}{their_path}"),
                }
                medians = measure(options, sides, script)
                rows += [[f"{what}, {protocol}, {side}", *values] for side, values in medians.items()]
                verdicts.append((f"{what} over {protocol}", medians["cloakroom"], medians["nginx"], target))

    print(f"picture of {len(small)} bytes; {options.connections} connections")
    bench.table(["", "requests/s", "µs CPU/request", "p50 ms", "p99 ms"], rows)
    for what, ours, theirs, target in verdicts:
        bench.ratio(f"CPU of a {what} beside nginx", ours[1], theirs[1], target)
        bench.ratio(f"requests/s of a {what} beside nginx", ours[0], theirs[0])
    worst_ms = max(ours[3] for what, ours, _, _ in verdicts if what.startswith("40 kB"))
    print(f"p99 of the picture: {worst_ms:.1f} ms (target < 10 ms)")


def rendered(appliance):
    """A picture of about 40 kB that has been served once: `(path, bytes)`."""
    asset = upload(appliance, "photo.jpg", picture.jpeg(3000, 2000))
    best = None
    for width in range(300, 801, 50):
        path = f"/api/v1/assets/{asset}/conversions?resize={width},{width * 3 // 4}&quality=80"
        status, body = appliance.get(path)
        if status != 200:
            sys.exit(f"{path} was answered {status}")
        if best is None or abs(len(body) - 40_000) < abs(len(best[1]) - 40_000):
            best = path, body
    return best


def original(appliance):
    """The path of an original of 200 MB; reading it takes a key."""
    asset = upload(appliance, "film.mp4", MP4 + os.urandom(bench.MIB) * (FILE_MB * 1_000_000 // bench.MIB))
    return f"/api/v1/assets/{asset}/content/original"


def newest_original(appliance):
    """The same bytes for nginx: a second name of the very file, so that both read one page cache."""
    return appliance.original(appliance.get_json("/api/v1/assets?offset=0&limit=1")["assets"][0]["id"])


def upload(appliance, name, body):
    asset = appliance.upload(name, body)
    appliance.wait_until_ok(asset)
    return asset


def ranges(directory):
    """A wrk script that asks for ranges at random places, with the key that we want and nginx ignores."""
    path = os.path.join(directory, "ranges.lua")
    last = FILE_MB * 1_000_000 // RANGE_BYTES - 2
    with open(path, "w", encoding="ascii") as out:
        out.write(
            f"""request = function()
                local start = math.random(0, {last}) * {RANGE_BYTES}
                local range = "bytes=" .. start .. "-" .. (start + {RANGE_BYTES} - 1)
                return wrk.format("GET", nil, {{["Range"] = range, ["X-FileSpin-Api-Key"] = "{bench.API_KEY}"}})
            end"""
        )
    return path


def measure(options, sides, script):
    """Alternating rounds; medians of requests/s, µs CPU, p50 and p99 for each side."""
    results = {side: [] for side in sides}
    for number in range(options.rounds + 1):
        for side, (pid, url) in sides.items() if number % 2 == 0 else reversed(sides.items()):
            # The first round fills caches and is not counted.
            seconds = options.seconds if number else 1
            command = ["wrk", "-t2", f"-c{options.connections}", f"-d{seconds}s", "--latency", "--timeout", "10s"]
            command += ["-s", script] if script else []
            spent = bench.Spent(pid)
            said = subprocess.run([*command, url], capture_output=True, text=True, check=True).stdout
            cpu_s = spent.all()
            if "Non-2xx" in said or "Socket errors" in said:
                sys.exit(f"{side} failed under load at {url}:\n{said}")
            requests = int(re.search(r"(\d+) requests in", said)[1])
            seconds = duration(re.search(r"requests in (\S+),", said)[1])
            latencies = [
                duration(re.search(rf"^ +{share}% +(\S+)$", said, re.MULTILINE)[1]) * 1000 for share in (50, 99)
            ]
            if number:
                results[side].append((requests / seconds, cpu_s / requests * 1e6, *latencies))
    return {side: [bench.median(column) for column in zip(*rows)] for side, rows in results.items()}


def duration(text):
    """Seconds, from wrk's way of writing a time."""
    value, unit = re.fullmatch(r"([\d.]+)(us|ms|s|m)", text).groups()
    return float(value) * {"us": 1e-6, "ms": 1e-3, "s": 1, "m": 60}[unit]


if __name__ == "__main__":
    main()
