"""The states of a call, and the step from one to the next, for which every state has an entry for
every input."""

from __future__ import annotations

from enum import Enum

from softphone.ua.events import CallState

CALLING, RINGING, INCOMING = CallState.CALLING, CallState.RINGING, CallState.INCOMING
TALKING, ENDING, ENDED = CallState.TALKING, CallState.ENDING, CallState.ENDED


class CallInput(str, Enum):
    RING = "their phone rings"
    ACCEPT = "a 2xx to the INVITE, theirs or ours"
    REFUSE = "a failure to the INVITE, theirs or ours"
    LEAVE = "our person hangs up"
    GONE = "it is over: BYE, CANCEL, or nobody answers any more"


RING, ACCEPT, REFUSE, LEAVE, GONE = CallInput

CALL_TRANSITIONS: dict[CallState, dict[CallInput, CallState]] = {
    CALLING: {RING: RINGING, ACCEPT: TALKING, REFUSE: ENDED, LEAVE: ENDING, GONE: ENDED},
    RINGING: {RING: RINGING, ACCEPT: TALKING, REFUSE: ENDED, LEAVE: ENDING, GONE: ENDED},
    INCOMING: {RING: INCOMING, ACCEPT: TALKING, REFUSE: ENDED, LEAVE: ENDED, GONE: ENDED},
    TALKING: {RING: TALKING, ACCEPT: TALKING, REFUSE: TALKING, LEAVE: ENDING, GONE: ENDED},
    # A CANCEL can cross the 200 (RFC 3261 9.1): the call is then accepted, and left with a BYE.
    ENDING: {RING: ENDING, ACCEPT: ENDING, REFUSE: ENDED, LEAVE: ENDING, GONE: ENDED},
    ENDED: {RING: ENDED, ACCEPT: ENDED, REFUSE: ENDED, LEAVE: ENDED, GONE: ENDED},
}
