#!/usr/bin/python3
"""Eight stations send photographs of 3 MB: us beside the same promise in FastAPI.

    upload.py [BINARY] [--stations 8] [--uploads 160] [--rounds 5] [--kind photo|bytes] [--peer-workers 1] [--quick]

Both sides take the MD5, flush file and directory and commit a row before they answer. Rounds alternate; a table of
medians and the ratios come at the end. With `--kind photo` we go on to look at every photograph after the answer,
which the peer never does: that work (workers) is shown apart and awaited before the next round. `--kind bytes`
sends as many bytes that are no picture.
"""

import http.client
import importlib.util
import os
import subprocess
import sys
import time
import venv

import bench
from bench import picture

PHOTO_BYTES = 3_000_000


def main():
    parser = bench.arguments(__doc__, stations=8, uploads=160, rounds=5, kind="photo", peer_workers=1)
    options = parser.parse_args()
    if options.quick:
        options.uploads, options.rounds = 32, 1
    base = a_file(options.kind)
    results = {"cloakroom": [], "FastAPI": []}
    with bench.Workplace() as place:
        appliance = place.appliance(options.binary)
        peer, port = fastapi(place, options.peer_workers)
        sides = (
            ("cloakroom", appliance.process.pid, appliance.connect, "/api/v1/assets/new/content/original/upload"),
            ("FastAPI", peer.pid, lambda: http.client.HTTPConnection("127.0.0.1", port, timeout=60), "/upload"),
        )
        for _, _, connect, path in sides:
            send_all(connect, path, base, options.stations, options.stations)
        for number in range(options.rounds):
            for side, pid, connect, path in sides if number % 2 == 0 else reversed(sides):
                bench.settle(pid)
                spent = bench.Spent(pid)
                wall_s = send_all(connect, path, base, options.stations, options.uploads)
                own_s = spent.own() if side == "cloakroom" else spent.all()
                bench.settle(pid)
                workers_s = spent.all() - own_s if side == "cloakroom" else 0
                per = 1000 / options.uploads
                results[side].append((options.uploads / wall_s, own_s * per, workers_s * per))
                print(f"round {number + 1}, {side}: {options.uploads / wall_s:.0f} assets/s", file=sys.stderr)

    medians = {side: [bench.median(column) for column in zip(*rows)] for side, rows in results.items()}
    print(f"{options.stations} stations, {len(base) / 1e6:.1f} MB of {options.kind}, {options.uploads} uploads a round")
    bench.table(
        ["", "assets/s", "ms CPU/asset, server until answered", "workers and afterwards"],
        [[side, *values] for side, values in medians.items()],
    )
    ours, theirs = medians["cloakroom"], medians["FastAPI"]
    bench.ratio("assets/s beside FastAPI", ours[0], theirs[0], "≥ 2×")
    bench.ratio("CPU until answered beside FastAPI", ours[1], theirs[1], "≤ 0.4×")
    bench.ratio("CPU with everything afterwards beside FastAPI", ours[1] + ours[2], theirs[1])


def a_file(kind):
    """About 3 MB, as a photograph of 24 MP or as bytes that are no picture."""
    if kind == "bytes":
        return os.urandom(PHOTO_BYTES)
    return picture.jpeg(6000, 4000)


def fastapi(place, workers):
    """The peer in its own virtual environment: `(process, port)`."""
    home = os.path.join(bench.PEERS, "fastapi")
    python = os.path.join(home, "bin", "python")
    if not os.path.exists(os.path.join(home, "ready")):
        # Debian ships the part of `venv` that brings pip apart from Python.
        if not importlib.util.find_spec("ensurepip"):
            bench.install_packages(["python3-venv"])
        print("installing FastAPI and uvicorn", file=sys.stderr)
        venv.create(home, with_pip=True, clear=True)
        subprocess.run(
            [python, "-m", "pip", "install", "-q", "fastapi", "uvicorn[standard]", "python-multipart"], check=True
        )
        with open(os.path.join(home, "ready"), "w", encoding="ascii"):
            pass
    data = os.path.join(place.path, "fastapi")
    os.makedirs(data)
    port = bench.free_port()
    command = [python, "-m", "uvicorn", "fastapi_upload:app", "--port", str(port), "--log-level", "warning"]
    command += ["--no-access-log", "--workers", str(workers)]
    here = os.path.join(os.path.dirname(os.path.abspath(__file__)), "peers")
    return place.start(command, port, cwd=here, env={**os.environ, "PEER_HOME": data}), port


def send_all(connect, path, base, stations, uploads):
    """Sends so many files over so many connections; the seconds from the first to the last answer."""

    def send(connection, ticket):
        status, answer = post(connection, path, base, ticket)
        if status not in (200, 202):
            raise bench.Failed(f"{path} was answered {status}: {answer[:200]!r}")

    return bench.together(stations, uploads, connect, send)


def post(connection, path, base, ticket):
    """Sends the file with a few bytes of its own, so that no two are equal, without copying it."""
    own = f"{ticket}-{time.monotonic_ns()}"
    if base[:2] == b"\xff\xd8":
        start, rest = picture.with_comment(base[:2], own), memoryview(base)[2:]
        name, kind = f"{own}.jpg", "image/jpeg"
    else:
        start, rest = own.encode(), memoryview(base)
        name, kind = f"{own}.bin", "application/octet-stream"
    head = (
        f'--b0undary\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\nContent-Type: {kind}\r\n\r\n'
    )
    tail = b"\r\n--b0undary--\r\n"
    connection.putrequest("POST", path)
    connection.putheader("X-FileSpin-Api-Key", bench.API_KEY)
    connection.putheader("Content-Type", "multipart/form-data; boundary=b0undary")
    connection.putheader("Content-Length", str(len(head) + len(start) + len(rest) + len(tail)))
    connection.endheaders()
    connection.send(head.encode() + start)
    connection.send(rest)
    connection.send(tail)
    answer = connection.getresponse()
    return answer.status, answer.read()


if __name__ == "__main__":
    main()
