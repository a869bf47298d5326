"""A mock SLEE server: registrar, call control and billing over a store that all servers of a
cluster share.

    server          threads, sockets and life cycle around one
    node            one server without a socket: datagrams and times in, outcomes out
    degraded_mode   calls that end while the store does not answer
    sip_adaptor     datagrams -> events, and the responses that a server gives itself
    container/      the SLEE: events, SBBs and their entities, the event router, timers, deployment
    services/       registrar, authentication, call control, billing; *_record.py is read by others
    store/          what the servers of a cluster share: SQLite or Redis
    cluster/        its members, its key, its time
    management/     the page, JSON, CSV and metrics

Any server can process any message of any call: nothing that a later message needs lives in a
process's memory.
"""
