"""The SIP user agent, pure: bytes, wishes and times in, datagrams and events out (RFC 3261).

`agent` is the door; `registration` and `call` (with `outgoing` and `incoming`; `session_timer` keeps it alive) are what
it does; `endpoint` joins them with sip's transactions; `event` is what it tells.
"""
