"""A mock SLEE server: registrar, call control and billing over a store that all servers of a
cluster share.

    container/    the SLEE: events, services, the router, timers, deployment
    services/     registrar, authentication, call control, session timers, billing
    store/        what the servers of a cluster share: SQLite or Redis
    cluster/      who is in it, its key, its time
    management/   the pages
    server        the thread and the socket around it all

Any server can process any message of any call: nothing that
a later message needs lives in a process's memory.
"""
