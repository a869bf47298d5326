"""What makes servers a cluster: who is in it, one key, one time."""
