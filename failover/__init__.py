"""The forwarder: it chooses a server for every message, checks the servers' health, and moves on
when one dies.

    cli         the command line, signals, reload
    forwarder   wires the parts together and runs the `sip` thread
    net/        sockets, relay, health checker, registration listener, the shared address
    proxy/      one message: where it goes and what changes in it (pure)
    upstream/   the servers: health, who gets the next request, failover (pure)
    config/     servers.properties and the secret
    admin/      pages, metrics, log, systemd

The pure packages take bytes and the time, and return what to do; they have no socket, clock, thread
or log.
"""
