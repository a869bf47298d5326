"""The windows of the phone. They show events and post commands; no other part of the softphone
imports Qt widgets."""
