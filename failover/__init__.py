"""What forwarder.py does: choose a server for every message, watch the servers, move on when one dies.

Read in this order. The cores (bytes and `now` in, outcome out; no socket, clock, thread or log):
properties (Java's file format) - settings (the one table of them) - health (the table of states) -
table (the servers, hot one first) - inflight (what a server still owes) - kept (messages for which no server lives) -
lines and validation (what changes in a message, what is wrong with one) -
passive (servers that only seem alive) - orphans (what a dead B2BUA had ringing) -
members (what becomes of a server's work) - core (what to do with one datagram) -
fastpath and ordinary (the same for ordinary messages, done to their octets) -
registration (servers that register themselves).
The shell around them: legs, heartbeat and vigil (the servers' sockets), traffic (datagrams in and out), reception (the
registration address), service (the `sip` thread), admin (HTTP), program (the command line).
"""
