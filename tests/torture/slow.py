#!/usr/bin/python3
"""Clients that are slow, stop halfway or vanish, against the real server.

    slow.py BINARY [--limit-s 60]

First on a server that waits an hour for the next byte: while one client has sent half a file and another sends a byte
now and then, ordinary ones are answered. Then on one with the limits of the environment, all at once, each on its own
connection:

  - a body sent at one byte a second, for as long as the server allows;
  - a body that stops halfway through a file, the connection left open;
  - a client that vanishes in the middle of a file (reset);
  - a file part that ends without its closing boundary, in a body of the announced length.

Both slow clients have been sent away within `--limit-s`, no half file is visible or left in staging/, the unfinished
part was answered with a 4xx, and an ordinary upload works. Ends with 0, or with a sentence.
"""

import argparse
import os
import select
import socket
import struct
import sys
import threading
import time
import urllib.parse

from appliance import API_KEY
from appliance import UPLOAD
from appliance import Appliance
from appliance import directory

LENGTH = 1_000_000
# A server on which nobody is slow.
PATIENT = {"CLOAKROOM_HTTP__BODY_GRACE_SECONDS": "3600", "CLOAKROOM_HTTP__BODY_STALL_SECONDS": "3600"}
PART = b'--b\r\nContent-Disposition: form-data; name="file"; filename="f.bin"\r\n\r\n'


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("binary")
    arguments.add_argument("--limit-s", type=float, default=60)
    options = arguments.parse_args()
    with directory("slow-") as place:
        data = os.path.join(place, "data")
        with Appliance(options.binary, data, environment=PATIENT) as appliance:
            uploaded = meanwhile(appliance)
        with Appliance(options.binary, data) as appliance:
            run(appliance, options.limit_s, uploaded)


def meanwhile(appliance):
    """Ordinary clients are served while slow ones hang on the server; returns the names of their uploads."""
    names = []
    with opened(appliance) as dribbling, opened(appliance) as halfway:
        halfway.sendall(b"x" * (LENGTH // 2))
        for number in range(5):
            dribbling.sendall(b"x")
            if appliance.get("/readyz")[0] != 200:
                sys.exit("the server is not ready while slow clients hang on it")
            names.append(f"ordinary-{number}.bin")
            appliance.upload(names[-1], os.urandom(300_000))
        if select.select([dribbling, halfway], [], [], 0)[0]:
            sys.exit("a slow client was sent away, though the server allows it an hour")
    return names


def run(appliance, limit_s, uploaded):
    found = {}
    clients = [
        threading.Thread(target=dribble, args=(appliance, limit_s, found)),
        threading.Thread(target=stall, args=(appliance, limit_s, found)),
        threading.Thread(target=vanish, args=(appliance, found)),
        threading.Thread(target=leave_open, args=(appliance, found)),
    ]
    for client in clients:
        client.start()
    for client in clients:
        client.join()

    for what, sentence in found.items():
        print(f"{what}: {sentence}")
    for what in ("one byte a second", "stopped halfway"):
        if not found[what].startswith("sent away"):
            sys.exit(f"the client that sent {what} was still held after {limit_s} s")
    if not found["unfinished part"].startswith("HTTP/1.1 4"):
        sys.exit(f"a part without its end was answered {found['unfinished part']!r}, not with a 4xx")
    appliance.upload("afterwards.bin", os.urandom(300_000))
    names = sorted(item["name"] for item in appliance.assets())
    if names != sorted([*uploaded, "afterwards.bin"]):
        sys.exit(f"only {uploaded} and afterwards.bin should be visible, there are {names}")
    began = time.monotonic()
    while left := appliance.files("staging"):
        if time.monotonic() - began > 60:
            sys.exit(f"half files are left in staging/: {sorted(left)}")
        time.sleep(0.1)


def dribble(appliance, limit_s, found):
    """One byte a second."""
    with opened(appliance) as connection:
        connection.settimeout(1)
        found["one byte a second"] = until_sent_away(connection, limit_s, lambda: connection.send(b"x"))


def stall(appliance, limit_s, found):
    """Half the file, and then silence."""
    with opened(appliance) as connection:
        connection.sendall(b"x" * (LENGTH // 2))
        connection.settimeout(1)
        found["stopped halfway"] = until_sent_away(connection, limit_s, lambda: None)


def vanish(appliance, found):
    """Half the file, and then a reset."""
    with opened(appliance) as connection:
        connection.sendall(b"x" * (LENGTH // 2))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    found["vanished"] = "reset after half the file"


def leave_open(appliance, found):
    """The announced number of bytes, but no closing boundary."""
    with opened(appliance) as connection:
        connection.sendall(b"x" * (LENGTH - len(PART)))
        connection.settimeout(60)
        try:
            found["unfinished part"] = connection.recv(4096).split(b"\r\n")[0].decode()
        except OSError as error:
            found["unfinished part"] = repr(error)


def opened(appliance):
    """A connection on which an upload of `LENGTH` bytes has begun."""
    place = urllib.parse.urlsplit(appliance.addresses[0])
    connection = socket.create_connection((place.hostname, place.port))
    head = (
        f"POST {UPLOAD} HTTP/1.1\r\nHost: {place.netloc}\r\nX-FileSpin-Api-Key: {API_KEY}\r\n"
        f"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: {LENGTH}\r\n\r\n"
    )
    connection.sendall(head.encode() + PART)
    return connection


def until_sent_away(connection, limit_s, each_second):
    """Does something each second until the server answers or hangs up; says how that went."""
    began = time.monotonic()
    while time.monotonic() - began < limit_s:
        try:
            each_second()
            said = connection.recv(4096)
        except TimeoutError:
            continue
        except OSError as error:
            return f"sent away after {time.monotonic() - began:.0f} s ({error!r})"
        answer = said.split(b"\r\n")[0].decode() or "closed"
        return f"sent away after {time.monotonic() - began:.0f} s ({answer})"
    return f"still held after {limit_s:.0f} s"


if __name__ == "__main__":
    main()
