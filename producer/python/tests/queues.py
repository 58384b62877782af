"""Scripted queues: one on loopback, which speaks the protocol of SQS, and one in memory.

A script answers the n-th call, from 0: each entry by one of `taken`, `throttled`, `refused`, `unmentioned` (those without
one are taken); `{"error": code}` for the whole call, perhaps with a `message`; `lost`, without an answer, although the
entries are on the queue, or `dropped`, the same with nothing on the queue; `reset`, the connection is broken off, and
`reset_after`, when the entries are on the queue.
"""

import json
import socket
import threading
from hashlib import md5
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import boto3.session
from botocore.config import Config

FAILURES = {
    "throttled": {"Code": "RequestThrottled", "SenderFault": True, "Message": "scripted"},
    "refused": {"Code": "InvalidMessageContents", "SenderFault": True, "Message": "scripted"},
}


def _taken(call, entries):
    return "taken"


def results_of(answer, count):
    results = answer if isinstance(answer, list) else []
    return [results[place] if place < len(results) else "taken" for place in range(count)]


class MemoryQueue:
    """A queue in memory that answers at once."""

    def __init__(self, script=_taken):
        self.script = script
        self.calls = []
        self.taken = []

    @property
    def bodies(self):
        return [entry["MessageBody"] for entry in self.taken]

    def send_message_batch(self, *, QueueUrl, Entries):
        answer = self.script(len(self.calls), Entries)
        self.calls.append(Entries)
        results = list(zip(Entries, results_of(answer, len(Entries)), strict=True))
        self.taken += [entry for entry, result in results if result == "taken"]
        return {
            "Successful": [{"Id": entry["Id"]} for entry, result in results if result == "taken"],
            "Failed": [{"Id": entry["Id"], **FAILURES[result]} for entry, result in results if result in FAILURES],
        }


class Asynchronous:
    """A queue in memory for an event loop."""

    def __init__(self, queue):
        self.queue = queue

    async def send_message_batch(self, **request):
        return self.queue.send_message_batch(**request)


class Endpoint:
    """A queue on loopback."""

    def __init__(self, script=_taken):
        self.script = script
        self.calls = []
        self.taken = []
        self.lock = threading.Lock()
        self.closed = threading.Event()
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # Headers and body in one segment.
            wbufsize = -1
            disable_nagle_algorithm = True

            def do_POST(self):
                endpoint.receive(self)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.base = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.url = f"{self.base}/123456789012/outbound"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.closed.set()
        self.server.shutdown()
        self.server.server_close()

    def client(self, **options):
        config = Config(retries={"total_max_attempts": 1}, **{"read_timeout": 5, "connect_timeout": 5, **options})
        keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "eu-central-1"}
        return boto3.session.Session().client("sqs", endpoint_url=self.base, config=config, **keys)

    @property
    def bodies(self):
        return [entry["MessageBody"] for entry in self.taken]

    def receive(self, request):
        body = json.loads(request.rfile.read(int(request.headers["content-length"])))
        if "Entries" not in body:
            return self.answer(request, 200, {"MessageId": "m", "MD5OfMessageBody": _md5(body["MessageBody"])})
        entries = body["Entries"]
        with self.lock:
            answer = self.script(len(self.calls), entries)
            self.calls.append(entries)
            if answer in ("lost", "reset_after"):
                self.taken += entries
        if answer in ("lost", "dropped"):
            self.closed.wait(60)
        if answer in ("lost", "dropped", "reset", "reset_after"):
            request.close_connection = True
            request.connection.shutdown(socket.SHUT_RDWR)
        elif isinstance(answer, dict):
            self.refuse(request, answer["error"], answer.get("message", "scripted"))
        else:
            self.take(request, entries, results_of(answer, len(entries)))

    def take(self, request, entries, results):
        successful, failed = [], []
        for entry, result in zip(entries, results, strict=True):
            if result == "taken":
                with self.lock:
                    self.taken.append(entry)
                md5_of_body = _md5(entry["MessageBody"])
                successful.append({"Id": entry["Id"], "MessageId": "m", "MD5OfMessageBody": md5_of_body})
            elif result in FAILURES:
                failed.append({"Id": entry["Id"], **FAILURES[result]})
        self.answer(request, 200, {"Successful": successful, "Failed": failed})

    def refuse(self, request, code, message):
        status = 500 if code.startswith("Internal") else 400
        body = {"__type": "com.amazonaws.sqs#Modeled", "message": message}
        self.answer(request, status, body, {"x-amzn-query-error": f"{code};Sender"})

    def answer(self, request, status, body, headers=()):
        content = json.dumps(body).encode()
        fields = {"content-type": "application/x-amz-json-1.0", "content-length": str(len(content)), **dict(headers)}
        try:
            request.send_response(status)
            for name, value in fields.items():
                request.send_header(name, value)
            request.end_headers()
            request.wfile.write(content)
            request.wfile.flush()
        except OSError:
            # The client has left.
            request.close_connection = True


def _md5(text):
    return md5(text.encode()).hexdigest()
