"""Sockets and what drives them, all on the `sip` thread.

sockets                the phones' socket and the servers', all on one address
relay                  datagrams from the sockets to the core, and from the core to the sockets
health_checker         pings the servers (options_ping) and tells the core what follows
server_links           opens, reopens and closes the servers' sockets
active_standby         which of two forwarders has the shared address
own_address            this forwarder's address as each peer knows it
registration_listener  servers that register themselves
keepalived_track_file, vrrp_check_script   what a VRRP daemon reads and runs
port_owner             the process that has our address already, for an error message
"""
