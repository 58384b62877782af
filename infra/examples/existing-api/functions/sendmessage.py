"""sendmessage: sends the message of a client to all clients, or from step 3 on to a user.

`{"action": "sendmessage", "data": "hello"}`, in step 3 also with `"user": "anna"`.
"""

import json
import os
import uuid

import boto3

table = boto3.resource("dynamodb").Table(os.environ["TABLE"])
queue = os.environ.get("STREAMER_QUEUE")
tenant = os.environ.get("STREAMER_TENANT")


def handler(event, context):
    request = json.loads(event["body"])
    payload = {"message": request["data"]}
    if tenant and "user" in request:
        send({"user": {"tenant": tenant, "user": request["user"]}}, payload)
    elif queue:
        connections = list(scan())
        for start in range(0, len(connections), 100):
            send({"connections": connections[start : start + 100]}, payload)
    else:
        post(payload)
    return {"statusCode": 200}


def scan():
    """Returns the ids of all connections."""
    arguments = {}
    while True:
        page = table.scan(**arguments)
        yield from (item["connectionId"] for item in page["Items"])
        if "LastEvaluatedKey" not in page:
            return
        arguments = {"ExclusiveStartKey": page["LastEvaluatedKey"]}


def send(audience, payload):
    """Puts a message on Streamer's queue."""
    message = {"version": 1, "id": str(uuid.uuid4()), "to": audience, "payload": payload}
    boto3.client("sqs").send_message(QueueUrl=queue, MessageBody=json.dumps(message))


def post(payload):
    """Posts to one connection after another, and removes those that are gone."""
    api = boto3.client("apigatewaymanagementapi", endpoint_url=os.environ["ENDPOINT"])
    for connection in scan():
        try:
            api.post_to_connection(ConnectionId=connection, Data=json.dumps(payload))
        except api.exceptions.GoneException:
            table.delete_item(Key={"connectionId": connection})
