#!/usr/bin/python3
"""The vendor's Python recipe: HMAC-SHA1, the alphabet for URLs.

    sign.py ACCESS_ID API_KEY EXPIRY PATH_AFTER_ASSETS  ->  the signed path
"""

import base64
import hashlib
import hmac
import sys
from urllib.parse import quote_plus

access_id, api_key, expiry, path = sys.argv[1:5]
string_to_sign = f"{path}{'&' if '?' in path else '?'}expiry={expiry}&accessId={access_id}"
signature = base64.urlsafe_b64encode(hmac.new(api_key.encode(), string_to_sign.encode(), hashlib.sha1).digest())
print(f"{string_to_sign}&signature={quote_plus(signature)}", end="")
