"""Calls an agent over and over, and tells of each call that was refused or cut off.

`python unbroken_calls.py PORT KEY THREADS ENOUGH` calls until there is a file ENOUGH, and prints
`{"calls": number, "resent": number, "broken": [words]}`.
"""

import http.client
import json
import sys
import threading
import time
from pathlib import Path

from scalarizr.envelope import sealed
from scalarizr.envelope.key import ServerKey

_LIMIT = 300.0
_QUESTION = b'{"jsonrpc": "2.0", "method": "load_average", "params": {}, "id": 1}'


class Callers:
    """Threads that call until they are told to stop: half with a connection for each call, half with one that is kept.

    A call on a new connection is never tried again. On a kept one, which any server may close between two requests, the
    same bytes are sent once more: had the agent taken them before, it would refuse them now.
    """

    def __init__(self, port: int, key_file: Path, threads: int) -> None:
        self._port = port
        self._key = ServerKey.from_file(key_file)
        self._enough = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=[number]) for number in range(threads)]
        self._answered = [0] * threads
        self.resent: list[str] = []
        self.broken: list[str] = []

    @property
    def calls(self) -> int:
        """How many were answered until now."""
        return sum(self._answered)

    def __enter__(self) -> "Callers":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._enough.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=_LIMIT)
        while not self._enough.is_set():
            try:
                self._call(connection)
                self._answered[number] += 1
            except Exception as failure:
                self.broken.append(repr(failure))
                connection.close()
                time.sleep(0.1)
            if number % 2:
                connection.close()
        connection.close()

    def _call(self, connection: http.client.HTTPConnection) -> None:
        header = {"aud": "/system", "iat": int(time.time()), "jti": sealed.new_id()}
        body = sealed.seal(self._key, _QUESTION, header)
        kept = connection.sock is not None
        try:
            answer = _ask(connection, body)
        except ConnectionError as failure:
            if not kept:
                raise
            self.resent.append(repr(failure))
            connection.close()
            answer = _ask(connection, body)
        assert answer[0] == 200, answer
        sealed.open_token(self._key, answer[1])


def _ask(connection: http.client.HTTPConnection, body: bytes) -> tuple[int, bytes]:
    connection.request("POST", "/system", body, {"Content-Type": "application/jose"})
    answer = connection.getresponse()
    return answer.status, answer.read()


def main() -> None:
    port, key_file, threads, enough = sys.argv[1:5]
    with Callers(int(port), Path(key_file), int(threads)) as callers:
        print("calling", flush=True)
        while not Path(enough).exists():
            time.sleep(0.05)
    print(json.dumps({"calls": callers.calls, "resent": len(callers.resent), "broken": callers.broken}))


if __name__ == "__main__":
    main()
