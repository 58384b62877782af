"""$connect: keeps the connection in the table. From step 2 on, Streamer's function keeps it in Streamer's table."""

import json
import os

import boto3

table = boto3.resource("dynamodb").Table(os.environ["TABLE"])
streamer = os.environ.get("STREAMER_CONNECT")


def handler(event, context):
    table.put_item(Item={"connectionId": event["requestContext"]["connectionId"]})
    if streamer:
        called = boto3.client("lambda").invoke(FunctionName=streamer, Payload=json.dumps(event))
        answer = json.load(called["Payload"])
        if answer.get("statusCode") == 200:
            # Its headers answer the subprotocol that a browser offers.
            return answer
        # Clients without a valid token connect as before, and have no user.
        print("Streamer refused the token:", answer.get("body", answer))
    return {"statusCode": 200}
