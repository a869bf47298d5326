"""What every program here needs from the operating system, once: a loop thread, UDP sockets,
addresses, small web pages. Standard library only; knows nothing of SIP."""
