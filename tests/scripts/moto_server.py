"""An S3 server of other people for the tests: moto, in memory, with the bucket `things`.

Usage: PYTHONPATH=FOLDER python3 moto_server.py
Says its endpoint on the first line, and ends when its input does.
"""

import sys

import boto3
from moto.server import ThreadedMotoServer

server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
host, port = server.get_host_and_port()
endpoint = f"http://{host}:{port}"
client = boto3.client(
    "s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="us", aws_secret_access_key="hush"
)
client.create_bucket(Bucket="things")
print(endpoint, flush=True)
sys.stdin.read()
server.stop()
