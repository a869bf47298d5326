"""The windows of the phone. They show events and post wishes; no other part of the softphone
imports Qt widgets."""
