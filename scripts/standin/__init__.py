"""A local stand-in for the Hugging Face Hub: its HTTP protocol, its CDN, and injected faults.

repo = Repo.build("openai-community/gpt2-medium", make_gpt2(folder / "src", 8), folder=folder / "store")
with Hub([repo]) as hub:
    ...  # HF_ENDPOINT=hub.url
"""

from .bytes_server import ByteServer, EmbeddedBytes
from .faults import Fault, HubFault
from .http_server import Seen
from .hub import Hub, RateLimit
from .model import make_gpt2
from .nginx import NginxBytes, find_nginx
from .repo import Commit, Entry, Repo, git_id, pointer_text

__all__ = [
    "ByteServer",
    "Commit",
    "EmbeddedBytes",
    "Entry",
    "Fault",
    "Hub",
    "HubFault",
    "NginxBytes",
    "RateLimit",
    "Repo",
    "Seen",
    "find_nginx",
    "git_id",
    "make_gpt2",
    "pointer_text",
]
