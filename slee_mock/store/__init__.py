"""The cluster's store: its interface and transaction, SQLite, Redis, purge, degraded mode."""
