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

# Listening to the phones of a pair.
LISTEN_IN = "Listen in: {who}"
LISTEN_OFF = "off"
LISTEN_BOTH = "both"
LISTEN_ALL = "all"
LISTEN_TIP = "Hear what the phones play, through the loudspeaker of this computer"

# Sound devices.
SOUND = "Sound"
SOUND_ENTRY = "Sound ..."
DEVICE_KINDS = {"microphone": "Microphone", "loudspeaker": "Loudspeaker", "ringer": "Ringer"}
MICROPHONE_LEVEL = "Level of the microphone"
SYSTEM_DEVICE = "As the system has it"
NO_DEVICE = "None found"
TEST = "Test"
TEST_NAME = "Test the {name}"
SPEAK_NOW = "Speak: the bar shows what the microphone hears."
YOU_SHOULD_HEAR = "You should hear a tone now."

# Registration and account.
REGISTER_AGAIN = "Register again"
REGISTER_TIP = "Ask the server now, so that calls reach this phone"
LOG_OFF = "Log off"
LOG_OFF_TIP = "Take the registration back: nobody can call this phone then"
NEW_PASSWORD = "Password"
USE_PASSWORD = "Register"
USE_PASSWORD_TIP = "Try this password (Enter)"
ACCOUNT = "My own phone"
ACCOUNT_ENTRY = "My own phone ..."
ACCOUNT_TIP = "Set up a phone for an account of yours; it opens instead of the pair from then on"
PAIR_ENTRY = "Alice and Bob"
PAIR_TIP = "Open the pair of phones that call each other"
ACCOUNT_FIELDS = {
    "display_name": ("Your name", "What others see, such as Alice Liddell"),
    "user": ("User", "alice or alice@example.org"),
    "password": ("Password", "Leave it empty if the server asks for none"),
    "server": ("Server", "sip.example.org or 192.0.2.1:5060"),
}
REMOVE_ACCOUNT = "Forget this account"
TESTING = "Asking the server ..."
TEST_WORKS = "It works: the server has registered this phone."
NO_SERVER_ANSWERS = "No server answers at {server}. Is the address right, and is it reachable?"
SERVER_UNKNOWN = "{server} cannot be found: {reason}"
CANNOT_SAVE = "The settings cannot be kept: {reason}"
NOTHING_TO_LISTEN_WITH = "This computer has no loudspeaker to listen with"

# SIP trace.
TRACE_ENTRY = "SIP messages"
TRACE_OF = "SIP messages of {name}"
TRACE_COLUMNS = ("Time", "Direction", "Message", "From and to")
SENT, RECEIVED, SENT_AGAIN = "sent", "received", " (again)"
WHOLE_MESSAGE = "The whole message"
SAVE_TEXT, SAVE_PCAP, CLEAR = "Save as text ...", "Save as pcap ...", "Clear"
SAVE_TRACE = "Save the messages"
TEXT_FILES, PCAP_FILES = "Text (*.txt)", "Capture files (*.pcap)"
SAVED = "Saved in {path}."
NOT_SAVED = "{path} cannot be written: {reason}"
ANSWERED_LAST = "{server} answered last"

# The call.
QUALITY_UNKNOWN = "Quality: not known yet"
QUALITY_TIP = "Packets lost, variation of their delay, and the time to the other side and back"
IS_CALLING = "{name} is calling"
LOGGED_OFF = "Not registered"

# The panel of a phone and the card of its call.
CALL = "Call"
HANG_UP = "Hang up"
ANSWER = "Answer"
WHO_TO_CALL = "Who to call"
TARGET_HINT = "Name or SIP address"
TARGET_TIP = "Who to call: a name such as bob, or an address such as sip:bob@example.org"
DECLINE = "Decline"
DECLINE_TIP = "Refuse this call (Esc)"
HOLD = "Hold"
RESUME = "Resume"
MUTE = "Mute"
UNMUTE = "Unmute"
TO = "To"
NOBODY_TO_CALL = "Type whom to call first"
HANG_UP_TIP = "End this call (Esc)"
NOBODY_TO_HOLD = "Nobody to put on hold: there is no answered call"
RESUME_TIP = "Talk again"
HOLD_TIP = "Let the other side wait"
NOBODY_HEARS = "Nobody hears you now: there is no answered call"
UNMUTE_TIP = "Let the other side hear you again"
MUTE_TIP = "The other side will not hear you"
KEYS_TYPE = "Types into the line above"
KEYS_SEND = "Sends a tone to the other side"
KEYS_WAIT = "Tones can be sent once the call is answered"
UNKNOWN_CALLER = "Unknown caller"
LEVEL_IN = "Level of what you hear"
LEVEL_OUT = "Level of what you say"
IN = "In"
OUT = "Out"
NO_TIME = "No time yet"
NO_PACKETS = "RTP packets: none yet"
NO_GAP = "Longest gap: none yet"
GAP_TIP = "The longest pause between two packets received"
DIGITS_SENT = "Sent"
DIGITS_RECEIVED = "Received"
KEYS_HINT = "The keys send tones"
NO_CALL = "No call yet"
HOW_TO_BEGIN = "Call, or wait to be called"
CALLING = "Calling {name} ..."
RINGING_AT = "Ringing at {name}"
TALKING_WITH = "Talking with {name}"
HANGING_UP = "Hanging up ..."
CALL_ENDED = "The call has ended"
PHONE_OF = "Phone of {name}"
CALL_ENTER = "Call {name} (Enter)"
ANSWER_ENTER = "Answer {name} (Enter)"
GAP = "Longest gap {ms:.0f} ms"
KEY = "Key {name}"
SOUND_VIA = "Sound via {host}, gap {ms:.0f} ms"
SOUND_VIA_TIP = (
    "The other side is behind a NAT: its sound comes from {host}, so yours goes there too. "
    "The longest pause between two packets received"
)
RTP = "RTP"
PACKETS = "{codec} packets in {received}, out {sent}"
PACKETS_TIP = "RTP packets: {received} received, {lost} lost on the way, {sent} sent"
