"""The SIP user agent, pure: bytes, wishes and times in, datagrams and events out (RFC 3261).

`agent` is the door; `registration` (with `keep_alive`) and `call` (with `outgoing`, `incoming`,
`redirect`, `reliable`; `session_timer` keeps it alive, `shown` is what is seen of it) are what it
does; `endpoint` joins them with sip's transactions; `credentials` says who gets a proof of the
password; `target` whom a person means; `event` is what is told.
"""
