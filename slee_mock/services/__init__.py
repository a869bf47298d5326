"""The services of a server: registrar, authentication, call control, session timers, billing."""
