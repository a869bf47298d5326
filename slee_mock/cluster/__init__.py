"""What makes servers a cluster: members, one key, one time."""
