"""A mock SLEE server: registrar, call control and billing over a store that all servers of a cluster share.

Read in this order: `event.py` (what comes in, what goes out), `router.py` (event -> convergence name -> service), the
services `registrar.py`, `proxy.py`, `billing.py`, `gate.py`, then `store.py` and `record.py` (what is kept), and
`server.py`, the thread and the socket around it all. Any server can process any message of any call: nothing that
a later message needs lives in a process's memory.
"""
