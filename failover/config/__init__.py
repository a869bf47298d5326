"""servers.properties and the secret: read, checked, explained."""
