"""Every text of the phone's windows. The sentences about calls and registrations stand in
softphone.ua.user_messages."""

from __future__ import annotations

from softphone.translation import tr

# The list of calls.
CALLS_OF = tr("Calls of {name}")
CALL_COLUMNS = (tr("Call"), tr("Who"), tr("When"), tr("Length"), tr("How it ended"))
OUTCOMES = {
    "ANSWERED": tr("Answered"),
    "MISSED": tr("Missed"),
    "DECLINED": tr("Declined"),
    "PLACED": tr("Placed"),
    "UNANSWERED": tr("No answer"),
}
NO_CALLS = tr("No calls yet")
CALL_BACK = tr("Call back")
CALL_NAME = tr("Call {name}")
CHOOSE_A_CALL = tr("Choose a call in the list first")
FORGET_ALL = tr("Forget all")
YESTERDAY = tr("Yesterday {time}")

# The menu of a phone.
CALLS = tr("Calls")
MISSED = tr("{number} missed")
CALLS_TIP = tr("The last calls: missed, answered, placed (Ctrl+H)")
MENU = tr("Menu")
MENU_TIP = tr("More of this phone (Alt+M)")
REDIAL = tr("Redial")
REDIAL_NAME = tr("Redial {name}")
NOBODY_TO_REDIAL = tr("Nobody has been called from here yet")

# Listening to the phones of a pair.
LISTEN_IN = tr("Listen in: {who}")
LISTEN_OFF = tr("off")
LISTEN_BOTH = tr("both")
LISTEN_ALL = tr("all")
LISTEN_TIP = tr("Hear what the phones play, through the loudspeaker of this computer")

# Sound devices.
SOUND = tr("Sound")
SOUND_ENTRY = tr("Sound ...")
DEVICE_KINDS = {
    "microphone": tr("Microphone"),
    "loudspeaker": tr("Loudspeaker"),
    "ringer": tr("Ringer"),
}
MICROPHONE_LEVEL = tr("Level of the microphone")
SYSTEM_DEVICE = tr("As the system has it")
NO_DEVICE = tr("None found")
TEST = tr("Test")
TEST_NAME = tr("Test the {name}")
SPEAK_NOW = tr("Speak: the bar shows what the microphone hears.")
YOU_SHOULD_HEAR = tr("You should hear a tone now.")

# Registration and account.
REGISTER_AGAIN = tr("Register again")
REGISTER_TIP = tr("Ask the server now, so that calls reach this phone")
LOG_OFF = tr("Log off")
LOG_OFF_TIP = tr("Take the registration back: nobody can call this phone then")
NEW_PASSWORD = tr("Password")
USE_PASSWORD = tr("Register")
USE_PASSWORD_TIP = tr("Try this password (Enter)")
ACCOUNT = tr("My own phone")
ACCOUNT_ENTRY = tr("My own phone ...")
ACCOUNT_TIP = tr(
    "Set up a phone for an account of yours; it opens instead of the pair from then on"
)
PAIR_ENTRY = tr("Alice and Bob")
PAIR_TIP = tr("Open the pair of phones that call each other")
ACCOUNT_FIELDS = {
    "display_name": (tr("Your name"), tr("What others see, such as Alice Liddell")),
    "user": (tr("User"), tr("alice or alice@example.org")),
    "password": (tr("Password"), tr("Leave it empty if the server asks for none")),
    "server": (tr("Server"), tr("sip.example.org or 192.0.2.1:5060")),
}
REMOVE_ACCOUNT = tr("Forget this account")
TESTING = tr("Asking the server ...")
TEST_WORKS = tr("It works: the server has registered this phone.")
NO_SERVER_ANSWERS = tr("No server answers at {server}. Is the address right, and is it reachable?")
SERVER_UNKNOWN = tr("{server} cannot be found: {reason}")
CANNOT_SAVE = tr("The settings cannot be kept: {reason}")
NOTHING_TO_LISTEN_WITH = tr("This computer has no loudspeaker to listen with")

# SIP trace.
TRACE_ENTRY = tr("SIP messages")
TRACE_OF = tr("SIP messages of {name}")
TRACE_COLUMNS = (tr("Time"), tr("Direction"), tr("Message"), tr("From and to"))
SENT, RECEIVED, SENT_AGAIN = tr("sent"), tr("received"), tr(" (again)")
NO_MESSAGES = tr("No messages yet")
WHOLE_MESSAGE = tr("The whole message")
SAVE_TEXT, SAVE_PCAP, CLEAR = tr("Save as text ..."), tr("Save as pcap ..."), tr("Clear")
SAVE_TRACE = tr("Save the messages")
TEXT_FILES, PCAP_FILES = tr("Text (*.txt)"), tr("Capture files (*.pcap)")
SAVED = tr("Saved in {path}.")
NOT_SAVED = tr("{path} cannot be written: {reason}")
ANSWERED_LAST = tr("{server} answered last")

# The call.
QUALITY_UNKNOWN = tr("Quality: not known yet")
QUALITY_TIP = tr("Packets lost, variation of their delay, and the time to the other side and back")

# The panel of a phone and the card of its call.
CALL = tr("Call")
HANG_UP = tr("Hang up")
ANSWER = tr("Answer")
WHO_TO_CALL = tr("Who to call")
TARGET_HINT = tr("Name or SIP address")
TARGET_TIP = tr("Who to call: a name such as bob, or an address such as sip:bob@example.org")
DECLINE = tr("Decline")
DECLINE_TIP = tr("Refuse this call (Esc)")
HOLD = tr("Hold")
RESUME = tr("Resume")
MUTE = tr("Mute")
UNMUTE = tr("Unmute")
TO = tr("To")
NOBODY_TO_CALL = tr("Type whom to call first")
HANG_UP_TIP = tr("End this call (Esc)")
NOBODY_TO_HOLD = tr("Nobody to put on hold: there is no answered call")
RESUME_TIP = tr("Talk again")
HOLD_TIP = tr("Let the other side wait")
NOBODY_HEARS = tr("Nobody hears you now: there is no answered call")
UNMUTE_TIP = tr("Let the other side hear you again")
MUTE_TIP = tr("The other side will not hear you")
KEYS_TYPE = tr("Types into the line above")
KEYS_SEND = tr("Sends a tone to the other side")
KEYS_WAIT = tr("Tones can be sent once the call is answered")
KEYS_HELD = tr("On hold: no tones are sent")
UNKNOWN_CALLER = tr("Unknown caller")
LEVEL_IN = tr("Level of what you hear")
LEVEL_OUT = tr("Level of what you say")
IN = tr("In")
OUT = tr("Out")
NO_TIME = tr("No time yet")
NO_PACKETS = tr("RTP packets: none yet")
NO_GAP = tr("Longest gap: none yet")
GAP_TIP = tr("The longest pause between two packets received")
DIGITS_SENT = tr("Sent")
DIGITS_RECEIVED = tr("Received")
KEYS_HINT = tr("The keys send tones")
NO_CALL = tr("No call yet")
HOW_TO_BEGIN = tr("Call, or wait to be called")
PHONE_OF = tr("Phone of {name}")
CALL_ENTER = tr("Call {name} (Enter)")
ANSWER_ENTER = tr("Answer {name} (Enter)")
GAP = tr("Longest gap {ms:.0f} ms")
KEY = tr("Key {name}")
SOUND_VIA = tr("Sound via {host}, gap {ms:.0f} ms")
SOUND_VIA_TIP = tr(
    "The other side is behind a NAT: its sound comes from {host}, so yours goes there too. "
    "The longest pause between two packets received"
)
RTP = "RTP"
PACKETS = tr("{codec} packets in {received}, out {sent}")
PACKETS_TIP = tr("RTP packets: {received} received, {lost} lost on the way, {sent} sent")
QUALITY = tr("Loss {loss:.1f} %, jitter {jitter:.0f} ms")
QUALITY_RTT = tr("Loss {loss:.1f} %, jitter/RTT {jitter:.0f}/{rtt:.0f} ms")
KEY_NAMES = {"*": tr("star"), "#": tr("hash")}
# A length of time, for a screen reader: one of a unit, and several.
UNITS = (
    (tr("{number} hour"), tr("{number} hours")),
    (tr("{number} minute"), tr("{number} minutes")),
    (tr("{number} second"), tr("{number} seconds")),
)

# The program and its windows.
SOFTPHONE = tr("Softphone")
WINDOW = tr("{what} - softphone")
TWO_PHONES = tr("{left} and {right}")
CANNOT_START = tr("The phone cannot start: {reason}")

# What is wrong with an account, with files, with devices.
NOT_A_USER = tr("'{text}' is not a user; a user looks like alice or alice@example.org")
NO_USER = tr("a name is missing, such as alice")
USER_ENCRYPTED = tr("{text} asks for encryption, which this phone does not have; write sip:")
NOT_A_DOMAIN = tr("'{text}' is no domain; one looks like example.org")
NO_SERVER = tr("where the phone is to register is missing, such as example.org")
FILE_UNREADABLE = tr("{path} cannot be read ({reason})")
FILE_DAMAGED = tr("{path} is damaged: remove it, and set the phone up anew")
CALLS_NOT_KEPT = tr(
    "The list of calls cannot be kept in {path}: {reason}; make room or allow it, calls are "
    "remembered until this window is closed"
)
NO_SUCH_DEVICE = tr("This computer has no {device}; the call goes on without it.")
DEVICE_UNUSABLE = tr("The {device} cannot be used now; the call goes on without it.")
DEVICE_LOST = tr("The {device} was lost; the call goes on without it.")
NO_SOUND_DEVICES = tr("This computer has no microphone and no loudspeaker; a tone is sent instead.")
NO_MICROPHONE = tr("This computer has no microphone; a tone is sent instead.")
NO_LOUDSPEAKER = tr("This computer has no loudspeaker; the other side cannot be heard.")
NO_QT_SOUND = tr("Sound is off, a tone is sent instead: QtMultimedia cannot be loaded ({reason}).")
