"""The operators' view: the HTTP pages, the counters, the events, the log, systemd."""
