"""Observations of phones, forwarders, servers and processes, and their readers."""
