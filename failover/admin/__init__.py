"""What operators see: the HTTP pages, the counters, the events, the log, systemd."""
