#!/usr/bin/python3
"""S7: links that the customer's own programs sign, in PHP, Python and Node, against a private box.

    s7_signed_urls.py BASE API_KEY

The recipes are the vendor's (`sign.php`, `sign.py`, `sign.js`). Each has to open the private original and a picture that
only links open, and what was altered, reordered, repeated or has expired has to stay closed.
"""

import os
import subprocess
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
HERE = os.path.dirname(os.path.abspath(__file__))
RECIPES = (("php", "sign.php"), ("/usr/bin/python3", "sign.py"), ("node", "sign.js"))


def signed(recipe, path, expiry):
    program, script = recipe
    words = [program, os.path.join(HERE, script), access_id, API_KEY, str(expiry), path]
    return f"{API}/assets/" + subprocess.run(words, check=True, capture_output=True, text=True).stdout


def expect(url, statuses, why):
    # As it was signed: a client that tidies the query would break what it was given.
    request = requests.Request("GET", BASE).prepare()
    request.url = url
    answer = requests.Session().send(request, timeout=30)
    if answer.status_code not in statuses:
        sys.exit(f"{why}: {url} was answered {answer.status_code}: {answer.text[:200]}")
    return answer


def set_private(private):
    images = {"is_on_demand_private": private, "conversions": []}
    body = {"key": "image", "value": images}
    answer = requests.patch(f"{API}/user/settings/update", params={"update_key": "image"}, headers=HEADERS, json=body, timeout=30)
    answer.raise_for_status()


asset = s1_checks.upload(API, HEADERS, "p.jpg", picture.jpeg(640, 480))
link = requests.get(f"{API}/assets/{asset}/get_link", headers=HEADERS, params={"key": "original"}, timeout=30).json()["url"]
access_id = parse_qs(urlsplit(link).query)["accessId"][0]
set_private(True)
hour = int(time.time()) + 3600
try:
    expect(f"{API}/assets/{asset}/conversions?resize=300,300", (401, 403), "a private picture without a link")
    for recipe in RECIPES:
        name = recipe[1]
        picture_url = signed(recipe, f"{asset}/conversions?resize=300,300", hour)
        answer = expect(picture_url, (200,), f"{name}, a picture")
        if picture.measure(answer.content)[1:] != (300, 225):
            sys.exit(f"{name}: the picture measures {picture.measure(answer.content)}")
        expect(signed(recipe, f"{asset}/content/original", hour), (200,), f"{name}, the original")
        expect(signed(recipe, f"{asset}/conversions", hour), (200,), f"{name}, a picture without parameters")

        expect(picture_url.replace("resize=300", "resize=301"), (403,), f"{name}, a larger picture than was signed")
        expect(picture_url.replace(asset, asset[::-1]), (403, 404), f"{name}, another asset")
        expect(picture_url.replace(f"expiry={hour}", f"expiry={hour + 1}"), (403,), f"{name}, a later end")
        expect(picture_url + "&resize=900,900", (403,), f"{name}, a parameter put behind")
        expect(picture_url + "&signature=AAAA", (400, 403), f"{name}, two signatures")
        expect(signed(recipe, f"{asset}/conversions?resize=300,300", hour - 7200), (403,), f"{name}, an hour too late")
finally:
    set_private(False)
expect(f"{API}/assets/{asset}/conversions?resize=300,300", (200,), "a picture of a box that is public again")
print("S7: every recipe opens what it signed, and nothing else")
