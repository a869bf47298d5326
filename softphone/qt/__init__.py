"""The windows of the phone: they show events and post wishes; the only part of the softphone that imports Qt widgets."""
