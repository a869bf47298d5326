"""Every text of the windows, in one place, so that a translation has one file to go through.

Sentences about calls and registrations are made where they arise (softphone.ua.user_messages).
"""

from __future__ import annotations

from softphone.call_history import Outcome

# The list of calls.
CALLS_OF = "Calls of {name}"
CALL_COLUMNS = ("Call", "Who", "When", "Length", "How it ended")
OUTCOMES = {
    Outcome.ANSWERED: "Answered",
    Outcome.MISSED: "Missed",
    Outcome.DECLINED: "Declined",
    Outcome.PLACED: "Placed",
    Outcome.UNANSWERED: "No answer",
}
NO_CALLS = "No calls yet"
CALL_BACK = "Call back"
CALL_NAME = "Call {name}"
CHOOSE_A_CALL = "Choose a call in the list first"
FORGET_ALL = "Forget all"
YESTERDAY = "Yesterday {time}"

# The menu of a phone.
CALLS = "Calls"
MISSED = "{number} missed"
CALLS_TIP = "The last calls: missed, answered, placed (Ctrl+H)"
MENU = "Menu"
MENU_TIP = "More of this phone (Alt+M)"
REDIAL = "Redial"
REDIAL_NAME = "Redial {name}"
NOBODY_TO_REDIAL = "Nobody has been called from here yet"
