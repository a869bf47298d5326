"""What forwarder.py does: choose a server for every message, watch the servers, move on when one dies.

Read in this order. The cores (bytes and `now` in, outcome out; no socket, clock, thread or log):
properties (Java's file format) - settings (the one table of them) - health (the table of states) -
servers (the list, hot one first) - inflight (what a server still owes) - core (what to do with one datagram).
The shell around them: heartbeat and legs (sockets), service (the `sip` thread), admin (HTTP), program (the command
line).
"""
