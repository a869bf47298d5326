"""The sound of a call: G.711 over RTP, RTCP reports, DTMF, and a test tone where there
is no microphone.

Start at session.py, the sound of one call. Only audio_devices.py (microphone, loudspeaker) uses Qt.
"""
