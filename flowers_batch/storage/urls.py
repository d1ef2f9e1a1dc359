"""URLs without credentials."""

from __future__ import annotations

import re
from urllib.parse import parse_qs

CREDENTIAL_PARAMETERS = {"access_key", "secret_key", "session_token", "credential_kind", "sig"}  # of S3 and Azure
# A secret may hold slashes; what is only digits up to one is a port.
_USER_AND_SECRET = re.compile(r"(?<=://)[^/@]*:(?!\d+(?:[/?]|$)).*@", re.DOTALL)


def without_credentials(url: str) -> str:
    """Return a URL with its credentials replaced by stars; `open_folder` refuses that too."""
    base, query, options = _USER_AND_SECRET.sub("***:***@", url, count=1).partition("?")
    if CREDENTIAL_PARAMETERS & set(parse_qs(options)):
        return base.replace("://", "://***:***@", 1)
    return f"{base}{query}{options}"
