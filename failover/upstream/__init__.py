"""The servers behind the forwarder: who they are, which of them live, who gets the next request,
and what moves when one dies. No socket, clock, thread or log."""
