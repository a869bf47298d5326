"""Sockets: SIP in and out, health checks, registration, and the address that two forwarders
share."""
