"""The softphone: `agent` speaks SIP, `media` carries RTP, `qt` shows both, `phone.py` joins
them."""
