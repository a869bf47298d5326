"""The stage: one window in which two phones, a forwarder or two and two servers play the document's
use case for real.

Start here: `stage/__main__.py` (the options), then `stage/show.py` (who is started and what is
observed), `stage/script.py` (the nine steps), `stage/window.py` (what a person sees). Nothing
imports this package; it imports `softphone` for its phones and starts the forwarder and the servers
as processes, known only by their public pages.
"""
