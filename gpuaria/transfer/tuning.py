"""Tuning constants of the transfer room, each with its unit and the reason for its value."""

# --- stalls and retries
TRICKLE = 256  # bytes/s; a slower flow counts as silence
TRICKLE_SECONDS = 20.0  # after which an HTTP request with only a trickle is cancelled
FIRST_PAUSE = 1.0  # seconds before a file's first retry; doubled each time
LONGEST_PAUSE = 60.0  # seconds
RECENT_PROGRESS = 5.0  # seconds; a file with progress in that time is retried without a pause
HELD_PAUSE = 0.3  # seconds between claims of a file that another fetch downloads
HELD_CHECK = 1.0  # seconds between checks of the other fetch's progress
PORTAL_RESPONSES = 3  # tolerated responses that do not come from a hub: a captive portal may close
WRONG_TRIES = 2  # further downloads of a file with wrong bytes

# --- aria2
TICK = 0.25  # seconds between readings
TICK_NEAR_END = 0.08  # seconds, near the end of a file
TICK_IDLE = 0.05  # seconds, without downloads in aria2
LATE_CALLS = 3  # consecutive calls without a response (10 s each) before aria2c is replaced
SAVE_INTERVAL = 1.0  # seconds between saves of progress, as in aria2
GRACE = 2.0  # seconds after aria2's own time-out before a file counts as stalled
SEVERAL_CONNECT = 4.0  # connect time-out in seconds if another mirror can take over
SEVERAL_TIMEOUT = 8.0  # silence time-out in seconds if another mirror can take over
NO_TIMEOUT = 600.0  # seconds; the longest that aria2 allows

# --- byte ranges
SMALLEST_RANGE = 24 << 20  # bytes; hashed after the last byte has arrived
LONGEST_RANGE = 512 << 20  # bytes, for files up to 8 GiB; a sixteenth of larger files
UNHURRIED_RANGE = 2 << 30  # bytes, on a slow link; small enough to be hashed from the page cache
NEXT_RANGE = 0.7  # share of a range's connections; when fewer are active, the next range starts
AHEAD_SECONDS = 0.5  # seconds before a range's last byte at which the next one starts: connecting takes two round trips
SLOW_RATE = 80e6  # bytes/s; half of the slowest hashing rate, so that hashing is never far behind

# --- the end of a file
END_SECONDS = 1.2  # seconds at the current rate within which a download is near its end
IDLE_SECONDS = 2.0  # seconds that slow connections may keep the last pieces from idle mirrors
TAIL_SECONDS = 1.2  # seconds at the current rate; length of the tail, which starts that long before aria2 is done
SHORTEST_TAIL_SECONDS = 0.5  # seconds; aria2 downloads a shorter end just as fast, with less CPU
TAKEOVER_SECONDS = 0.25  # seconds of work left in the tail or in aria2 at which the tail takes over aria2's bytes
LARGEST_TAIL = 256_000_000  # most bytes that the tail takes over from aria2
FEW_CONNECTIONS = 0.6  # share of the possible connections; with fewer active ones, mirrors are idle

# --- the tail's own connections
SMALLEST_CHUNK = 128 * 1024  # bytes
LARGEST_CHUNK = 2 << 20  # bytes
MOST_COPIES = 2  # requests for one chunk at one mirror
CANCEL_GRACE = 0.3  # seconds for cancelled connections to write received bytes
FIRST_CHUNK_SECONDS = 0.25  # seconds after which a chunk is late, until the first one has arrived


def is_flow(count: int, seconds: float) -> bool:
    """Return True if `count` bytes in that time are more than a trickle."""
    return count >= TRICKLE * max(1.0, seconds)
