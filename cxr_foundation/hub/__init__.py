"""The only room that touches the network: fetch the authors' files, fetch and push folders.

A file is used only after its size and its sha256 are right, at a pinned revision if there is one;
a stamp beside a checked file spares the next check. huggingface_hub's own settings hold
(`HF_ENDPOINT`, `HF_TOKEN`, `HF_HOME`, `HF_HUB_OFFLINE`); its errors arrive as ours, and no message
holds a token.
"""

from cxr_foundation.hub.cache import cache_root, is_stamped, stamp
from cxr_foundation.hub.publish import PushResult, push
from cxr_foundation.hub.repository import download_folder
from cxr_foundation.hub.sources import fetch

__all__ = [
    "PushResult",
    "cache_root",
    "download_folder",
    "fetch",
    "is_stamped",
    "push",
    "stamp",
]
