"""From an HTTP request to its answer: the path, the envelope, the call (WIRE.md, "HTTP")."""

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor

from scalarizr.envelope.envelopes import Envelopes, OpenedMessage, RefusedMessage
from scalarizr.rpc.call import Caller
from scalarizr.rpc.dispatch import Dispatcher, QueueFull
from scalarizr.server.keys_in_force import KeysInForce
from scalarizr.server.message import Answer, Request, plain_answer

# Above this a message's cryptography takes longer than a switch to another thread does.
_ASIDE = 32 * 1024


class Endpoint:
    """Answers requests.

    :param envelopes: opens and seals.
    :param keys: what each key may call.
    :param dispatcher: makes the calls.
    :param executor: where the cryptography of large messages runs.
    :param log: the agent's log.
    :param on_refusal: hears of a message that was refused: its sender's address, and why.
    """

    def __init__(
        self,
        envelopes: Envelopes,
        keys: KeysInForce,
        dispatcher: Dispatcher,
        executor: Executor,
        log: logging.Logger,
        on_refusal: Callable[[str, RefusedMessage], None],
    ) -> None:
        self._envelopes = envelopes
        self._keys = keys
        self._dispatcher = dispatcher
        self._executor = executor
        self._log = log
        self._on_refusal = on_refusal
        self.stopping = False

    def handle(self, request: Request) -> Answer | Awaitable[Answer]:
        """Answer a request: at once where nothing has to be waited for."""
        try:
            path = _path_of(request.target)
            if request.method != "POST":
                return self._without_envelope(request.method, path)
            namespace = path.strip("/")
            if "/" in namespace:
                return plain_answer(404, "Not found")
            if self.stopping:
                return plain_answer(503, "Stopping", ("Retry-After", "5"))
            if self._dispatcher.full:
                return plain_answer(503, "Busy", ("Retry-After", "1"))
            if len(request.body) > _ASIDE:
                return self._guarded(self._large(request, path, namespace))
            message = self._envelopes.open(request.body, request.headers, path, request.address)
            outcome = self._dispatcher.dispatch(message.text, namespace, self._caller(request, message))
            if isinstance(outcome, bytes) and len(outcome) <= _ASIDE:
                return self._sealed(message.seal, outcome)
            return self._guarded(self._later(message, outcome))
        except RefusedMessage as refusal:
            return self._refused(request, refusal)
        except QueueFull:
            return plain_answer(503, "Busy", ("Retry-After", "1"))
        except Exception:  # noqa: BLE001  the last line: whatever happens, this request gets an answer
            return self._failed()

    async def _guarded(self, answer: Awaitable[Answer]) -> Answer:
        try:
            return await answer
        except QueueFull:
            return plain_answer(503, "Busy", ("Retry-After", "1"))
        except Exception:  # noqa: BLE001  as above
            return self._failed()

    async def _large(self, request: Request, path: str, namespace: str) -> Answer:
        loop = asyncio.get_running_loop()
        try:
            message = await loop.run_in_executor(
                self._executor, self._envelopes.open, request.body, request.headers, path, request.address
            )
            caller = self._caller(request, message)
        except RefusedMessage as refusal:
            return self._refused(request, refusal)
        return await self._later(message, self._dispatcher.dispatch(message.text, namespace, caller))

    async def _later(self, message: OpenedMessage, outcome: bytes | Awaitable[bytes | None] | None) -> Answer:
        text = outcome if outcome is None or isinstance(outcome, bytes) else await outcome
        if text is None:
            return Answer(204, (), b"", authenticated=True)
        if len(text) <= _ASIDE:
            return self._sealed(message.seal, text)
        loop = asyncio.get_running_loop()
        sealed = await loop.run_in_executor(self._executor, message.seal, text)
        return Answer(200, sealed.headers, sealed.body, authenticated=True)

    def _caller(self, request: Request, message: OpenedMessage) -> Caller:
        # Looked up now: while a large message was opened aside, its key may have been revoked.
        rights = self._keys.rights.get(message.key)
        if rights is None:
            raise RefusedMessage(key=message.key, problem="the key was revoked meanwhile")
        return Caller(request.address, message.envelope, message.key, rights, request.certificate)

    def _sealed(self, seal: Callable[[bytes], tuple[bytes, tuple[tuple[str, str], ...]]], text: bytes) -> Answer:
        body, headers = seal(text)
        return Answer(200, headers, body, authenticated=True)

    def _without_envelope(self, method: str, path: str) -> Answer:
        if path == "/healthz":
            if method not in ("GET", "HEAD"):
                return plain_answer(405, "Method not allowed", ("Allow", "GET, HEAD"))
            return plain_answer(503, "stopping", ("Retry-After", "5")) if self.stopping else plain_answer(200, "ok")
        if path.strip("/") in ("", *self._dispatcher.namespaces):
            return plain_answer(405, "Method not allowed", ("Allow", "POST"))
        return plain_answer(404, "Not found")

    def _refused(self, request: Request, refusal: RefusedMessage) -> Answer:
        self._log.warning(
            "refused from=%s key=%s verified=%s reason=%s%s",
            request.address,
            refusal.key,
            refusal.verified,
            refusal,
            f" ({refusal.problem})" if refusal.problem else "",
        )
        self._on_refusal(request.address, refusal)
        return plain_answer(400, str(refusal))

    def _failed(self) -> Answer:
        reference = uuid.uuid4().hex[:12]
        self._log.exception("internal error reference=%s", reference)
        return plain_answer(500, f"Internal error; the log explains it under {reference}")


def _path_of(target: str) -> str:
    """Give the path of a request target, which may be in absolute form (RFC 9112, section 3.2)."""
    if target.startswith(("http://", "https://")):
        _, slash, rest = target.partition("//")[2].partition("/")
        target = slash + rest or "/"
    return target.partition("?")[0]
