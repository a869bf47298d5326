"""The SIP user agent, pure: bytes, commands and times in, datagrams and events out (RFC 3261).

Start at `user_agent`. It has one `registration` (with `keep_alive`) and its calls: `call` (with
`call_states`), `outgoing_call`, `incoming_call`, with `offer_answer`, `session_timer`,
`reliable_provisional` and `redirect`. Their requests and responses pass through
`transaction_layer`. `digest_auth` answers challenges, `dial_target` reads what a person typed,
`events` is what the windows hear, `user_messages` the sentences they show.
"""
