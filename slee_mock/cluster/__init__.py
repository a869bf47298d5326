"""The cluster that servers form: members, one key, one time."""
