"""Sends a message to a connection: python publish.py QUEUE_URL CONNECTION TEXT"""
import json
import sys
import uuid

import boto3

if len(sys.argv) != 4 or not all(sys.argv):
    sys.exit("usage: python publish.py QUEUE_URL CONNECTION TEXT, each of them not empty")
queue_url, connection, text = sys.argv[1:]
message_id = str(uuid.uuid4())
message = {
    "version": 1,
    "id": message_id,
    "to": {"connection": connection},
    "payload": {"type": "response", "data": text, "id": message_id},
}
boto3.client("sqs").send_message(QueueUrl=queue_url, MessageBody=json.dumps(message))
print("queued", message_id)
