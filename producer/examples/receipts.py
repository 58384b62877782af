"""Sends a message and waits for its receipt: python receipts.py QUEUE_URL RECEIPTS_QUEUE_URL CONNECTION TEXT"""
import json
import sys
import time
import uuid

import boto3

if len(sys.argv) != 5 or not all(sys.argv):
    sys.exit("usage: python receipts.py QUEUE_URL RECEIPTS_QUEUE_URL CONNECTION TEXT, each of them not empty")
queue, receipts, connection, text = sys.argv[1:]
LIMIT_SECONDS = 120

# From the best to the worst.
OUTCOMES = [
    "acknowledged", "delivered", "kept", "expanded", "exhausted", "rejected",
    "poison", "expired", "superseded", "gone", "no_recipient",
]


def receipt_of(body):
    """Returns the receipt in a message of the receipts queue, or None for any other message."""
    try:
        event = json.loads(body)
        receipt = event["data"] if event["type"] == "streamer.receipt" else None
        is_known = receipt and receipt["version"] == 1 and receipt["outcome"] in OUTCOMES
        return receipt if is_known else None
    except (ValueError, KeyError, TypeError):
        return None


# Of receipts about the same thing, the best one.
best = {}


def merge(receipt):
    """Receipts arrive at least once and in any order: the better outcome stays."""
    about = (receipt["id"], receipt.get("part"), receipt.get("connection"))
    known = best.get(about)
    if not known or OUTCOMES.index(receipt["outcome"]) < OUTCOMES.index(known["outcome"]):
        best[about] = receipt


sqs = boto3.client("sqs")
message_id = str(uuid.uuid4())
message = {
    "version": 1,
    "id": message_id,
    "to": {"connection": connection},
    "payload": {"type": "response", "data": text, "id": message_id},
    "receipt": True,
}
sqs.send_message(QueueUrl=queue, MessageBody=json.dumps(message))
print("queued", message_id)


def has_receipt():
    return any(receipt["id"] == message_id for receipt in best.values())


deadline = time.monotonic() + LIMIT_SECONDS
while not has_receipt() and time.monotonic() < deadline:
    received = sqs.receive_message(QueueUrl=receipts, MaxNumberOfMessages=10, WaitTimeSeconds=20)
    for found in received.get("Messages", []):
        receipt = receipt_of(found["Body"])
        # A message that is no receipt stays on the queue, for its redrive policy.
        if not receipt:
            continue
        merge(receipt)
        sqs.delete_message(QueueUrl=receipts, ReceiptHandle=found["ReceiptHandle"])
for receipt in best.values():
    print(receipt["outcome"], receipt["id"], json.dumps(receipt.get("connections", {}), separators=(",", ":")))
if not has_receipt():
    sys.exit(f"no receipt of {message_id} within {LIMIT_SECONDS} s: is there another consumer?")
