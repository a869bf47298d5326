"""What is observed of phones, forwarders, servers and processes, and how it is read."""
