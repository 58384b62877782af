"""The limits of a message. `docs/reference/limits.md` has them all, with their sources."""

#: Maximum size of a payload in bytes.
PAYLOAD_BYTES = 128 * 1024

#: Maximum size in bytes of a payload that is kept.
KEPT_PAYLOAD_BYTES = 127 * 1024

#: Maximum number of connections that a message on the queue names.
CONNECTIONS = 100

#: Maximum number of messages in a call to the queue.
BATCH_MESSAGES = 10

#: Maximum size in bytes of all messages in a call to the queue.
BATCH_BYTES = 1024 * 1024

#: Maximum number of characters of the id of a message, a request or a connection.
ID_CHARACTERS = 128

#: Maximum size in bytes of the id of a tenant or a user.
PRINCIPAL_BYTES = 256

#: Seconds for which a message can be kept: the least and the most.
KEEP_SECONDS = (60, 2_592_000)

#: The earliest expiry in milliseconds since the epoch, 3 March 1973. A lower number is a time in seconds.
EARLIEST = 100_000_000_000

#: The latest expiry in milliseconds since the epoch, the end of the year 9999.
NEVER = 253_402_300_799_999
