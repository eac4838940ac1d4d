#!/usr/bin/python3
"""Hostile files and mutants, uploaded to the real server and asked for as pictures.

    server.py CLOAKROOM [--count 6] [--seed 0] [--clients 4]

Several clients at once. Each file is uploaded; whatever it is taken for, a small picture of it is asked for. An answer
is a picture, or a 4xx with a sentence, or 503 BUSY; anything else is a finding, and so is an answer that a browser
could take for a page. Then come parameters that nobody should send. Afterwards the server is the process it was, its
memory is what it was, no request is left hanging, and a good picture is served. Ends with 0, or with the findings.
"""

import argparse
import collections
import concurrent.futures
import http.client
import itertools
import json
import os
import re
import sys
import threading
import urllib.parse

import files
import mutants

sys.path[:0] = [os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "torture")]

from appliance import API_KEY  # noqa: E402
from appliance import Appliance  # noqa: E402
from appliance import directory  # noqa: E402
from appliance import post_file  # noqa: E402

# How much the server itself may grow; the workers have limits of their own.
MOST_GROWTH_MIB = 200
# Frames and the like in the files by hand; `workers.py` shows the full million.
MANY = 100_000

# How often each status was answered.
ANSWERS = collections.Counter()

# Queries, and whether each must be refused; None leaves it to the server.
PARAMETERS = [
    ("resize=-1,-1", True), ("resize=0,0", True), ("resize=1e3,1", True), ("resize=NaN,1", True), ("resize=,", True),
    ("resize=99999999999999999999,99999999999999999999", False), ("resize=1,1", False), ("resize=١,٢", True),
    ("resize=10", True), ("resize=10,10,10,10", True), ("resize=10,10&resize=x", True), ("resize=x&resize=10,10", False),
    ("resize=0x10,10", True), ("resize=+5,5", None), ("resize=%31%30,10", False), ("resize=10%2C10", False),
    ("resize=10,10%00", True), ("resize=10,10%0d%0aSet-Cookie:%20a=b", True), ("resize=" + "9" * 10_000 + ",1", None),
    ("crop=0,0,0,0", True), ("crop=1,1,1,1", False), ("crop=4294967295,4294967295,4294967295,4294967295", False),
    ("crop=99999999999,0,10,10", False), ("crop=10,10,up", True), ("crop=10,10,face,face", True), ("crop=,,,", True),
    ("crop=1,1&crop=2,2&crop=3,3", False), ("crop=1,1,northeast&resize=5,5&rotate=45", False),
    ("rotate=1e308", True), ("rotate=-0.0001", None), ("rotate=99999999999999", None), ("rotate=inf", True),
    ("rotate=359.99&crop=2000,1500&resize=2048,2048&blur=100&sharpen=100&grayscale&bgcolor=fff", False),
    ("quality=0", False), ("quality=101", False), ("quality=-1", True), ("quality=85.5", True), ("quality=" + "1" * 10_000, None),
    ("format=exe", True), ("format=svg", True), ("format=../../etc/passwd", True), ("format=", None), ("format=JPG", None),
    ("bgcolor=zzzzzz", True), ("bgcolor=%23ffffff", True), ("bgcolor=" + "f" * 10_000, True), ("bgcolor=ééé", True),
    ("dpr=0", False), ("dpr=-2", True), ("dpr=1e9", True), ("dpr=99999", False), ("dpr=4&resize=2048,2048", False),
    ("blur=-1", True), ("blur=1e9", True), ("blur=99999", False), ("blur=100&resize=2048,2048", False),
    ("sharpen=101", False), ("sharpen=-1", True), ("sharpen=abc", True), ("trim=101", False), ("trim=-1", True), ("trim=100", False),
    ("flip=x", True), ("flip=hvhv", True), ("grayscale=2", True), ("grayscale=maybe", True),
    ("nonsense=" + "x" * 10_000, None), ("x" * 10_000, None), ("&" * 5_000, None), ("=&=&=&=", None), ("%", None), ("%ff=%ff", None),
    ("&".join(f"a{n}=1" for n in range(2_000)), None), ("&".join(["resize=10,10"] * 700), None), ("resize[]=10,10", False),
    ("format=jpg&format=png&format=avif", False), ("resize=10,10;quality=5", True), ("?resize=10,10", None),
]  # fmt: skip


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("binary")
    arguments.add_argument("--count", type=int, default=6, help="mutants of each format")
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--clients", type=int, default=4)
    options = arguments.parse_args()
    # A file that cannot be kept because the disk is nearly full is no finding here.
    environment = {"CLOAKROOM_STORAGE__FREE_FLOOR_BYTES": "1048576"}
    with (
        directory("hostile-") as place,
        Appliance(options.binary, os.path.join(place, "data"), environment=environment) as appliance,
    ):
        findings = run(appliance, options)
    if findings:
        sys.exit(f"{len(findings)} findings:\n" + "\n".join(findings))


def run(appliance, options):
    pid = appliance.process.pid
    findings = []
    good = files.golden("photo.jpg")
    findings += show(appliance, "good.jpg", good, wanted=200)
    before = resident_mib(pid)
    mutated = (mutants.of(group, options.count, options.seed) for group in mutants.groups())
    those = itertools.chain(files.all_files(MANY), *mutated)
    taking, seen = threading.Lock(), [0]

    def client():
        found = []
        while True:
            with taking:
                name, data = next(those, (None, None))
                seen[0] += 1
            if name is None:
                return found
            found += show(appliance, name, data)

    with concurrent.futures.ThreadPoolExecutor(options.clients) as pool:
        for found in [pool.submit(client) for _ in range(options.clients)]:
            findings += found.result()
    findings += abuse(appliance, good)
    if appliance.process.poll() is not None or appliance.process.pid != pid:
        findings.append("the server is gone")
        return findings
    findings += show(appliance, "good again.jpg", good + b"\0", wanted=200)
    growth = resident_mib(pid) - before
    if growth > MOST_GROWTH_MIB:
        findings.append(f"the server has grown by {growth:.0f} MiB")
    print(f"{seen[0] - options.clients} files and {len(PARAMETERS)} queries; the server has grown by {growth:.0f} MiB")
    print("answers: " + ", ".join(f"{count} × {status}" for status, count in sorted(ANSWERS.items())))
    return findings


def show(appliance, name, data, wanted=None):
    """Uploads a file and asks for pictures of it; what was wrong with the answers."""
    connection = appliance.connect(timeout_s=120)
    findings = []
    try:
        status, body = post_file(connection, name, data)
        findings += judge(f"upload of {name}", status, "application/json", body)
        if status // 100 != 2:
            return findings
        asset = json.loads(body)["assets"][0]["id"]
        for query in ("resize=50,50&format=jpg", "crop=30,20&format=png"):
            status, kind, body = ask(appliance, f"/api/v1/assets/{asset}/conversions?{query}")
            # While it is looked at, it is not ready.
            findings += judge(f"{name}?{query}", status, kind, body)
            if wanted and status != wanted:
                findings.append(f"{name}?{query}: {status} instead of {wanted}: {body[:200]!r}")
        status, kind, body = ask(appliance, f"/api/v1/assets/{asset}/data")
        findings += judge(f"data of {name}", status, kind, body)
    except (OSError, http.client.HTTPException) as error:
        findings.append(f"{name}: no answer: {error!r}")
    finally:
        connection.close()
    return findings


def ask(appliance, path):
    """`(status, media type, body)`; what a browser could misunderstand is looked at here."""
    connection = appliance.connect(timeout_s=120)
    try:
        connection.putrequest("GET", path, skip_accept_encoding=True)
        connection.putheader("X-FileSpin-Api-Key", API_KEY)
        connection.endheaders()
        answer = connection.getresponse()
        body = answer.read()
        kind = (answer.getheader("Content-Type") or "").split(";")[0]
        if answer.getheader("Set-Cookie") or (kind.startswith("image/") and answer.getheader("X-Content-Type-Options") != "nosniff"):
            return answer.status, "without nosniff", body
        return answer.status, kind, body
    finally:
        connection.close()


def judge(what, status, kind, body):
    ANSWERS[status] += 1
    if status == 200 and kind.startswith("image/"):
        return [f"{what}: a script came through"] if b"<script" in body else []
    if status == 503 and b'"BUSY"' in body:
        return []
    try:
        said = json.loads(body)
    except ValueError:
        return [f"{what}: {status} {kind}, and no JSON: {body[:100]!r}"]
    if status < 300:
        return []
    if status >= 500:
        return [f"{what}: {status}: {body[:300]!r}"]
    if not isinstance(said.get("message"), str) or not said.get("detail") or re.search(r"/home/|/usr/|/tmp/|\.rs:", str(said)):
        return [f"{what}: {status} without a sentence, or with too much: {body[:300]!r}"]
    return []


def abuse(appliance, good):
    """Parameters that nobody should send, to a good picture."""
    asset = appliance.upload("for parameters.jpg", good + b"\0\0")
    appliance.wait_until_ok(asset)
    findings = []
    for query, refused in PARAMETERS:
        what = f"?{query[:60]}"
        path = f"/api/v1/assets/{asset}/conversions?" + urllib.parse.quote(query, safe="%&=,;.:?[]+/")
        try:
            status, kind, body = ask(appliance, path)
        except (OSError, http.client.HTTPException) as error:
            findings.append(f"{what}: no answer: {error!r}")
            continue
        # A head beyond the server's limits is answered before anybody has read it, with or without a sentence.
        if status not in (414, 431):
            findings += judge(what, status, kind, body)
        if refused is not None and (status == 200) == refused:
            findings.append(f"{what}: answered {status}: {body[:120]!r}")
    return findings


def resident_mib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        return int(re.search(r"VmRSS:\s+(\d+)", status.read())[1]) / 1024


if __name__ == "__main__":
    main()
