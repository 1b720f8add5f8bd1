"""A small object server that answers as Google's XML API and Azure's Blob service are documented to answer.

It keeps objects in memory, and checks that a request is authorised as it has to be. What passes here proves how the
client library is used, no more: it is not Google, and not Azure.
"""

import base64
import hashlib
import hmac
import json
import re
import threading
import time
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

ACCOUNT, ACCOUNT_KEY = "planted", base64.b64encode(b"planted-account-key-0123").decode()


class SmallObjectServer:
    """The server, on a free loopback port.

    :ivar endpoint_url: Google's.
    :ivar azure_url: Azure's, with the account in the path as its emulator has it.
    :ivar google_key: the JSON of a service account whose tokens it gives out.
    :ivar seen: methods and paths of all requests.
    :ivar harms: what is put together of parts is not what was sent.
    :ivar full: no object is taken.
    """

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.uploads: dict[str, dict[str, bytes]] = {}
        self.seen: list[str] = []
        self.harms = self.full = False
        self.private_key = rsa.generate_private_key(65537, 2048)
        server = self

        class Handler(_Handler):
            owner = server

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.endpoint_url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self.azure_url = f"{self.endpoint_url}/{ACCOUNT}"
        pem = self.private_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        self.google_key = json.dumps(
            {
                "type": "service_account",
                "client_email": "agent@example.com",
                "private_key_id": "one",
                "private_key": pem.decode(),
                "token_uri": "https://oauth2.example.com/token",
            }
        )

    def __enter__(self) -> "SmallObjectServer":
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._http.shutdown()
        self._http.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: SmallObjectServer

    def log_message(self, *words: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._handle()

    def do_PUT(self) -> None:
        self._handle()

    def do_POST(self) -> None:
        self._handle()

    def do_HEAD(self) -> None:
        self._handle()

    def do_DELETE(self) -> None:
        self._handle()

    def _handle(self) -> None:
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(parts.path).lstrip("/")
        self.owner.seen.append(f"{self.command} {path}")
        if path.startswith(f"{ACCOUNT}/"):
            self._azure(path.removeprefix(f"{ACCOUNT}/"), query, body)
        elif not self._signed_for_google():
            self._answer(401, b"<Error><Code>AuthenticationRequired</Code></Error>")
        else:
            self._google(path, query, body)

    def _signed_for_google(self) -> bool:
        """Check the service account's own token (Google: "Service account authorization without OAuth")."""
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        signed, _dot, signature = token.rpartition(".")
        try:
            self.owner.private_key.public_key().verify(
                base64.urlsafe_b64decode(signature + "=="), signed.encode(), padding.PKCS1v15(), hashes.SHA256()
            )
        except (InvalidSignature, ValueError):
            return False
        return True

    def _google(self, path: str, query: dict[str, str], body: bytes) -> None:
        uploads, objects = self.owner.uploads, self.owner.objects
        if self.command == "POST" and "uploads" in query:
            uploads[path] = {}
            self._answer(200, b"<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>")
        elif self.command == "PUT" and "partNumber" in query:
            uploads[path][f"{int(query['partNumber']):05d}"] = body
            self._answer(200, b"", {"ETag": '"part"'})
        elif self.command == "POST" and "uploadId" in query:
            self._assemble(path, [part for _number, part in sorted(uploads.pop(path).items())])
            self._answer(200, b"<CompleteMultipartUploadResult><ETag>whole</ETag></CompleteMultipartUploadResult>")
        elif self.command == "GET" and "list-type" in query:
            start = f"{path}/{query.get('prefix', '')}"
            found = "".join(
                f"<Contents><Key>{escape(name.removeprefix(path + '/'))}</Key><Size>{len(data)}</Size>"
                "<LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>x</ETag></Contents>"
                for name, data in sorted(objects.items())
                if name.startswith(start)
            )
            self._answer(200, f"<ListBucketResult>{found}</ListBucketResult>".encode())
        else:
            self._object(path, body)

    def _azure(self, path: str, query: dict[str, str], body: bytes) -> None:
        uploads, objects = self.owner.uploads, self.owner.objects
        if not self._signed_for_azure(query):
            self._answer(
                403, b"<Error><Code>AuthenticationFailed</Code><Message>The signature differs.</Message></Error>"
            )
        elif self.command == "POST" and query.get("comp") == "batch":
            self._delete_batch(body)
        elif self.command == "PUT" and query.get("comp") == "block":
            uploads.setdefault(path, {})[query["blockid"]] = body
            self._answer(201, b"")
        elif self.command == "PUT" and query.get("comp") == "blocklist":
            blocks = uploads.pop(path)
            self._assemble(
                path, [blocks[name] for name in re.findall(r"<(?:Latest|Uncommitted)>([^<]+)<", body.decode())]
            )
            self._answer(201, b"", {"ETag": '"whole"'})
        elif self.command == "GET" and query.get("comp") == "list":
            start = f"{path}/{query.get('prefix', '')}"
            found = "".join(
                f"<Blob><Name>{escape(name.removeprefix(path + '/'))}</Name><Properties><Content-Length>{len(data)}"
                f"</Content-Length><Last-Modified>{formatdate(0, usegmt=True)}</Last-Modified><Etag>x</Etag>"
                "<Content-Type>a/b</Content-Type></Properties></Blob>"
                for name, data in sorted(objects.items())
                if name.startswith(start)
            )
            listing = f"<EnumerationResults><Blobs>{found}</Blobs><NextMarker/></EnumerationResults>"
            self._answer(200, listing.encode())
        else:
            self._object(path, body)

    def _delete_batch(self, body: bytes) -> None:
        """Answer many deletions in one (Azure: "Blob Batch")."""
        answer = ""
        for number, wanted in enumerate(re.findall(r"^DELETE /(\S+) HTTP", body.decode(), re.MULTILINE)):
            path = unquote(wanted).removeprefix(f"{ACCOUNT}/")
            status = "202 Accepted" if self.owner.objects.pop(path, None) is not None else "404 Not Found"
            answer += f"--b\r\nContent-Type: application/http\r\nContent-ID: {number}\r\n\r\n"
            answer += f"HTTP/1.1 {status}\r\nx-ms-version: 2023-11-03\r\n\r\n\r\n"
        self._answer(202, f"{answer}--b--\r\n".encode(), {"Content-Type": "multipart/mixed; boundary=b"})

    def _signed_for_azure(self, query: dict[str, str]) -> bool:
        """Check a request's Shared Key (Azure: "Authorize with Shared Key")."""
        length = self.headers.get("Content-Length") or ""
        own = sorted((name.lower(), value) for name, value in self.headers.items() if name.lower().startswith("x-ms-"))
        names = ("Content-Encoding", "Content-Language", "", "Content-MD5", "Content-Type", "Date", "If-Modified-Since",
                 "If-Match", "If-None-Match", "If-Unmodified-Since", "Range")  # fmt: skip
        lines = [self.command]
        lines += [("" if length == "0" else length) if not name else self.headers.get(name) or "" for name in names]
        lines += [f"{name}:{value}" for name, value in own]
        resource = f"/{ACCOUNT}{urlsplit(self.path).path}"
        resource += "".join(f"\n{name}:{value}" for name, value in sorted(query.items()))
        text = "\n".join([*lines, resource])
        digest = hmac.digest(base64.b64decode(ACCOUNT_KEY), text.encode(), hashlib.sha256)
        return self.headers.get("Authorization") == f"SharedKey {ACCOUNT}:{base64.b64encode(digest).decode()}"

    def _assemble(self, path: str, parts: list[bytes]) -> None:
        data = b"".join(parts)
        self.owner.objects[path] = b"?" + data[1:] if self.owner.harms else data

    def _object(self, path: str, body: bytes) -> None:
        objects = self.owner.objects
        if self.command == "PUT" and self.owner.full:
            self._answer(403, b"<Error><Code>QuotaExceeded</Code></Error>")
        elif self.command == "PUT":
            objects[path] = body
            self._answer(201, b"", {"ETag": '"small"'})
        elif path not in objects:
            self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
        elif self.command == "DELETE":
            del objects[path]
            self._answer(202, b"")
        else:
            self._send(objects[path])

    def _send(self, data: bytes) -> None:
        headers = {"ETag": '"an-object"', "Last-Modified": formatdate(time.time(), usegmt=True)}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range") or self.headers.get("x-ms-range") or "")
        if wanted is None:
            self._answer(200, data, headers)
            return
        start, end = int(wanted[1]), min(int(wanted[2]) + 1, len(data))
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(data)}"
        self._answer(206, data[start:end], headers)

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
