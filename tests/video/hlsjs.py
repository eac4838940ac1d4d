#!/usr/bin/python3
"""Plays a stream with hls.js in Chromium, changing the variant at every segment, and says how it went.

    hlsjs.py FOLDER            the folder of a `playlist.m3u8`, which is served from here
    hlsjs.py ADDRESS           of a master playlist that everybody may have, such as http://127.0.0.1:8080/api/v1/assets/…/playlist.m3u8
    hlsjs.py --self-test       a stream of ffmpeg's passes, and one with a hole in it does not

Played to its end, without an error that hls.js gives up at, in one buffered stretch, and every variant was seen. hls.js
comes from npm on first use, into `target/video-peers`; Debian has chromium and nodejs. Not part of `cargo test`, for
chromium is large. Ends with 0, or with what was wrong.
"""

import argparse
import contextlib
import http.server
import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading

import check
import inputs

PEERS = os.path.join(os.environ.get("CARGO_TARGET_DIR", os.path.join(inputs.ROOT, "target")), "video-peers")
HLS_JS = "hls.js@1.6.13"
# Faster than it is meant, so that nobody waits for long.
RATE = 2
MOST_S = 120

PAGE = """<!doctype html><title>hls.js</title><video id="video" muted playsinline></video><script src="/hls.js"></script>
<script>
const video = document.getElementById('video');
const told = { errors: [], fatal: [], levels: [], sizes: [], changes: 0, stalls: 0, ranges: 0, ended: false };
let said = false;
function tell(why) {
  if (said) return;
  said = true;
  Object.assign(told, { why, at: video.currentTime, duration: video.duration, ended: video.ended });
  told.frames = video.getVideoPlaybackQuality();
  told.frames = { all: told.frames.totalVideoFrames, dropped: told.frames.droppedVideoFrames };
  fetch('/told', { method: 'POST', body: JSON.stringify(told) });
}
window.onerror = message => tell('the page: ' + message);
const hls = new Hls({ startLevel: 0, maxBufferLength: 600, maxMaxBufferLength: 600, backBufferLength: Infinity });
hls.on(Hls.Events.MANIFEST_PARSED, () => { told.known = hls.levels.length; video.playbackRate = RATE; video.play(); });
hls.on(Hls.Events.FRAG_BUFFERED, (_, { frag }) => {
  if (frag.type !== 'main') return;
  if (!told.levels.includes(frag.level)) told.levels.push(frag.level);
  hls.nextLoadLevel = (frag.level + 1) % hls.levels.length;
  told.changes += hls.levels.length > 1 ? 1 : 0;
});
hls.on(Hls.Events.ERROR, (_, error) => {
  const text = error.details + (error.reason ? ': ' + error.reason : '');
  (error.fatal ? told.fatal : told.errors).push(text);
  if (error.fatal) tell(text);
});
video.onwaiting = () => { if (video.currentTime > 0.5) told.stalls++; };
video.onresize = () => { const size = video.videoWidth + 'x' + video.videoHeight; if (!told.sizes.includes(size)) told.sizes.push(size); };
video.ontimeupdate = () => { told.ranges = Math.max(told.ranges, video.buffered.length); };
video.onended = () => tell('the end');
hls.loadSource('/master');
hls.attachMedia(video);
</script>""".replace("RATE", str(RATE))


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("where", nargs="?")
    arguments.add_argument("--self-test", action="store_true")
    options = arguments.parse_args()
    if options.self_test:
        sys.exit(self_test())
    if not options.where:
        arguments.error("which stream?")
    with contextlib.ExitStack() as stack:
        address = options.where
        if os.path.isdir(address):
            address = stack.enter_context(check.Served(address)) + "/playlist.m3u8"
        wrong, told = play(address)
    print(json.dumps(told))
    if wrong:
        sys.exit("\n".join(wrong))
    print("played")


def self_test():
    import check_self

    with tempfile.TemporaryDirectory(prefix="hlsjs-") as home:
        check_self.make(os.path.join(home, "good"))
        hls = os.path.join(home, "good", "hls")
        with check.Served(hls) as address:
            wrong, told = play(address + "/playlist.m3u8")
        print(json.dumps(told))
        if wrong:
            return "what is good did not play:\n" + "\n".join(wrong)
        os.remove(os.path.join(hls, "720p", "001.m4s"))
        with check.Served(hls) as address:
            wrong, told = play(address + "/playlist.m3u8")
        print(json.dumps(told))
        if not wrong:
            return "nobody missed a segment"
    print("one plays, and one does not")
    return 0


def play(address):
    """`(what was wrong, what the page told)`."""
    told = in_chromium(address)
    if told is None:
        return [f"the page said nothing for {MOST_S} s"], None
    wrong = [f"hls.js gave up: {why}" for why in told["fatal"]]
    # Waiting for a busy machine is no fault of the stream.
    wrong += [f"hls.js complained: {why}" for why in told["errors"] if not why.startswith("bufferStalledError")]
    if not told["ended"]:
        wrong.append(f"it ended at {told['at']:.2f} of {told['duration'] or 0:.2f} s: {told['why']}")
    if told["ranges"] != 1:
        wrong.append(f"what was buffered lay in {told['ranges']} pieces")
    # A short one has fewer segments than variants.
    if len(told["levels"]) < min(told.get("known", 0), told["changes"] or 1):
        wrong.append(f"of {told.get('known')} variants only {told['levels']} were seen")
    return wrong, told


def in_chromium(address):
    answers = queue.Queue()
    script = inputs.read(hls_js())

    class Pages(http.server.BaseHTTPRequestHandler):
        def do_GET(self):  # noqa: N802
            if self.path == "/master":
                # Where it leads is relative to the stream's own place.
                self.send_response(302)
                self.send_header("Location", address)
                self.end_headers()
                return
            body, kind = (script, "text/javascript") if self.path == "/hls.js" else (PAGE.encode(), "text/html; charset=utf-8")
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self):  # noqa: N802
            answers.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pages)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory(prefix="chromium-") as profile:
        # Segments come from another port, which is another origin; the server allows it, a folder served here need not.
        words = ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--mute-audio", "--no-first-run", "--disable-web-security"]
        words += ["--autoplay-policy=no-user-gesture-required", f"--user-data-dir={profile}", f"http://127.0.0.1:{server.server_port}/"]
        try:
            browser = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        except FileNotFoundError:
            sys.exit("this needs chromium: install chromium")
        try:
            return answers.get(timeout=MOST_S)
        except queue.Empty:
            return None
        finally:
            browser.terminate()
            try:
                browser.wait(10)
            except subprocess.TimeoutExpired:
                browser.kill()
                browser.wait()
            server.shutdown()


def hls_js():
    path = os.path.join(PEERS, "node_modules", "hls.js", "dist", "hls.min.js")
    if not os.path.exists(path):
        if not shutil.which("npm"):
            sys.exit("hls.js comes by npm: install npm")
        print("installing hls.js", file=sys.stderr)
        os.makedirs(PEERS, exist_ok=True)
        words = ["npm", "install", "--prefix", PEERS, "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error", HLS_JS]
        subprocess.run(words, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    return path


if __name__ == "__main__":
    main()
