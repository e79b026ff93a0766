"""Every tuning constant of this room, with its unit and the reason for its value."""

# --- patience
TRICKLE = 256  # bytes per second; a slower flow counts as silence
TRICKLE_SECONDS = 20.0  # seconds of a trickle after which one HTTP request is given up
FIRST_PAUSE = 1.0  # seconds before a file is tried again; doubled each time
LONGEST_PAUSE = 60.0  # seconds
RECENT_PROGRESS = 5.0  # seconds; a file that moved within them is tried again without a pause
HELD_PAUSE = 0.3  # seconds after which a file that another fetch downloads is asked for again
HELD_CHECK = 1.0  # seconds between two looks at the bytes that the other fetch stores
PORTAL_RESPONSES = 3  # responses of something else than a hub that may pass: a captive portal may close
WRONG_TRIES = 2  # further downloads of a file with wrong bytes

# --- aria2
TICK = 0.25  # seconds between two readings
TICK_NEAR_END = 0.08  # seconds, where a file is about to end
TICK_IDLE = 0.05  # seconds, without a download in aria2
LATE_CALLS = 3  # calls in a row that aria2 may leave without a response (of 10 s each)
SAVE_INTERVAL = 1.0  # seconds between two savings of progress; aria2 saves as often
GRACE = 2.0  # seconds beyond aria2's own time-out before a file counts as stalled
SEVERAL_CONNECT = 4.0  # seconds to connect, where another mirror can take over
SEVERAL_TIMEOUT = 8.0  # seconds of silence, where another mirror can take over
NO_TIMEOUT = 600.0  # seconds; aria2's longest

# --- byte ranges
SMALLEST_RANGE = 24 << 20  # bytes; what is hashed after the last byte has come
LONGEST_RANGE = 512 << 20  # bytes, of a file of up to 8 GiB; a sixteenth of a larger one
UNHURRIED_RANGE = 2 << 30  # bytes, on a slow link: what is hashed should still be in the page cache
NEXT_RANGE = 0.7  # of its connections: when a range has no more than that active, the next one begins
AHEAD_SECONDS = 0.5  # seconds before its last byte that the next range begins: new connections take two round trips
SLOW_RATE = 80e6  # bytes/s: half of what hashing brings at its slowest, so that it is never far behind

# --- the end of a file
END_SECONDS = 1.2  # seconds at its pace that a download is from its end
IDLE_SECONDS = 2.0  # seconds for which slow connections may keep the last pieces from idle mirrors
TAIL_SECONDS = 1.2  # seconds: how much of a file's end the tail downloads, beginning that long before aria2 is done
SHORTEST_TAIL_SECONDS = 0.5  # seconds that the tail must take; a shorter end aria2 does as well, with less CPU
TAKEOVER_SECONDS = 0.25  # seconds of work left, for the tail or for aria2, when the tail takes over what aria2 holds
LARGEST_TAIL = 256_000_000  # bytes that are taken over from aria2
FEW_CONNECTIONS = 0.6  # of the connections that there could be: fewer are idle mirrors

# --- the tail's own connections
SMALLEST_CHUNK = 128 * 1024  # bytes
LARGEST_CHUNK = 2 << 20  # bytes
MOST_COPIES = 2  # of one cut from one mirror
CANCEL_GRACE = 0.3  # seconds for connections that are called off to write what they have
FIRST_CHUNK_SECONDS = 0.25  # seconds after which a cut is late, as long as none has come


def is_flow(count: int, seconds: float) -> bool:
    """True if `count` bytes in that time are more than a trickle."""
    return count >= TRICKLE * max(1.0, seconds)
