"""The operating system's services for every program here: a loop thread, UDP sockets, addresses,
small web pages. Standard library only; knows nothing of SIP."""
