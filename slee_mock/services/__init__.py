"""What a server does for calls: registrar, authentication, call control, session timers,
billing."""
