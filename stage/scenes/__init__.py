"""What is played and what has to be observed for it."""
