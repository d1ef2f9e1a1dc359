"""Address of an S3 server that runs for the tests, and files in its bucket."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote
from urllib.request import Request, urlopen

from flowers_batch.storage.opening import open_folder


@dataclass(frozen=True)
class S3:
    """An S3 server on this machine, with one bucket."""

    port: int
    bucket: str = "photos"

    def url(self, name: str = "") -> str:
        """Return the URL of a file or folder in the bucket."""
        return f"s3://{self.bucket}/{name}?endpoint_override=127.0.0.1:{self.port}&scheme=http"

    def put(self, name: str, content: bytes) -> None:
        """Write an object."""
        folder = open_folder(self.url())
        with folder.filesystem.open_output_stream(folder.at(name)) as stream:
            stream.write(content)

    def put_key(self, key: str, content: bytes) -> None:
        """Write an object with a key that pyarrow would refuse."""
        request = Request(f"http://127.0.0.1:{self.port}/{self.bucket}/{quote(key)}", content, method="PUT")
        request.add_header("Content-Type", "application/octet-stream")
        urlopen(request, timeout=20).close()

    def upload(self, folder: Path, name: str) -> str:
        """Upload all files of a folder under a name, and return its URL."""
        for path in filter(Path.is_file, folder.rglob("*")):
            self.put(f"{name}/{path.relative_to(folder)}", path.read_bytes())
        return self.url(name)
