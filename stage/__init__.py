"""The demo: one window in which two phones, a forwarder or two and two servers play the document's
use case for real.

Start here: `stage/__main__.py` (the options), then `controller.py` (starts everything, gathers what
is observed). `processes/` runs the programs, `observation/` reads what they and the phones tell,
`scenes/` says what is played and what has to be observed, `gui/` shows it. Nothing imports this
package; it imports `softphone` for its phones and starts the forwarder and the servers as
processes, known only by their public pages.
"""
