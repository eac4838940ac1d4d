#!/usr/bin/python3
"""Files that come in pieces, beside tus-node-server, and files that are fetched, beside curl.

    ways_in.py [BINARY] [--part tus|url] [--rounds 3] [--files 12] [--size-mb 100] [--small 200] [--large 5] [--quick]

tus: one and four clients send files in pieces of 5 MB and in one piece to us and to the server of those who wrote the
protocol; to us also as a plain form. The client is the same. Before we answer a piece it was hashed and flushed, and
after the last one a row was committed; the peer has handed it to the kernel. So there are two rates: until the last
answer, and until nothing waits for the disk any more. What the kernel spends on writing later counts for nobody.

url: files of 1 MB and of 200 MB lie on an nginx on this machine. We are told their addresses one by one, and are done
when the last one is told of as saved; the peer is one curl that has as many connections as we have, and knows all
addresses from the start. It neither hashes nor flushes.

Rounds alternate; processor time is the server's (or curl's) until it has come to rest.
"""

import base64
import collections
import hashlib
import http.client
import json
import os
import sys
import time
import urllib.parse

import bench

PIECES = (("pieces of 5 MB", 5_000_000), ("one piece", None))
CLIENTS = (1, 4)
KEY = {"X-FileSpin-Api-Key": bench.API_KEY}
# Files that a box fetches at once (NET_SLOTS in src/app.rs).
AT_ONCE = 4
# Longer than this nothing that is fetched here takes, in seconds.
PATIENCE = 600

# A server that takes uploads: how, and where it keeps them.
Side = collections.namedtuple("Side", "name pid connect send kept promise")


def main():
    parser = bench.arguments(__doc__, rounds=3, files=12, size_mb=100, small=200, large=5)
    parser.add_argument("--part", choices=("tus", "url"), help="one of the two alone")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.files, options.size_mb, options.small, options.large = 1, 4, 20, 40, 2
    for name, part in (("tus", in_pieces), ("url", fetched)):
        if options.part in (None, name):
            part(options)


# In pieces


def in_pieces(options):
    bodies = bench.Documents(options.size_mb * 1_000_000, max(CLIENTS))
    with bench.Workplace() as place:
        appliance = place.appliance(options.binary)
        box = Side(
            "cloakroom", appliance.process.pid, appliance.connect, by_tus,
            os.path.join(appliance.data_dir, "originals"), "hashed, flushed",
        )  # fmt: skip
        form = box._replace(name="cloakroom, a form", send=by_form)
        peer = tus_server(place)
        cases = [(way, size, clients) for way, size in PIECES for clients in CLIENTS]
        results = collections.defaultdict(list)
        for side in (box, peer):
            # The first upload starts what a server starts late, and is not counted.
            send_all(side, bodies, PIECES[0][1], 1, 1)
        for number in range(options.rounds):
            for case in cases:
                sides = [box, peer] if case[1] else [box, peer, form]
                for side in sides if number % 2 == 0 else reversed(sides):
                    results[case, side].append(measure(side, options, bodies, *case[1:]))
                    print(f"round {number + 1}, {called(case)}, {side.name}", file=sys.stderr)

    medians = {key: [bench.median(column) for column in zip(*rows)] for key, rows in results.items()}
    hashing = hashing_s_per_gb()
    print(f"{options.files} files of {options.size_mb} MB; hashing alone takes {hashing:.2f} CPU s/GB\n")
    heads = ["", "MB/s answered", "MB/s on the disk", "CPU s/GB", "before it is answered"]
    bench.table(
        heads, [[f"{called(case)}, {side.name}", *row, side.promise] for (case, side), row in medians.items()]
    )
    print()
    for case in cases:
        ours, theirs = medians[case, box], medians[case, peer]
        beside = f"{called(case)}, beside tus-node-server"
        bench.ratio(f"{beside}: MB/s answered", ours[0], theirs[0])
        bench.ratio(f"{beside}: MB/s on the disk", ours[1], theirs[1])
        bench.ratio(f"{beside}: CPU", ours[2], theirs[2])
        bench.ratio(f"{beside}: CPU, hashing taken off", ours[2] - hashing, theirs[2])
        plain = medians[PIECES[1] + case[2:], form]
        bench.ratio(f"{called(case)}, beside a form of ours: MB/s", ours[0], plain[0])
        bench.ratio(f"{called(case)}, beside a form of ours: CPU", ours[2], plain[2], "≤ 1.1×")


def called(case):
    return f"{case[0]}, {case[2]} client{'s' if case[2] > 1 else ''}"


def tus_server(place):
    """The peer, the newest that npm has."""
    bench.need_packages(nodejs="node", npm="npm")
    home = bench.install(
        "tus",
        "node_modules/@tus/file-store",
        ["npm", "install", "--prefix", "HOME", "--no-audit", "--no-fund", "--loglevel=error"]
        + ["@tus/server", "@tus/file-store"],
    )
    with open(os.path.join(home, "node_modules", "@tus", "server", "package.json"), encoding="utf-8") as about:
        version = json.load(about)["version"]
    kept = os.path.join(place.path, "tus")
    os.makedirs(kept)
    port = bench.free_port()
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "peers", "tus_server.mjs")
    process = place.start(["node", script, home, str(port), kept], port)

    def connect():
        return http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    return Side(f"tus-node-server {version}", process.pid, connect, by_tus, kept, "written")


def measure(side, options, bodies, piece_bytes, clients):
    """Sends all files once: MB/s until answered and until on the disk, processor seconds for a GB."""
    bench.settle(side.pid)
    # What another side left in memory must not be written out at this one's cost.
    os.sync()
    spent = bench.Spent(side.pid)
    answered_s = send_all(side, bodies, piece_bytes, clients, options.files)
    flushed_s = answered_s + bench.written_s()
    bench.settle(side.pid)
    cpu_s = spent.all()
    empty(side.kept)
    total_mb = options.files * options.size_mb
    return total_mb / answered_s, total_mb / flushed_s, cpu_s / total_mb * 1000


def send_all(side, bodies, piece_bytes, clients, files):
    def send(connection, _):
        with bodies.next() as body:
            side.send(connection, body, piece_bytes or len(body))

    return bench.together(clients, files, side.connect, send)


def by_tus(connection, body, piece_bytes):
    name = base64.b64encode(b"document.txt").decode()
    about = {"Upload-Length": str(len(body)), "Upload-Metadata": f"filename {name}"}
    answer = tus(connection, "POST", "/files", 201, about)
    path = urllib.parse.urlsplit(answer.headers["Location"]).path
    offset = 0
    while offset < len(body):
        piece = body[offset : offset + piece_bytes]
        about = {"Upload-Offset": str(offset), "Content-Type": "application/offset+octet-stream"}
        answer = tus(connection, "PATCH", path, 204, about, piece)
        if int(answer.headers["Upload-Offset"]) != offset + len(piece):
            raise bench.Failed(f"the upload goes on at {answer.headers['Upload-Offset']}, not behind its last piece")
        offset += len(piece)


def tus(connection, method, path, expected, headers, body=None):
    connection.request(method, path, body, {"Tus-Resumable": "1.0.0", **KEY, **headers})
    answer = connection.getresponse()
    text = answer.read()
    if answer.status != expected:
        raise bench.Failed(f"{method} {path} was answered {answer.status}: {text[:300]!r}")
    return answer


def by_form(connection, body, _):
    status, answer = bench.post_file(connection, "document.txt", body)
    if status != 200:
        raise bench.Failed(f"a form was answered {status}: {answer[:300]!r}")


def empty(folder):
    """Makes room for the next round behind a server's back, which has no business with these files any more."""
    for directory, _, names in os.walk(folder):
        for name in names:
            os.unlink(os.path.join(directory, name))


def hashing_s_per_gb():
    """What MD5 and SHA-256 cost as OpenSSL computes them."""
    block = os.urandom(bench.MIB)
    md5, sha256 = hashlib.md5(), hashlib.sha256()
    began = time.process_time()
    for _ in range(200):
        md5.update(block)
        sha256.update(block)
    return (time.process_time() - began) / (200 * bench.MIB / 1e9)


# Fetched


def fetched(options):
    bench.need_packages(curl="curl")
    cases = (("1 MB", 1_000_000, options.small), ("200 MB", 200_000_000, options.large))
    results = collections.defaultdict(list)
    with bench.Workplace() as place:
        files, taken = os.path.join(place.path, "files"), os.path.join(place.path, "taken")
        os.makedirs(files)
        os.makedirs(taken)
        _, port = place.nginx(f"root {files};")
        addresses = {case: put_there(files, port, *case) for case in cases}
        appliance = place.appliance(options.binary, environment={"CLOAKROOM_NET__ALLOW": "127.0.0.0/8"})
        fetch_by_box(appliance, addresses[cases[0]][:1])
        for number in range(options.rounds):
            for case in cases:
                sides = ["cloakroom", "curl"]
                for side in sides if number % 2 == 0 else reversed(sides):
                    results[case, side].append(measure_fetch(side, appliance, addresses[case], case, taken))
                    print(f"round {number + 1}, files of {case[0]}, {side}", file=sys.stderr)

    medians = {key: [bench.median(column) for column in zip(*rows)] for key, rows in results.items()}
    print(f"{options.small} files of 1 MB, {options.large} of 200 MB; {AT_ONCE} at once\n")
    bench.table(
        ["", "files/s", "MB/s", "MB/s on the disk", "CPU s/GB"],
        [[f"files of {case[0]}, {side}", *row] for (case, side), row in medians.items()],
    )
    print()
    for case in cases:
        ours, theirs = medians[case, "cloakroom"], medians[case, "curl"]
        beside = f"files of {case[0]}, beside curl"
        bench.ratio(f"{beside}: files/s", ours[0], theirs[0])
        bench.ratio(f"{beside}: MB/s on the disk", ours[2], theirs[2])
        bench.ratio(f"{beside}: CPU", ours[3], theirs[3])


def put_there(folder, port, what, size_bytes, count):
    """Files for the source; their addresses."""
    bodies = bench.Documents(size_bytes)
    names = [f"{what.replace(' ', '')}-{number}.txt" for number in range(count)]
    for name in names:
        with bodies.next() as body, open(os.path.join(folder, name), "wb") as out:
            out.write(body)
    return [f"http://127.0.0.1:{port}/{name}" for name in names]


def measure_fetch(side, appliance, addresses, case, taken):
    """Has all files fetched once: files/s, MB/s until told and until on the disk, processor seconds for a GB."""
    pid = appliance.process.pid
    bench.settle(pid)
    os.sync()
    if side == "cloakroom":
        spent = bench.Spent(pid)
        told_s = fetch_by_box(appliance, addresses)
        flushed_s = told_s + bench.written_s()
        bench.settle(pid)
        cpu_s = spent.all()
        empty(os.path.join(appliance.data_dir, "originals"))
    else:
        outs = [word for n, address in enumerate(addresses) for word in ("-o", os.path.join(taken, str(n)), address)]
        told_s, cpu_s = bench.timed(["curl", "-sSf", "--no-progress-meter", "-Z", "--parallel-max", str(AT_ONCE), *outs])
        flushed_s = told_s + bench.written_s()
        empty(taken)
    total_mb = len(addresses) * case[1] / 1e6
    return len(addresses) / told_s, total_mb / told_s, total_mb / flushed_s, cpu_s / total_mb * 1000


def fetch_by_box(appliance, addresses):
    """Seconds from the first order until the feed has told that the last file is saved."""
    listening = appliance.connect()
    listening.request("GET", "/api/v1/feed", headers=KEY)
    feed = listening.getresponse()
    while feed.readline().strip() != b": listening":
        pass
    orders = appliance.connect()
    began = time.monotonic()
    for address in addresses:
        orders.request("POST", "/api/v1/assets/new/content/original/external", json.dumps({"key": address}), KEY)
        answer = orders.getresponse()
        text = answer.read()
        if answer.status != 200:
            sys.exit(f"an order was answered {answer.status}: {text[:300]!r}")
    saved = 0
    while saved < len(addresses):
        line = feed.readline()
        if not line or time.monotonic() - began > PATIENCE:
            sys.exit(f"only {saved} of {len(addresses)} files came")
        if line.startswith(b"data: "):
            told = json.loads(line.removeprefix(b"data: "))
            if told["event"] == "file-saved":
                if told["body"]["status"] != "OK":
                    sys.exit(f"a file came as something else: {told}")
                saved += 1
    took_s = time.monotonic() - began
    orders.close()
    listening.close()
    return took_s


if __name__ == "__main__":
    main()
