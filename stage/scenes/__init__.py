"""The use case and the scenes, and the observations that each needs."""
