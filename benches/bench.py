"""What the benches share: peers, processor time, memory, medians and tables.

A bench runs us and a peer in turns on the same machine, on loopback, and compares medians; only the ratios mean
anything elsewhere. Processor time is read from /proc for the whole process tree of a server, so nothing that it
hands to a worker is forgotten. What a peer needs is installed on first use: Debian packages by apt-get, the rest
under target/bench-peers/.
"""

import argparse
import contextlib
import itertools
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PEERS = os.path.join(os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target")), "bench-peers")
sys.path[:0] = [os.path.join(ROOT, "tests", "scripts"), os.path.join(ROOT, "tests", "torture")]

# Imported from there for the benches.
import picture  # noqa: E402
from appliance import API_KEY  # noqa: E402
from appliance import Appliance  # noqa: E402
from appliance import descendants  # noqa: E402
from appliance import post_file  # noqa: E402

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
MIB = 1 << 20


def arguments(doc, **numbers):
    """The arguments every bench takes, and numbers of its own as `--name`; `--quick` is for a look."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("binary", nargs="?", default=os.path.join(ROOT, "target", "release", "cloakroom"))
    parser.add_argument("--quick", action="store_true", help="one short round: shows that it works, not how fast it is")
    for name, value in numbers.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    return parser


def need_packages(**programs):
    """`package="program"`: installs each Debian package whose program is missing."""
    missing = [package.replace("_", "-") for package, program in programs.items() if not shutil.which(program)]
    if missing:
        install_packages(missing)


def install(name, proof, *commands):
    """Something into a directory of its own under target/bench-peers, on first use; where that is."""
    home = os.path.join(PEERS, name)
    if not os.path.exists(os.path.join(home, proof)):
        print(f"installing {name}", file=sys.stderr)
        os.makedirs(home, exist_ok=True)
        for command in commands:
            words = [word.replace("HOME", home) for word in command]
            subprocess.run(words, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    return home


def install_packages(names):
    """Installs Debian packages, with sudo when not root."""
    print(f"installing Debian packages: {' '.join(names)}", file=sys.stderr)
    root = [] if os.geteuid() == 0 else ["sudo"]
    install = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-qy", "--no-install-recommends", *names]
    for command in (["apt-get", "update", "-q"], install):
        run = subprocess.run([*root, *command], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
        if run.returncode:
            sys.exit(f"{' '.join(command)} failed:\n{run.stdout}{run.stderr}")


class Workplace:
    """A temporary directory and the servers started in it; both end with the `with` block."""

    def __enter__(self):
        # Beside the build, not in /tmp: that may be memory, on which a flush costs nothing.
        os.makedirs(PEERS, exist_ok=True)
        self.path = tempfile.mkdtemp(prefix="run-", dir=PEERS)
        self.peers = []
        self.appliances = []
        return self

    def __exit__(self, *_):
        # An appliance may have been restarted meanwhile; what counts is the process it has now.
        for process in self.peers + [appliance.process for appliance in self.appliances]:
            if process and process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        shutil.rmtree(self.path, ignore_errors=True)

    def appliance(self, binary, listen=("127.0.0.1:0",), name="cloakroom", environment=None):
        """Our server on a fresh data directory, with further settings as variables."""
        if not os.path.exists(binary):
            sys.exit(f"{binary} is not built yet: cargo build --release")
        os.makedirs(os.path.join(self.path, name))
        appliance = Appliance(binary, os.path.join(self.path, name, "data"), listen, environment)
        self.appliances.append(appliance)
        appliance.start()
        return appliance

    def nginx(self, locations, tls=False):
        """nginx with these locations, set up for static files: `(process, port)`.

        `tcp_nopush` stays off: on loopback it costs nginx four times the CPU for a large range.
        """
        need_packages(nginx_light="nginx", openssl="openssl")
        port = free_port()
        home = os.path.join(self.path, f"nginx-{port}")
        os.makedirs(home)
        secure = ""
        if tls:
            certificate(home)
            secure = f"ssl_certificate {home}/cert.pem; ssl_certificate_key {home}/key.pem; ssl_protocols TLSv1.3;"
        with open(f"{home}/nginx.conf", "w", encoding="ascii") as file:
            file.write(
                f"""
                daemon off; worker_processes auto; pid {home}/pid; error_log {home}/error.log;
                {"user root;" if os.geteuid() == 0 else ""}
                events {{ worker_connections 1024; }}
                http {{
                    access_log off; sendfile on; keepalive_requests 1000000;
                    open_file_cache max=1000; client_max_body_size 0;
                    client_body_temp_path {home}/temp; proxy_temp_path {home}/p; fastcgi_temp_path {home}/f;
                    uwsgi_temp_path {home}/u; scgi_temp_path {home}/s;
                    server {{ listen 127.0.0.1:{port} {"ssl" if tls else ""}; {secure} {locations} }}
                }}"""
            )
        return self.start(["nginx", "-c", f"{home}/nginx.conf", "-e", f"{home}/error.log"], port), port

    def start(self, command, port, **more):
        """Starts a peer and waits until it accepts connections."""
        log_path = os.path.join(self.path, f"peer-{port}.log")
        with open(log_path, "wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, **more)
        self.peers.append(process)
        began = time.monotonic()
        while time.monotonic() - began < 30 and process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return process
            except OSError:
                time.sleep(0.02)
        with open(log_path, encoding="utf-8", errors="replace") as log:
            sys.exit(f"{command[0]} did not start:\n{log.read()}")


def certificate(directory):
    """A self-signed certificate of the kind our own server makes for itself: P-256."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1"]
        + ["-subj", "/CN=localhost", "-keyout", f"{directory}/key.pem", "-out", f"{directory}/cert.pem"],
        check=True,
        capture_output=True,
    )


def free_port():
    """A port that was free a moment ago, for peers that cannot choose one and say so."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Failed(Exception):
    """A server did not do what it was asked."""


class Documents:
    """Files of one size for so many clients at once, no two alike: a text in front, so that a server knows what they
    are and has nothing to make of them, and noise behind it.
    """

    _numbers = itertools.count()

    def __init__(self, size_bytes, clients=1):
        noise = os.urandom(MIB)
        whole = b"Nothing is made of a text. ".ljust(4096, b"-") + noise * (size_bytes // MIB + 1)
        self._idle = [bytearray(whole[:size_bytes]) for _ in range(clients)]

    @contextlib.contextmanager
    def next(self):
        """The next one, for as long as the block lasts."""
        body = self._idle.pop()
        body[:12] = f"{next(self._numbers):012}".encode()
        try:
            yield memoryview(body)
        finally:
            self._idle.append(body)


def together(clients, count, connect, work):
    """Seconds that clients, each on a connection of its own, take to do `work(connection, number)` so many times."""
    numbers = iter(range(count))
    lock = threading.Lock()
    failures = []

    def client():
        connection = connect()
        while not failures:
            with lock:
                number = next(numbers, None)
            if number is None:
                break
            try:
                work(connection, number)
            except Exception as error:
                # Whatever it is: the others must not be measured without this one.
                failures.append(f"{type(error).__name__}: {error}")
        connection.close()

    threads = [threading.Thread(target=client) for _ in range(clients)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        sys.exit(failures[0])
    return time.monotonic() - began


def written_s():
    """Seconds until nothing that a server left in memory waits for the disk."""
    began = time.monotonic()
    os.sync()
    return time.monotonic() - began


def timed(command, **more):
    """Runs a program to its end: seconds, and processor seconds."""
    began = time.monotonic()
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **more
    )
    complaint = process.stderr.read().decode(errors="replace")
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{command[0]} ended with {process.returncode}:\n{complaint[-3000:]}")
    return time.monotonic() - began, usage.ru_utime + usage.ru_stime


class Spent:
    """Processor seconds of a process tree between `Spent(pid)` and `.own()` / `.children()` / `.all()`."""

    def __init__(self, pid):
        self.pid = pid
        self.own_before = _own_seconds(pid)
        self.all_before = _tree_seconds(pid)

    def own(self):
        """Of the server process alone."""
        return _own_seconds(self.pid) - self.own_before

    def all(self):
        """Of the server and everything it started, living or ended."""
        return _tree_seconds(self.pid) - self.all_before

    def children(self):
        """Of what it started."""
        return self.all() - self.own()


def settle(pid, idle_s=0.5, timeout_s=120):
    """Waits until a process tree has done next to nothing for a while: its background work is finished."""
    began = time.monotonic()
    while time.monotonic() - began < timeout_s:
        spent = Spent(pid)
        time.sleep(idle_s)
        if spent.all() <= 0.02 * idle_s + 1 / TICKS_PER_S:
            return
    sys.exit(f"process {pid} never came to rest")


def memory_mib(pid):
    """Memory of a process tree: `(resident, proportional)`; the second counts shared pages once."""
    resident = proportional = 0
    for each in [pid, *descendants(pid)]:
        try:
            with open(f"/proc/{each}/smaps_rollup", encoding="ascii") as rollup:
                fields = {line.split(":")[0]: line.split()[1] for line in rollup if line[0].isupper()}
        except (FileNotFoundError, ProcessLookupError):
            continue
        resident += int(fields["Rss"]) / 1024
        proportional += int(fields["Pss"]) / 1024
    return resident, proportional


class PeakMemory:
    """The highest resident memory of a process tree within a `with` block, in MiB, looked at every 20 ms."""

    def __init__(self, pid):
        self.pid = pid

    def __enter__(self):
        self.before = self.peak = self._resident()
        self._done = threading.Event()
        self._watcher = threading.Thread(target=self._watch)
        self._watcher.start()
        return self

    def __exit__(self, *_):
        self._done.set()
        self._watcher.join()

    def growth(self):
        """Above what it was at the beginning."""
        return self.peak - self.before

    def _watch(self):
        while not self._done.wait(0.02):
            self.peak = max(self.peak, self._resident())

    def _resident(self):
        pages = 0
        for each in [self.pid, *descendants(self.pid)]:
            try:
                with open(f"/proc/{each}/statm", encoding="ascii") as statm:
                    pages += int(statm.read().split()[1])
            except (FileNotFoundError, ProcessLookupError):
                pass
        return pages * os.sysconf("SC_PAGESIZE") / MIB


def median(values):
    return statistics.median(values)


def percentile(values, share):
    """The value that `share` of all values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def table(heads, rows):
    """Prints rows under heads: text to the left, numbers to the right with three digits that matter."""
    cells = [[cell if isinstance(cell, str) else _number(cell) for cell in row] for row in rows]
    widths = [max(len(line[column]) for line in [heads, *cells]) for column in range(len(heads))]
    for index, line in enumerate([heads, *cells]):
        text = [line[0].ljust(widths[0])] + [cell.rjust(width) for cell, width in zip(line[1:], widths[1:])]
        print("  ".join(text))
        if index == 0:
            print("  ".join("-" * width for width in widths))


def ratio(what, ours, theirs, target=None):
    """Prints one ratio, and what it should be."""
    said = f"{ours / theirs:.2f}×" if theirs else "–"
    print(f"{what}: {said}" + (f" (target {target})" if target else ""))


def _number(value):
    if value is None:
        return "–"
    if value == 0 or abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.{1 if abs(value) >= 10 else 2}f}"


def _own_seconds(pid):
    return sum(_times(pid)[:2])


def _tree_seconds(pid):
    return sum(sum(_times(each)) for each in [pid, *descendants(pid)])


def _times(pid):
    """User, system, and those of ended children, in seconds."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as stat:
            fields = stat.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return (0, 0, 0, 0)
    return tuple(int(ticks) / TICKS_PER_S for ticks in fields[11:15])
