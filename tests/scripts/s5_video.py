#!/usr/bin/python3
"""S5: a film is uploaded, processed, linked to and played, as the vendor's guide has its readers do it with `requests`.
Then a small one, of which a rendition is made by itself, and with a watermark, a clip and a storyboard.

    s5_video.py BASE API_KEY

Nothing in here knows Cloakroom: with the vendor's base URLs it would run against the vendor. The films are ffmpeg's test
picture, ffprobe is the player, and ffmpeg looks at the pixels.
"""

import subprocess
import sys
import tempfile
import time

import requests

import picture

BASE, API_KEY = sys.argv[1:3]
API = f"{BASE}/api/v1"
CDN = f"{BASE}/api/v1"
HEADERS = {"X-FileSpin-Api-Key": API_KEY}


def upload(suffix, arguments):
    """What ffmpeg makes with these arguments, as an asset that is OK."""
    with tempfile.NamedTemporaryFile(suffix=suffix) as file:
        subprocess.run(["ffmpeg", "-nostdin", "-v", "error", "-y", "-f", "lavfi", "-i", *arguments, file.name], check=True)
        answer = requests.post(
            f"{API}/assets/new/content/original/upload", headers=HEADERS, files={"file": open(file.name, "rb")}
        )
    answer.raise_for_status()
    asset = answer.json()["assets"][0]["id"]
    print(f"uploaded: {asset}")
    for _ in range(30):
        if data_of(asset)["status"] == "OK":
            return asset
        time.sleep(1)
    sys.exit(f"the asset did not become OK: {data_of(asset)}")


def film(size):
    """Arguments for three seconds of test picture of this size, with sound."""
    sound = ["-f", "lavfi", "-i", "sine=duration=3", "-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p"]
    return [f"testsrc2=size={size}:rate=25:duration=3", *sound]


def data_of(asset):
    """What is known of an asset."""
    return requests.get(f"{API}/assets/{asset}/data", headers=HEADERS).json()


def process(asset, keys):
    """Has these made; the job when it is completed."""
    queued = requests.post(f"{API}/assets/{asset}/process", headers=HEADERS, json={"keys": keys})
    queued.raise_for_status()
    if queued.json()["status"] != "QUEUED":
        sys.exit(f"it was not queued: {queued.json()}")
    for _ in range(300):
        job = requests.get(f"{API}/jobs/{queued.json()['job_id']}", headers=HEADERS).json()
        if job["status"] in ("COMPLETED", "ERROR"):
            break
        time.sleep(1)
    if job["status"] != "COMPLETED":
        sys.exit(f"the job did not complete: {job}")
    return job


def link_to(asset, key):
    """An address that plays without the key."""
    query = {"key": key, "link_type": "cdn", "delivery": "display"}
    return requests.get(f"{API}/assets/{asset}/get_link", headers=HEADERS, params=query).json()["url"]


asset = upload(".mp4", film("1280x720"))
job = process(asset, ["smart_imaging", "720p-video", "1080p-video", "hls-video", "no-such-key"])
if job["type"] != "VIDEO_TRANSCODE" or job["job_steps"]["transcodes"]["720p-video"]["percent_complete"] != 100:
    sys.exit(f"the job is said to be {job}")

data = data_of(asset)
made = data["conversions"]["720p-video"]
if (made["width"], made["height"], made["key"][-14:]) != (1280, 720, "720p-video.mp4") or abs(made["duration"] - 3) > 0.2:
    sys.exit(f"720p-video is said to be {made}")
if not data["conversions"]["hls-video"]["key"].endswith("playlist.m3u8"):
    sys.exit(f"hls-video is said to be {data['conversions']['hls-video']}")

link = link_to(asset, "720p-video")
part = requests.get(link, headers={"Range": "bytes=0-99"})
if part.status_code != 206 or len(part.content) != 100 or part.headers["Content-Type"] != "video/mp4":
    sys.exit(f"a range of the film was answered {part.status_code} {part.headers}")
if not part.headers["Content-Disposition"].startswith("inline"):
    sys.exit(f"the film is to be {part.headers['Content-Disposition']}")


def played(address):
    """What ffprobe finds there."""
    words = ["ffprobe", "-v", "error", "-show_entries", "stream=codec_name,height", "-of", "csv=p=0", address]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode or done.stderr:
        sys.exit(f"ffprobe does not play {address}: {done.stderr}")
    return set(done.stdout.split())


if played(link) != {"h264,720", "aac"}:
    sys.exit(f"the film is {played(link)}")

# The stream is for everybody, once it is said to be.
stream = f"{CDN}/assets/{asset}/transcodes/playlist.m3u8"
if requests.get(stream).status_code not in (401, 403):
    sys.exit("the stream is for everybody before that was said")
public = requests.post(f"{API}/assets/{asset}/content/set_public_access", headers=HEADERS, json={"keys": ["hls-video"]})
public.raise_for_status()
if not {"h264,720", "h264,360", "aac"} <= played(stream):
    sys.exit(f"the stream is {played(stream)}")

poster = requests.get(f"{CDN}/assets/{asset}/conversions?resize=800,600")
poster.raise_for_status()
kind, width, height = picture.measure(poster.content)
if (kind, width, height) != ("image/jpeg", 800, 450):
    sys.exit(f"expected a poster of 800 x 450, got {kind} of {width} x {height}")
print("played")


def choose(section, value):
    """Replaces a section of the settings."""
    body = {"key": section, "value": value}
    answer = requests.patch(f"{API}/user/settings/update", params={"update_key": section}, headers=HEADERS, json=body)
    if answer.status_code != 200:
        sys.exit(f"the settings were answered {answer.status_code}: {answer.text}")


def marked(address, width, height):
    """Whether a magenta mark lies in the bottom right corner, half a second into a film."""
    words = ["ffmpeg", "-nostdin", "-v", "error", "-i", address, "-ss", "0.5", "-frames:v", "1"]
    frame = subprocess.run([*words, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"], capture_output=True, check=True).stdout
    if len(frame) != width * height * 3:
        sys.exit(f"a frame of {width} x {height} has {len(frame)} bytes")
    # The mark is a square of a quarter of the height: these are points well inside it.
    points = [(width - across, height - up) for across in (10, 25, 45) for up in (10, 25, 45)]
    pixels = [frame[(y * width + x) * 3 :][:3] for x, y in points]
    return all(red > 200 and green < 60 and blue > 200 for red, green, blue in pixels)


# A rendition that is made by itself, for everybody.
video = requests.get(f"{API}/user/settings", headers=HEADERS).json()["video"]
video["transcodes"]["360p-video"].update(enabled=True, public=True)
video["preview"].update(
    video_preview_start="00:00:01.000", video_preview_length=1, video_preview_preset="360p-wm-video"
)
video["thumbnails"]["storyboard"].update(mode="number", mode_value=3, width=160, height=120)
choose("video", video)
small = upload(".mp4", film("320x240"))
for _ in range(120):
    if (conversions := data_of(small)["conversions"]):
        break
    time.sleep(0.5)
if list(conversions) != ["360p-video"] or not conversions["360p-video"]["public"]:
    sys.exit(f"what is made by itself is {data_of(small)}")
plain = f"{CDN}/assets/{small}/transcodes/360p-video.mp4"
if played(plain) != {"h264,240", "aac"} or marked(plain, 320, 240):
    sys.exit(f"the film that was made by itself is {played(plain)}, or has a mark")

# The venue's mark, a clip and a storyboard.
mark = upload(".png", ["color=magenta:size=64x64", "-frames:v", "1"])
choose("watermark", {"watermarkFileKey": mark, "watermarkPlacement": "bottom-right", "watermarkScale": 0.25})
job = process(small, ["360p-wm-video", "clip_preview", "storyboard"])
if job["job_steps"]["addons"]["storyboard"]["status"] != "COMPLETED":
    sys.exit(f"the job is said to be {job}")
conversions = data_of(small)["conversions"]
told = {key: (made["watermarked"], made["public"], round(made.get("duration", 0))) for key, made in conversions.items()}
expected = {
    "360p-video": (False, True, 3), "360p-wm-video": (True, False, 3), "clip_preview": (True, False, 1),
    "storyboard": (False, False, 0),
}  # fmt: skip
if told != expected:
    sys.exit(f"what was made is said to be {told}, not {expected}")
for key in ("360p-wm-video", "clip_preview"):
    link = link_to(small, key)
    if played(link) != {"h264,240", "aac"} or not marked(link, 320, 240):
        sys.exit(f"{key} is {played(link)}, or has no mark")
for number, status in (("000001", 200), ("000003", 200), ("000004", 404)):
    frame = requests.get(f"{API}/storyboard/{small}/storyboard_{number}.jpg", headers=HEADERS)
    if frame.status_code != status or (status == 200 and picture.measure(frame.content) != ("image/jpeg", 160, 120)):
        sys.exit(f"frame {number} of the storyboard was answered {frame.status_code}")
print("marked, clipped and laid out")
