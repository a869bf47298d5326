"""RFC 3261's timer values over UDP, in seconds (17.1.1.1, 17.1.2.1). Every wait for a message and
every retransmission in this project uses them."""

T1 = 0.5  # round trip, as long as nothing better is known
T2 = 4.0  # the longest interval between repeats of a non-INVITE request or an INVITE's response
T4 = 5.0  # how long a message may stay in the network
PATIENCE = 64 * T1  # after that nobody repeats a message, or waits for the answer to one
