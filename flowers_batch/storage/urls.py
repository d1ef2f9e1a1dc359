"""URLs of file systems as people write them, and URLs without credentials."""

from __future__ import annotations

import re
from urllib.parse import parse_qs, quote

STORE_SCHEMES = ("s3", "gs", "gcs", "abfs", "abfss")  # of object stores
SUPPORTED = "s3, gs, abfs, abfss, hdfs or file"  # what pyarrow has a file system for
CREDENTIAL_PARAMETERS = {"access_key", "secret_key", "session_token", "credential_kind", "sig"}  # of S3 and Azure
_SIGNATURES = {"x-amz-signature", "x-amz-credential", "x-amz-security-token", "x-goog-signature", "signature"}
_ALIASES = {"s3a": "s3", "s3n": "s3"}  # as Hadoop calls S3
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
# A secret may hold slashes; what is only digits up to one is a port.
_USER_AND_SECRET = re.compile(r"(?<=://)[^/@]*:(?!\d+(?:[/?]|$)).*@", re.DOTALL)
_NO_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_ESCAPE_OR_QUERY = re.compile(r"%(?=[0-9A-Fa-f]{2})|\?")
_AS_IN_PATHS = "/:@!$&'()*+,;=~%"  # besides letters, digits and `_.-`, what a URI's path has as it is
_OPTIONS = {  # of the file systems, behind a URL's question mark
    *("region", "scheme", "endpoint_override", "allow_bucket_creation", "allow_bucket_deletion"),
    *("allow_delayed_open", "background_writes", "check_directory_existence_before_creation"),
    *("force_virtual_addressing", "tls_ca_file_path", "tls_verify_certificates"),  # S3
    *("retry_limit_seconds", "project_id", "enable_tls", "blob_storage_authority", "dfs_storage_authority"),
    *("blob_storage_scheme", "dfs_storage_scheme", "client_id", "tenant_id", "user", "replication", "buffer_size"),
    *CREDENTIAL_PARAMETERS,
}


def scheme_of(name: str) -> str:
    """Return the scheme of a URL, in the form that pyarrow knows it in; empty for a path."""
    match = _SCHEME.match(name)
    return _ALIASES.get(match[1].lower(), match[1].lower()) if match else ""


def with_known_scheme(url: str) -> str:
    """Return a URL with the scheme as `scheme_of` returns it: `S3://` and `s3a://` are `s3://`; a path as it is."""
    return _SCHEME.sub(f"{scheme_of(url)}://", url, count=1) if _SCHEME.match(url) else url


def as_uri(url: str) -> str:
    """Return a URL with spaces, letters and signs that no URI has percent-encoded; what is encoded stays so."""
    base, query, options = url.partition("?")
    scheme, sign, rest = base.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{sign}{host}{slash}{quote(_NO_ESCAPE.sub('%25', path), safe=_AS_IN_PATHS)}{query}{options}"


def name_in_url(name: str) -> str:
    """Return a file's name as it must stand in a URL, so that nothing in it is taken for an escape or an option."""
    return _ESCAPE_OR_QUERY.sub(lambda sign: quote(sign[0]), name)


def split_options(url: str) -> tuple[str, str]:
    """Return a URL without its options, and these; a question mark that no options follow is part of a name."""
    base, _, options = url.rpartition("?")
    if base and options and set(parse_qs(options, keep_blank_values=True)) <= _OPTIONS:
        return base, options
    return url, ""


def without_credentials(url: str) -> str:
    """Return a URL with its credentials replaced by stars; `open_folder` refuses that too."""
    base, query, options = _USER_AND_SECRET.sub("***:***@", url, count=1).partition("?")
    names = {name.lower() for name in parse_qs(options.replace("?", "&"))}  # `a?b?sig=` is a key and an option
    if names & (CREDENTIAL_PARAMETERS | _SIGNATURES):
        return base.replace("://", "://***:***@", 1)
    return f"{base}{query}{options}"
