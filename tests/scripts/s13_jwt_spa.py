#!/usr/bin/python3
"""Script S13: a single-page application that logs in, with `requests`.

    s13_jwt_spa.py BASE API_KEY EMAIL PASSWORD

Login, a bearer token on asset data, validation by header and by query, and what ends a token. Ends with 0, or
with a sentence that says what went wrong.
"""

import sys

import requests

import picture


def main(base, api_key, email, password):
    api = f"{base}/api/v1"
    credentials = {"email": email, "password": password}

    # The vendor's older reference has a GET with a body, the newer one a POST.
    for method in ("POST", "GET"):
        answer = requests.request(method, f"{api}/login", json=credentials)
        check(answer.status_code == 200, f"{method} login: {answer.status_code} {answer.text}")
        said = answer.json()
        for field in ("user_id", "user_email", "username", "jwt", "role_id", "role_name", "uploadkey", "notifications"):
            check(field in said, f"{method} login: `{field}` is missing: {said}")
    check((said["role_id"], said["role_name"], said["user_email"]) == (1, "ADMIN", email), f"who am I? {said}")
    bearer = {"Authorization": f"Bearer {said['jwt']}"}
    key = {"X-FileSpin-Api-Key": api_key}

    files = {"file": ("p.jpg", picture.jpeg(60, 40), "image/jpeg")}
    uploaded = requests.post(f"{api}/assets/new/content/original/upload", headers=bearer, files=files)
    check(uploaded.status_code == 200, f"upload with a token: {uploaded.status_code} {uploaded.text}")
    asset = uploaded.json()["assets"][0]["id"]
    data = requests.get(f"{api}/assets/{asset}/data", headers=bearer)
    check(data.status_code == 200 and data.json()["creator_id"] == said["user_id"], f"data: {data.text}")
    check(requests.get(f"{api}/assets/{asset}/data").status_code == 401, "data without a token")

    validate = f"{api}/auth/validate"
    for method in ("GET", "POST"):
        for what, arguments, status in (
            ("a token in the header", {"headers": bearer}, 200),
            ("a token in the query", {"params": {"_jwt": said["jwt"]}}, 200),
            ("garbage in the query", {"params": {"_jwt": "garbage"}}, 401),
            ("garbage in the query, asked with a key", {"params": {"_jwt": "garbage"}, "headers": key}, 401),
            ("garbage in the query, asked with a token", {"params": {"_jwt": "garbage"}, "headers": bearer}, 401),
            ("a token in the query, asked with a key", {"params": {"_jwt": said["jwt"]}, "headers": key}, 200),
            ("a key alone", {"headers": key}, 401),
            ("garbage in the header", {"headers": {"Authorization": "Bearer garbage"}}, 401),
            ("nothing", {}, 401),
        ):
            answer = requests.request(method, validate, **arguments)
            check(answer.status_code == status, f"{method} validate with {what}: {answer.status_code} {answer.text}")
    elsewhere = requests.get(f"{api}/assets/{asset}/data", params={"_jwt": said["jwt"]})
    check(elsewhere.status_code == 401, "a token in the query counts nowhere else")

    wrong = requests.post(f"{api}/login", json={"email": email, "password": "wrong"})
    unknown = requests.post(f"{api}/login", json={"email": "nobody@example.com", "password": "wrong"})
    check((wrong.status_code, unknown.status_code) == (401, 401), "wrong logins are refused")
    check(wrong.json()["detail"] == unknown.json()["detail"], "in the same words whether the user exists or not")

    check(requests.post(f"{api}/user/logout", headers=bearer).status_code == 200, "logging out everywhere")
    check(requests.get(validate, headers=bearer).status_code == 401, "a token from before the logout")
    check(requests.get(f"{api}/user", headers=key).status_code == 200, "keys are not logged out")


def check(holds, sentence):
    if not holds:
        sys.exit(sentence)


if __name__ == "__main__":
    main(*sys.argv[1:5])
