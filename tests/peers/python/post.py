"""PostToConnection with boto3 and a thread pool.

usage: post.py ENDPOINT IN_FLIGHT
"""

import sys
import time
from concurrent.futures import ThreadPoolExecutor

import boto3
from botocore.config import Config

endpoint, in_flight = sys.argv[1], int(sys.argv[2])
client = boto3.client(
    "apigatewaymanagementapi", endpoint_url=endpoint, config=Config(max_pool_connections=in_flight)
)


def post_until(end: float) -> int:
    done = 0
    while time.monotonic() < end:
        client.post_to_connection(ConnectionId="L0SM9cOFvHcCIhw=", Data=b"x" * 300)
        done += 1
    return done


with ThreadPoolExecutor(in_flight) as pool:
    list(pool.map(post_until, [time.monotonic() + 1] * in_flight))
    started, before = time.monotonic(), time.process_time()
    done = sum(pool.map(post_until, [started + 3] * in_flight))
    took, used = time.monotonic() - started, time.process_time() - before
print(round(done / took))
print(f"{used * 1e6 / done:.2f}")
print(f"boto3 {boto3.__version__}, Python {sys.version.split()[0]}")
