"""The SIP language (RFC 3261): messages, headers, transactions, dialogs, session descriptions.

No socket, clock, thread or window lives here: bytes and times come in as arguments, so everything
can be tried with literals. Read in this order: `message` (what a datagram says), `header`, `uri`
and `via` (what a line says), `branch` (a stateless proxy's memory), `digest` (passwords),
`transaction` (who repeats what, and when), `dialog` (who is talking to whom), `sdp` (what they will
hear).
"""

VERSION = "0.1.0"
