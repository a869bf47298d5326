"""The softphone: `ua` speaks SIP, `media` carries RTP, `gui` shows both, `phone.py` joins them."""
