#!/usr/bin/python3
"""S6: the original is private; a link opens it for a while, without the key.

    s6_private_original.py BASE API_KEY
"""

import sys
import time
from urllib.parse import parse_qs
from urllib.parse import urlsplit

import requests

import picture
import s1_checks

BASE, API_KEY = sys.argv[1:3]
API = f"{BASE}/api/v1"
HEADERS = {"X-FileSpin-Api-Key": API_KEY}
PHOTO = picture.jpeg(640, 480)


def link(**query):
    answer = requests.get(f"{API}/assets/{asset}/get_link", headers=HEADERS, params={"key": "original", **query}, timeout=30)
    answer.raise_for_status()
    return answer.json()["url"]


def expect(url, status, **headers):
    answer = requests.get(url, headers=headers, timeout=30)
    if answer.status_code != status:
        sys.exit(f"{url} was answered {answer.status_code} instead of {status}: {answer.text[:200]}")
    return answer


asset = s1_checks.upload(API, HEADERS, "p.jpg", PHOTO)
expect(f"{API}/assets/{asset}/content/original", 401)

url = link(expiry=3600)
answer = expect(url, 200)
if answer.content != PHOTO or not answer.headers["Content-Disposition"].startswith("attachment"):
    sys.exit(f"{url} brought {len(answer.content)} bytes, {answer.headers}")
if expect(url, 206, Range="bytes=10-19").content != PHOTO[10:20]:
    sys.exit("a range of the original holds other bytes than the original")
if not expect(link(expiry=3600, delivery="display"), 200).headers["Content-Disposition"].startswith("inline"):
    sys.exit("delivery=display did not say inline")

access_id = parse_qs(urlsplit(url).query)["accessId"][0]
forever = link(expiry="MAX", accessId=access_id)
if int(parse_qs(urlsplit(forever).query)["expiry"][0]) < time.time() + 10 * 365 * 86400:
    sys.exit(f"MAX is not far away: {forever}")
expect(forever, 200)

asked_at = int(time.time())
short = link(expiry=1)
ends_at = int(parse_qs(urlsplit(short).query)["expiry"][0])
if not asked_at + 1 <= ends_at <= time.time() + 2:
    sys.exit(f"a link of one second, asked for at {asked_at}, ends at {ends_at}")
for _ in range(600):
    if (status := requests.get(short, timeout=30).status_code) == 403:
        break
    if status != 200:
        sys.exit(f"{short} was answered {status}")
    time.sleep(0.1)
else:
    sys.exit("a link of one second still opens after a minute")
if time.time() < ends_at:
    sys.exit(f"{short} was refused before its end")
print("S6: a private original opens by link alone, and for as long as was said")
