"""$disconnect: removes the connection from the table. From step 2 on, Streamer's function removes its row, too."""

import json
import os

import boto3

table = boto3.resource("dynamodb").Table(os.environ["TABLE"])
streamer = os.environ.get("STREAMER_DISCONNECT")


def handler(event, context):
    table.delete_item(Key={"connectionId": event["requestContext"]["connectionId"]})
    if streamer:
        boto3.client("lambda").invoke(FunctionName=streamer, InvocationType="Event", Payload=json.dumps(event))
    return {"statusCode": 200}
