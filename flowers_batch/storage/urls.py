"""URLs of file systems as people write them, and the parts of them that may be written down."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, quote

from flowers_batch.errors import InputError

STORE_SCHEMES = ("s3", "gs", "gcs", "abfs", "abfss")  # of object stores
SUPPORTED = "s3, gs, abfs, abfss, hdfs or file"  # what pyarrow has a file system for
_ALIASES = {"s3a": "s3", "s3n": "s3"}  # as Hadoop calls S3
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_ALMOST_URL = re.compile(r"\s*[A-Za-z][A-Za-z0-9+.-]+:/")
_NO_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_ESCAPE_OR_QUERY = re.compile(r"%(?=[0-9A-Fa-f]{2})|\?")
_AS_IN_PATHS = "/:@!$&'()*+,;=~%"  # besides letters, digits and `_.-`, what a URI's path has as it is
# Options that decide which server is asked, and how: no file may set them (`dataset.following`).
_OF_S3_SERVERS = ("endpoint_override", "scheme", "tls_ca_file_path", "tls_verify_certificates")
_OF_AZURE_SERVERS = ("blob_storage_authority", "dfs_storage_authority", "enable_tls")
_OF_SERVERS = frozenset({*_OF_S3_SERVERS, *_OF_AZURE_SERVERS})
_OF_AZURE = ("background_writes", "client_id", "credential_kind", *_OF_AZURE_SERVERS)
_OF_GOOGLE = ("endpoint_override", "project_id", "retry_limit_seconds", "scheme")
# Options of pyarrow 26 that are no secrets, behind a URL's question mark.
_OPTIONS: dict[str, tuple[str, ...]] = {
    "s3": (
        *("allow_bucket_creation", "allow_bucket_deletion", "allow_delayed_open", "region", "smart_defaults"),
        *_OF_S3_SERVERS,
    ),
    "gs": _OF_GOOGLE,
    "gcs": _OF_GOOGLE,
    "abfs": _OF_AZURE,
    "abfss": _OF_AZURE,
    "hdfs": ("buffer_size", "default_block_size", "replication", "user"),
}
_BUCKET = r"[\w.-]*"
_HOST = r"(?:[\w.-]*|\[[0-9A-Fa-f:.]+\])(?::\d+)?"
_AUTHORITIES = {  # what may stand between `://` and the path: the only names before `@` are no secrets
    "s3": re.compile(_BUCKET),
    "gs": re.compile(rf"(?:anonymous@)?{_BUCKET}"),
    "gcs": re.compile(rf"(?:anonymous@)?{_BUCKET}"),
    "abfs": re.compile(r"(?:[a-z0-9$-]+@)?[\w.-]*"),  # of a container
    "abfss": re.compile(r"(?:[a-z0-9$-]+@)?[\w.-]*"),
    "hdfs": re.compile(rf"(?:[\w.-]+@)?{_HOST}"),
    "file": re.compile(""),
}
_VALUE = re.compile(r"[\w.:/\[\]~-]*")  # of an option; one with `@` or `=` would be something else
_REGION = re.compile(r"[\w-]*")  # a part of a host's name
_LIKE_OPTIONS = re.compile(r"[^\s=&]+=\S*")  # in a list, a key that ends so is taken for one with options
_LIKE_FILE = re.compile(r"[^&]*\.[A-Za-z]{2,5}")  # unless it ends as a file's name does


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
    return (base, options) if base and options and _are_known(scheme_of(url), options) else (url, "")


def check_url(url: str) -> None:
    """Check that a URL holds nothing that could be a secret, since it is written to disk with the run.

    Its options, and what stands before its host, must be among those that are known to be harmless.

    Raises:
        InputError: It holds something else. What may be the secret is not repeated.
    """
    scheme = scheme_of(url)
    base, _, options = url.partition("?")
    if scheme not in _AUTHORITIES:
        shown = f"{scheme}://..." if "@" in url else base
        raise InputError(
            f"{shown} cannot be opened: give a path, or a URL of {SUPPORTED}; copy what is elsewhere to one of these."
        )
    if not _AUTHORITIES[scheme].fullmatch(authority_of(url)):
        raise InputError(
            f"A URL that begins with {scheme}:// cannot be opened: what stands before its path is no plain name, and "
            "may contain credentials; give these by the environment or the machine's role."
        )
    if not _are_known(scheme, options):
        raise _unknown_options(base)


def check_entry(entry: str) -> None:
    """Check an entry of a list as `check_url` does; in a list, keys may have question marks.

    Raises:
        InputError: It is a URL that may hold a secret.
    """
    if not scheme_of(entry):
        check_path(entry)
        return
    base, _, rest = split_options(entry)[0].partition("?")
    check_url(base)
    if _LIKE_OPTIONS.fullmatch(rest) and not _LIKE_FILE.fullmatch(rest):
        raise _unknown_options(base)


def check_path(path: str) -> None:
    """Check that a path is not a URL that was mistyped, or passed through `pathlib`, and might hold a secret.

    Raises:
        InputError: It looks like one.
    """
    if _ALMOST_URL.match(path) and not scheme_of(path):
        raise InputError("A name begins like a URL, but is not one: write `s3://`, with no space before it.")


def check_server(options: str, given: str) -> None:
    """Check that options from a file ask no other server than those which the user gave.

    Raises:
        InputError: They ask another one.
    """
    server = _server_options(options)
    if server and server != _server_options(given):
        raise InputError(
            "Options that decide which server is asked count only on the command line: give the URL of the photos' "
            "folder with them as `root`, or set AWS_ENDPOINT_URL."
        )


def _server_options(options: str) -> set[tuple[str, str]]:
    return {(name, value) for name, value in parse_qsl(options) if name in _OF_SERVERS}


def _are_known(scheme: str, options: str) -> bool:
    """Return whether options are all harmless ones of a scheme, with values that hide nothing else."""
    pairs = [pair.partition("=") for pair in options.split("&")] if options else []
    return all(
        name in _OPTIONS.get(scheme, ()) and (_REGION if name == "region" else _VALUE).fullmatch(value)
        for name, _, value in pairs
    )


def authority_of(url: str) -> str:
    """Return what stands between `://` and the path: a bucket, a container and its account, or a host."""
    return url.partition("?")[0].partition("://")[2].partition("/")[0]


def _unknown_options(base: str) -> InputError:
    known = ", ".join(_OPTIONS.get(scheme_of(base), ())) or "none"
    return InputError(
        f"The URL {scheme_of(base)}://{authority_of(base)}/... has options that may be credentials, which would be "
        f"written to disk with the run: leave out all but the harmless ones ({known}), and give credentials by the "
        "environment or the machine's role."
    )
