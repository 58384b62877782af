"""The clients of SQS that a producer calls."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import boto3.session
from botocore.client import BaseClient
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from ._engine import not_configured
from ._failures import CALL_TIMEOUT, Failure
from ._queue import Client


def new_client() -> Any:
    """Returns a client that reads Region, credentials and endpoint from the environment, as all AWS SDKs do."""
    config = Config(
        # The producer retries.
        retries={"total_max_attempts": 1, "mode": "standard"},
        connect_timeout=CALL_TIMEOUT,
        read_timeout=CALL_TIMEOUT,
    )
    try:
        # A session of its own, because the default one is not safe to use in several threads.
        return boto3.session.Session().client("sqs", config=config)
    except (BotoCoreError, ValueError) as error:
        raise not_configured(Failure("not_configured", str(error).rstrip("."))) from error


def check_client(client: Client) -> Client:
    """Returns a client of boto3. Warns if it retries calls."""
    _check_method(client)
    if isinstance(client, BaseClient) and _is_asynchronous(client):
        raise TypeError("Producer takes a client of boto3: use AsyncProducer for one of aiobotocore or aioboto3")
    _check_retries(client, "Config")
    return client


def check_asynchronous_client(client: Client) -> Client:
    """Returns a client of aiobotocore. Warns if it retries calls."""
    _check_method(client)
    if isinstance(client, BaseClient) and not _is_asynchronous(client):
        raise TypeError("AsyncProducer takes a client of aiobotocore or aioboto3: use Producer for one of boto3")
    _check_retries(client, "AioConfig")
    return client


def _check_method(client: Client) -> None:
    if not callable(getattr(client, "send_message_batch", None)):
        raise TypeError(f"`client` must be an open SQS client, got type {type(client).__name__}")


def _is_asynchronous(client: BaseClient) -> bool:
    return hasattr(type(client), "__aenter__")


def _check_retries(client: Client, config: str) -> None:
    meta = getattr(client, "meta", None)
    retries = getattr(getattr(meta, "config", None), "retries", None)
    if not isinstance(retries, Mapping) or retries.get("total_max_attempts") == 1:
        return
    remedy = f'create it with {config}(retries={{"total_max_attempts": 1, "mode": "standard"}})'
    # The frame that created the producer.
    warnings.warn(f"the SQS client retries calls, also after a send has ended: {remedy}", stacklevel=4)
