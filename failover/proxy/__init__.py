"""The stateless proxy: what becomes of one datagram. No socket, clock, thread or log."""
