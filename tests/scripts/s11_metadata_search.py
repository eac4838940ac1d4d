#!/usr/bin/python3
"""S11 with `requests`: a schema, assets that follow it, searches by word and by field, a collection as an archive.

    s11_metadata_search.py BASE API_KEY
"""

import io
import sys
import time
import zipfile

import requests

import picture

BASE, API_KEY = sys.argv[1:3]
API = f"{BASE}/api/v1"
HEADERS = {"X-FileSpin-Api-Key": API_KEY}

# The guide's own schema.
SCHEMA = {
    "name": {"en": "Product Assets"},
    "status": "ACTIVE",
    "schema": {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "required": [],
        "properties": {
            "product_name": {
                "type": "string",
                "maxLength": 200,
                "filespin_properties": {
                    "title": {"en": "Product Name"},
                    "searchable": True,
                    "keyword_searchable": True,
                    "ui": {"order": 1, "multiline": False},
                },
            },
            "category": {"type": "string", "enum": ["clothing", "footwear"], "filespin_properties": {"searchable": True}},
            "price": {"type": "number", "minimum": 0, "filespin_properties": {"searchable": True}},
        },
    },
}


def check(holds, otherwise):
    if not holds:
        sys.exit(f"S11: {otherwise}")


def post(path, body):
    answer = requests.post(f"{API}{path}", json=body, headers=HEADERS)
    check(answer.ok, f"{path} is answered {answer.status_code}: {answer.text}")
    return answer.json()


def search(**asked):
    return post("/search", asked)["result"]


def upload(name, seed):
    files = {"file": (name, picture.jpeg(320, 240, seed), "image/jpeg")}
    asset = requests.post(f"{API}/assets/new/content/original/upload", headers=HEADERS, files=files).json()["assets"][0]["id"]
    for _ in range(120):
        if requests.get(f"{API}/assets/{asset}/data", headers=HEADERS).json()["status"] == "OK":
            return asset
        time.sleep(0.25)
    sys.exit(f"S11: {name} did not become OK")


schema = post("/assetschemas", SCHEMA)["id"]
listed = requests.get(f"{API}/assetschemas", headers=HEADERS).json()["schemas"]
check({0, schema} <= {s["id"] for s in listed}, f"the schema is not listed: {listed}")
document = requests.get(f"{API}/json-schema/Asset.CustomMetadata.v1.schema.json").json()
check(document["properties"]["filespin_search_txt"]["maxLength"] == 200, "the default schema is another one")
print("a schema is made; the default one is there")

shoe, shirt, odd = upload("shoe.jpg", 1), upload("shirt.jpg", 2), upload("odd.jpg", 3)
for asset, data in [
    (shoe, {"product_name": "Red shoe", "category": "footwear", "price": 80}),
    (shirt, {"product_name": "Blue shirt", "category": "clothing", "price": 20.5}),
    # Kept as it is, and not found by field: that is no category, and nothing is cheaper than free.
    (odd, {"product_name": "Red hat", "category": "headwear", "price": -1}),
]:
    post(f"/assets/{asset}/data/update", {"data": data, "mode": "REPLACE", "data_schema_id": schema})
kept = requests.get(f"{API}/assets/{odd}/data", headers=HEADERS).json()
check(kept["data"]["category"] == "headwear", "data that does not conform was not kept")


def fields(**asked):
    return search(schema_criteria={"data_schema_id": schema, "fields": asked})


for found, want in [
    (search(keyword="shoe"), [shoe]),
    (search(keyword="red OR blue"), [shirt, shoe]),
    (search(keyword='"blue shirt"'), [shirt]),
    (fields(category="footwear OR clothing"), [shirt, shoe]),
    (fields(product_name="sh*"), [shirt, shoe]),
    (fields(price="50..100"), [shoe]),
    (fields(category="clothing", price={"end": 50}), [shirt]),
    (search(keyword="hat"), []),
]:
    check(found == want, f"found {found} instead of {want}")
print("words and fields find what conforms to its schema")

post(f"/assets/{odd}/data/update", {"data": {"category": "clothing", "price": 5}, "data_schema_id": schema})
check(search(keyword="hat") == [odd], "data that was mended is not found")
print("data that was mended is found")

made = post("/assetcollection", {"name": "My Collection", "assets": [shoe, shirt], "group_access": True})
check(set(made["extended_result"]) == {shoe, shirt}, f"the collection: {made}")
found = post("/assetcollections", {"keyword": "my coll", "sort_by": "name_ASC"})
check(found["total_collections"] == 1, f"the collections: {found}")
download = f"{API}/assetcollection/{made['id']}/download"
url = requests.get(download, params={"as_url": "y"}, headers=HEADERS).json()["url"]
whole = requests.get(url)
check(whole.headers["Content-Disposition"] == 'attachment; filename="download.zip"', f"{whole.headers}")
archive = zipfile.ZipFile(io.BytesIO(whole.content))
check(archive.testzip() is None and archive.namelist() == ["shoe.jpg", "shirt.jpg"], f"{archive.namelist()}")
rest = requests.get(url, headers={"Range": "bytes=1000-", "If-Range": whole.headers["ETag"]})
check(rest.status_code == 206 and rest.content == whole.content[1000:], "the download does not go on where it broke off")
print("S11: all promises kept")
