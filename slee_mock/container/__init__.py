"""The SLEE itself: events, services and the entities that handle them, the router, timers,
deployment."""
