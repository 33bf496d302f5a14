"""Makes a container in Azurite, as object stores' clients do not. Arguments: the server's URL, the container."""

import base64
import hashlib
import hmac
import sys
import urllib.request
from email.utils import formatdate

# What Azurite and its documentation call the account of development: known to everybody, and no secret.
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="

url, container = sys.argv[1:]
headers = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": "2021-08-06", "Content-Length": "0"}
# Shared Key: a line for each of eleven headers, of which none is set (a length of 0 is empty); then ours, then the resource.
lines = ["PUT"] + [""] * 11
lines += [f"{name}:{headers[name]}" for name in ("x-ms-date", "x-ms-version")]
lines += [f"/{ACCOUNT}/{ACCOUNT}/{container}", "restype:container"]
signature = hmac.new(base64.b64decode(KEY), "\n".join(lines).encode(), hashlib.sha256).digest()
headers["Authorization"] = f"SharedKey {ACCOUNT}:{base64.b64encode(signature).decode()}"
request = urllib.request.Request(f"{url}/{ACCOUNT}/{container}?restype=container", method="PUT", headers=headers)
urllib.request.urlopen(request).close()
