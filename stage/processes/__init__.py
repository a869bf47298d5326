"""The programs of the demo as real processes: started, killed, never left behind."""
