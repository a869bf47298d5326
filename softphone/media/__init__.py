"""What a phone says and hears: G.711 over RTP, its reports, and the tone it sends where there is no
microphone.

session.py is where to start: the sound of one call. devices.py (microphone and loudspeaker) is the
only Qt here.
"""
