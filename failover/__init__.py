"""What forwarder.py does: choose a server for every message, watch the servers, move on when one
dies.

    config/     servers.properties and the secret upstream/   the servers: their health, who gets
    the next request, what moves when one dies   (a core) proxy/      one message: where it goes and
    what changes in it                                (a core) net/        sockets, health checks,
    registration, the shared address admin/      pages, counters, events, log, systemd forwarder
    all of it as a running thing; cli: the command line

A core takes bytes and the time, and returns what to do; it has no socket, clock, thread or log.
"""
