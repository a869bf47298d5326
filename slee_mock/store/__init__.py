"""The store that the servers of a cluster share: its contract, SQLite, Redis, and what lies in
it."""
