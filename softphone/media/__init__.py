"""What a phone says and hears: G.711 over RTP, its reports, and the tone it sends where there is no microphone."""
