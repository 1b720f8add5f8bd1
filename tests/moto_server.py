"""EC2 for tests: moto's server, and before it what the hypervisor does with volumes, done with loop devices.

The agent talks to `Hypervisor`, which hands every request to moto and makes a loop device of each volume that moto
calls attached, with the link that udev would make. It can also answer in moto's place, as EC2 is known to answer where
moto never does: that proves how such answers are handled, not that EC2 gives them.
"""

import contextlib
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

KEY_ID = "AKIAPLANTEDKEYID0001"
KEY = "planted/secret+key/0123456789abcdefghijk"
TOKEN = "planted-session-token-0123456789"
ACCESS = {"account_id": "123456789012", "key_id": KEY_ID, "key": KEY, "session_token": TOKEN}
REGION = "us-east-1"
ZONE = "us-east-1a"
GIGABYTE = 1 << 30

Answer = tuple[int, bytes]
Rule = Callable[[dict[str, str], Callable[[], Answer]], Answer]


def ebs_volume(**keys: Any) -> dict[str, Any]:
    """Give the dict of a volume that is to be made."""
    return {"type": "ebs", "size": 1, **keys}


class Hypervisor:
    """EC2's API and one instance of it, in a directory.

    :ivar url: where its API is.
    :ivar by_id: the directory of the links.
    :ivar instance_id: the instance that the agent is on.
    :ivar requests: every request that came, with its parameters.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.by_id = directory / "by-id"
        self.images = directory / "images"
        for made in (self.by_id, self.images):
            made.mkdir(parents=True)
        self.requests: list[dict[str, str]] = []
        self.devices: dict[str, str] = {}
        self.links = True
        self._rules: dict[str, list[Rule]] = {}
        self._lock = threading.Lock()
        self._log = open(directory / "moto.log", "wb")  # noqa: SIM115
        self._moto = subprocess.Popen(
            [sys.executable, "-u", "-c", "from moto.server import main; main()", "-p", "0"],
            stdout=self._log,
            stderr=self._log,
            stdin=subprocess.DEVNULL,
        )
        self._server = _serve(self)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        try:
            self._port = self._wait()
            self.api = self._client()
            self.instance_id = self._make_instance()
        except BaseException:
            self.close()
            raise

    @property
    def settings(self) -> str:
        """Of an agent on this instance."""
        return (
            f'[storage]\nby_id_dir = "{self.by_id}"\n'
            f'[ec2]\nendpoint_url = "{self.url}"\nregion = "{REGION}"\ninstance_id = "{self.instance_id}"\n'
            f'avail_zone = "{ZONE}"\n'
        )

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._moto.kill()
        self._moto.wait()
        self._log.close()
        for volume in list(self.devices):
            self._take_off(volume)

    def take_back(self) -> list[str]:
        """Forget every rule and delete what volumes are left; gives their ids."""
        self.as_it_is()
        left = []
        for volume in self.volumes():
            identity = volume["VolumeId"]
            left.append(identity)
            for attachment in volume["Attachments"]:
                self._take_off(identity)
                self.api.detach_volume(VolumeId=identity, InstanceId=attachment["InstanceId"])
            self.api.delete_volume(VolumeId=identity)
        return left

    # What a test says of EC2

    def answer(self, action: str, rule: Rule, times: int = 1) -> None:
        """Have the next requests of an action answered by a rule."""
        with self._lock:
            self._rules.setdefault(action, []).extend([rule] * times)

    def fail(self, action: str, code: str, message: str, status: int = 400, times: int = 1) -> None:
        """Have the next requests of an action answered with an error of EC2's."""
        self.answer(action, lambda _request, _pass_on: (status, error_text(code, message)), times)

    def as_it_is(self) -> None:
        """Forget every rule."""
        with self._lock:
            self._rules.clear()

    def volumes(self, **options: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.api.describe_volumes(**options)["Volumes"]
        root = {"/dev/sda1", "/dev/xvda"}
        return [one for one in found if not any(at["Device"] in root for at in one["Attachments"])]

    def volume(self, identity: str) -> dict[str, Any]:
        found: dict[str, Any] = self.api.describe_volumes(VolumeIds=[identity])["Volumes"][0]
        return found

    def snapshots(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.api.describe_snapshots(OwnerIds=["self"])["Snapshots"]
        return [one for one in found if not one["Description"].startswith("Auto-created")]

    def asked(self, action: str) -> int:
        return sum(request.get("Action") == action for request in self.requests)

    # Requests

    def handle(self, request: dict[str, str], pass_on: Callable[[], Answer]) -> Answer:
        action = request.get("Action", "")

        def really() -> Answer:
            before = self._before(action, request)
            status, text = pass_on()
            if status == 200:
                self._after(action, request, text.decode(), before)
            return status, text

        with self._lock:
            self.requests.append(request)
            rules = self._rules.get(action)
            rule = rules.pop(0) if rules else None
        return really() if rule is None else rule(request, really)

    def _before(self, action: str, request: dict[str, str]) -> Path | None:
        if action == "CreateSnapshot" and (image := self._image(request["VolumeId"])).exists():
            # While the request is under way the file system is frozen: what the image holds now is the snapshot.
            return _copied(image, self.images / f"copy-{time.monotonic_ns()}")
        return None

    def _after(self, action: str, request: dict[str, str], text: str, before: Path | None) -> None:
        if action == "CreateSnapshot" and before is not None:
            before.rename(self._image(_first("snapshotId", text)))
        elif action == "CreateVolume":
            image = self._image(_first("volumeId", text))
            source = self._image(request["SnapshotId"]) if "SnapshotId" in request else None
            if source is not None and source.exists():
                _copied(source, image)
            with open(image, "ab") as file:
                file.truncate(int(_first("size", text)) * GIGABYTE)
        elif action == "AttachVolume" and request["InstanceId"] == getattr(self, "instance_id", None):
            self._put_on(request["VolumeId"])
        elif action == "DetachVolume":
            self._take_off(request["VolumeId"])
        elif action == "ModifyVolume" and "Size" in request:
            os.truncate(self._image(request["VolumeId"]), int(request["Size"]) * GIGABYTE)
            if request["VolumeId"] in self.devices:
                subprocess.run(["losetup", "--set-capacity", self.devices[request["VolumeId"]]], check=True)
        elif action in ("DeleteVolume", "DeleteSnapshot"):
            self._image(request.get("VolumeId") or request["SnapshotId"]).unlink(missing_ok=True)

    def _put_on(self, volume: str) -> None:
        if not self.links or os.geteuid() != 0:
            return
        made = subprocess.run(
            ["losetup", "--find", "--show", str(self._image(volume))], check=True, capture_output=True, text=True
        )
        self.devices[volume] = made.stdout.strip()
        self._link(volume).symlink_to(self.devices[volume])

    def _take_off(self, volume: str) -> None:
        self._link(volume).unlink(missing_ok=True)
        device = self.devices.pop(volume, None)
        if device is not None:
            subprocess.run(["losetup", "--detach", device], check=True)

    def _link(self, volume: str) -> Path:
        return self.by_id / f"nvme-Amazon_Elastic_Block_Store_{volume.replace('-', '')}"

    def _image(self, identity: str) -> Path:
        return self.images / identity

    # moto

    def pass_on(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[Answer, str]:
        connection = HTTPConnection("127.0.0.1", self._port, timeout=30)
        try:
            connection.request(method, path, body=body, headers=headers)
            answer = connection.getresponse()
            return (answer.status, answer.read()), answer.headers.get("Content-Type", "text/xml")
        finally:
            connection.close()

    def _wait(self) -> int:
        """Wait until moto says on which port it is."""
        deadline = time.monotonic() + 90
        while True:
            said = (self.directory / "moto.log").read_text()
            if (running := re.search(r"Running on http://127\.0\.0\.1:([0-9]+)", said)) is not None:
                return int(running[1])
            assert self._moto.poll() is None and time.monotonic() < deadline, f"moto does not run: {said}"
            time.sleep(0.05)

    def _client(self) -> Any:
        """Make a client of moto itself, past all rules."""
        import boto3.session

        session = boto3.session.Session(aws_access_key_id=KEY_ID, aws_secret_access_key=KEY, region_name=REGION)
        return session.client("ec2", endpoint_url=f"http://127.0.0.1:{self._port}")

    def make_instance(self, zone: str = ZONE) -> str:
        image = self.api.describe_images()["Images"][0]["ImageId"]
        placement = {"AvailabilityZone": zone}
        made = self.api.run_instances(ImageId=image, MinCount=1, MaxCount=1, Placement=placement)
        return str(made["Instances"][0]["InstanceId"])

    _make_instance = make_instance


def error_text(code: str, message: str) -> bytes:
    """Give an error as EC2 sends it."""
    return (
        f"<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors>"
        "<RequestID>00000000-0000-0000-0000-000000000000</RequestID></Response>"
    ).encode()


@contextlib.contextmanager
def hypervisor_in(directory: Path) -> Iterator[Hypervisor]:
    made = Hypervisor(directory)
    try:
        yield made
    finally:
        made.close()


def _copied(source: Path, to: Path) -> Path:
    subprocess.run(["cp", "--sparse=always", "--reflink=auto", str(source), str(to)], check=True)
    return to


def _first(tag: str, text: str) -> str:
    matched = re.search(f"<{tag}>([^<]*)</{tag}>", text)
    assert matched is not None, text
    return matched[1]


def _serve(hypervisor: Hypervisor) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            request = {name: values[0] for name, values in parse_qs(body.decode("utf-8", "replace")).items()}
            if not request:
                request = {"Action": f"{self.command} {self.path}"}
            kind = "text/xml"

            def pass_on() -> Answer:
                nonlocal kind
                headers = {name: value for name, value in self.headers.items() if name.lower() != "connection"}
                answer, kind = hypervisor.pass_on(self.command, self.path, headers, body)
                return answer

            status, text = hypervisor.handle(request, pass_on)
            with contextlib.suppress(OSError):  # a worker that was killed does not wait for it
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

        def do_GET(self) -> None:
            self.do_POST()

        def do_PUT(self) -> None:
            self.do_POST()

        def log_message(self, *arguments: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False
        request_queue_size = 64

        def handle_error(self, request: Any, client_address: Any) -> None:
            if not isinstance(sys.exception() if hasattr(sys, "exception") else sys.exc_info()[1], OSError):
                super().handle_error(request, client_address)

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    return server
