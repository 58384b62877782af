"""Why the queue does not have an entry, and which failures a retry can resolve."""

from __future__ import annotations

import asyncio
import http.client
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import botocore.exceptions
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, IncompleteReadError, ParamValidationError
from botocore.parsers import ResponseParserError

from ._codes import is_final, is_refusal

#: Time limit of the calls for a batch in seconds; after it, the entries without an answer are retried.
CALL_TIMEOUT = 5.0

_CONFIGURE = "set the client's credentials, Region and endpoint"


@dataclass(frozen=True)
class Failure:
    """Why the queue does not have an entry.

    It would refuse it again; or no call can be made, because the client lacks its configuration; or a retry can succeed,
    and the entry may be on the queue.
    """

    kind: Literal["refused", "not_configured", "not_taken"]
    #: A text for people.
    cause: str
    #: The code of SQS, if the entry was refused.
    code: str = ""
    #: If no call can be made.
    remedy: str = _CONFIGURE
    #: The error with which SQS answered the whole call.
    answer: ClientError | None = None


#: The result of an entry: nothing if the queue has it.
Result = Failure | None

#: The answer to a call: the result of each entry, or the failure of the whole call.
Answer = list[Result] | Failure

NO_ANSWER = Failure("not_taken", f"the queue did not answer within {CALL_TIMEOUT:g} s")

NOT_MADE = Failure("not_taken", "the call was not made")

#: Errors of botocore that recur until a person acts. By name, because some versions of botocore lack some of them.
_NOT_CONFIGURED = {
    "EndpointProviderError",
    "LoginError",
    "NoAuthTokenError",
    "ProfileNotFound",
    "SSOError",
    "TokenRetrievalError",
}

_MISSING = {
    "NoRegionError": "there is no Region",
    "NoCredentialsError": "there are no credentials",
    "PartialCredentialsError": "there are no credentials",
}

#: Errors of a call that may have reached the queue.
_NETWORK = (
    HTTPClientError,
    IncompleteReadError,
    ResponseParserError,
    botocore.exceptions.ConnectionError,
    http.client.HTTPException,
    OSError,
    # Not an `OSError` before Python 3.11.
    asyncio.TimeoutError,
)

#: The HTTP libraries below boto3 and aiobotocore, whose errors may pass through.
_HTTP_LIBRARIES = {"aiohttp", "httpcore", "httpx", "urllib3"}


def failure_of_entry(failed: Mapping[str, Any] | None) -> Failure:
    """Returns the failure of an entry, from its part of the queue's answer."""
    if failed is None:
        return Failure("not_taken", "the queue's answer does not mention it")
    code, message = str(failed.get("Code", "")), str(failed.get("Message", ""))
    is_refused = is_refusal(code, failed.get("SenderFault") is True, message)
    return Failure("refused" if is_refused else "not_taken", f"{code}: {message}", code)


def failure_of(error: Exception) -> Failure:
    """Returns the failure of a whole call.

    The text of an error that is no answer of SQS is left out, because it may hold a payload or a credential.
    """
    if isinstance(error, ClientError):
        return _failure_of_answer(error)
    name = type(error).__name__
    bases = {base.__name__ for base in type(error).__mro__}
    missing = next((cause for base, cause in _MISSING.items() if base in bases), None)
    if missing is not None:
        return Failure("not_configured", missing)
    if bases & _NOT_CONFIGURED:
        return Failure("not_configured", f"no call could be made: {name}")
    if isinstance(error, ParamValidationError):
        remedy = "check the queue's URL, and update boto3"
        return Failure("not_configured", "botocore refuses the parameters of the call", remedy=remedy)
    if isinstance(error, _NETWORK) or _libraries_of(error) & _HTTP_LIBRARIES:
        return Failure("not_taken", f"no answer: {name}")
    if isinstance(error, BotoCoreError):
        return Failure("not_taken", f"no call could be made: {name}")
    # A retry would raise it again, perhaps after the queue has taken the entries.
    return Failure("not_configured", f"the client raised {name}", remedy="give the producer an SQS client that works")


def _libraries_of(error: Exception) -> set[str]:
    return {base.__module__.partition(".")[0] for base in type(error).__mro__}


def _failure_of_answer(error: ClientError) -> Failure:
    details: Mapping[str, Any] = error.response.get("Error", {})
    message = str(details.get("Message", ""))
    # The second is the code before `x-amzn-query-error` replaces it.
    codes = [str(details.get("Code", "")), str(details.get("QueryErrorCode", ""))]
    final = next((code for code in codes if is_final(code, message)), None)
    code = codes[0] if final is None else final
    # Without the frames of botocore, whose variables hold payloads and credentials.
    error.__context__ = None
    answer = error.with_traceback(None)
    return Failure("not_taken" if final is None else "refused", f"{code}: {message}", code, answer=answer)
