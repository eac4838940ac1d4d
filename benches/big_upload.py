#!/usr/bin/python3
"""One file of 2 GB: us beside nginx taking the same file with WebDAV PUT.

    big_upload.py [BINARY] [--size-mb 2000] [--rounds 3] [--quick]

nginx neither parses a form nor hashes nor flushes; it writes a temporary file and renames it. We do all of that
and commit a row, so the ratio is the price of the promise. What hashing alone costs here (MD5 for the contract and
SHA-256 for integrity, as OpenSSL does them) is printed beside it. curl sends to both. Memory is the highest growth
of the whole process tree while the file comes in.
"""

import hashlib
import os
import subprocess
import sys
import time

import bench


def main():
    options = bench.arguments(__doc__, size_mb=2000, rounds=3).parse_args()
    if options.quick:
        options.size_mb, options.rounds = 200, 1
    bench.need_packages(curl="curl")
    results = {"cloakroom": [], "nginx PUT": []}
    with bench.Workplace() as place:
        source = os.path.join(place.path, "big.bin")
        hashing_s = make_file(source, options.size_mb)
        appliance = place.appliance(options.binary)
        kept = os.path.join(place.path, "dav")
        os.makedirs(kept)
        nginx, port = place.nginx(f"location / {{ root {kept}; dav_methods PUT DELETE; }}")
        form = ["-H", f"X-FileSpin-Api-Key: {bench.API_KEY}", "-F", f"file=@{source}"]
        sides = (
            (
                "cloakroom",
                appliance.process.pid,
                [*form, appliance.addresses[0] + "/api/v1/assets/new/content/original/upload"],
            ),
            ("nginx PUT", nginx.pid, ["-T", source, f"http://127.0.0.1:{port}/big.bin"]),
        )
        for number in range(options.rounds):
            for side, pid, command in sides if number % 2 == 0 else reversed(sides):
                bench.settle(pid)
                # What the other side left in the page cache must not be written out at this one's cost.
                os.sync()
                spent = bench.Spent(pid)
                with bench.PeakMemory(pid) as memory:
                    began = time.monotonic()
                    send(command)
                    wall_s = time.monotonic() - began
                gb = options.size_mb / 1000
                results[side].append((options.size_mb / wall_s, spent.all() / gb, memory.growth()))
                print(f"round {number + 1}, {side}: {wall_s:.2f} s", file=sys.stderr)

    medians = {side: [bench.median(column) for column in zip(*rows)] for side, rows in results.items()}
    print(f"one file of {options.size_mb} MB; hashing it alone takes {hashing_s / options.size_mb * 1000:.2f} CPU s/GB")
    bench.table(["", "MB/s", "CPU s/GB", "memory growth MiB"], [[side, *values] for side, values in medians.items()])
    ours, theirs = medians["cloakroom"], medians["nginx PUT"]
    bench.ratio("CPU beside nginx PUT", ours[1], theirs[1])
    bench.ratio(
        "CPU beside nginx PUT, hashing taken off", ours[1] - hashing_s / options.size_mb * 1000, theirs[1], "≤ 2×"
    )
    bench.ratio("speed beside nginx PUT", ours[0], theirs[0])
    if ours[2] > 64:
        print(f"memory grew by {ours[2]:.0f} MiB: the file is not streamed")


def make_file(path, size_mb):
    """Writes random bytes, a block over and over; the CPU seconds that MD5 and SHA-256 of it take."""
    block = os.urandom(1_000_000)
    md5, sha256 = hashlib.md5(), hashlib.sha256()
    spent_s = 0
    with open(path, "wb") as out:
        for _ in range(size_mb):
            out.write(block)
            began = time.process_time()
            md5.update(block)
            sha256.update(block)
            spent_s += time.process_time() - began
    return spent_s


def send(command):
    run = subprocess.run(["curl", "-sS", "--fail-with-body", *command], capture_output=True, text=True, check=False)
    if run.returncode:
        sys.exit(f"curl {' '.join(command)} failed: {run.stderr}{run.stdout[:300]}")


if __name__ == "__main__":
    main()
