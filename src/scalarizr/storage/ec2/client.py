"""The EC2 API for one request: its credentials, its region, its patience; every failure in the agent's own errors.

The SDK is imported when the first call is made, in the worker, whose memory ends with it.
"""

import contextlib
import re
import urllib.parse
from typing import Any

from scalarizr.errors import InvalidParameter, NotConfigured, NotSupported, ScalarizrError
from scalarizr.platform_access import PlatformAccess
from scalarizr.rpc.types import shown
from scalarizr.secret import Secret
from scalarizr.storage.ec2.errors import translated

# The pauses of botocore's standard mode grow to 20 s: these are minutes, in which EC2's buckets refill many times.
_ATTEMPTS = 25
_CONNECT_TIMEOUT = 10
_READ_TIMEOUT = 60
_VISIBLE = re.compile(r"[\x21-\x7e]+", re.ASCII)
_HOST = re.compile(r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]", re.ASCII)
_PORT = re.compile(r"[0-9]{1,5}", re.ASCII)
_HTTP_PROXIES = {"", "0", "http"}
_WORDS = {
    "attach_volume": "attach the volume",
    "create_snapshot": "take the snapshot",
    "create_volume": "make the volume",
    "delete_snapshot": "delete the snapshot",
    "delete_volume": "delete the volume",
    "describe_instances": "describe the instance",
    "describe_snapshots": "describe the snapshot",
    "describe_volumes": "describe the volume",
    "describe_volumes_modifications": "describe the modification of the volume",
    "detach_volume": "detach the volume",
    "modify_volume": "modify the volume",
}


class Ec2:
    """Calls of EC2's API.

    :param region: where.
    :param endpoint_url: of the API; the region's own when None.
    :param access: the request's credentials; the SDK's own chain (environment, instance profile) where it has none.
    """

    def __init__(self, region: str, endpoint_url: str | None, access: PlatformAccess | None) -> None:
        self._region = region
        self._endpoint_url = endpoint_url
        self._access = access or PlatformAccess({})
        self._session: Any = None
        self._clients: dict[float | None, Any] = {}

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method, again where EC2 is overloaded or cannot be reached.

        :param method: as boto3 names it, such as `create_volume`.
        :raises ScalarizrError: with the fact `aws_code`, EC2's own code.
        """
        return self._call(None, method, parameters)

    def call_once(self, method: str, limit: float, **parameters: Any) -> dict[str, Any]:
        """Call a method a single time, with seconds for its answer: while a file system is frozen."""
        return self._call(limit, method, parameters)

    def close(self) -> None:
        """Let the connections go."""
        while self._clients:
            self._clients.popitem()[1].close()

    def _call(self, limit: float | None, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        failure: ScalarizrError
        try:
            client = self._client(limit)
            answer: dict[str, Any] = getattr(client, method)(**parameters)
            return answer
        except ScalarizrError:
            raise
        except Exception as error:
            from botocore.exceptions import BotoCoreError, ClientError

            if not isinstance(error, BotoCoreError | ClientError):
                raise
            failure = translated(error, _WORDS.get(method, method), self._secrets())
        # Outside the handler, or the SDK's error, with what it holds, would hang on as the context of this one.
        raise failure

    def _client(self, limit: float | None) -> Any:
        if limit not in self._clients:
            try:
                import boto3.session
                from botocore.config import Config
            except ImportError as error:
                raise NotSupported(
                    f"The SDK of AWS is not installed ({error}). Nothing was changed; install `scalarizr[ec2]`."
                ) from error
            if self._session is None:
                self._session = boto3.session.Session(**self._credentials())
            config = Config(
                retries={"mode": "standard", "total_max_attempts": _ATTEMPTS if limit is None else 1},
                connect_timeout=_CONNECT_TIMEOUT if limit is None else min(limit, _CONNECT_TIMEOUT),
                read_timeout=_READ_TIMEOUT if limit is None else limit,
                proxies=self._proxies(),
            )
            try:
                self._clients[limit] = self._session.client(
                    "ec2", region_name=self._region, endpoint_url=self._endpoint_url, config=config
                )
            except ValueError as error:
                raise NotConfigured(
                    f"EC2 cannot be asked at {self._endpoint_url or 'its own address'} in {self._region}: {error}. "
                    "Nothing was changed; look at `endpoint_url` and `region` in the section [ec2] of the settings."
                ) from None
        return self._clients[limit]

    def _credentials(self) -> dict[str, str]:
        names = (
            ("aws_access_key_id", "key_id"),
            ("aws_secret_access_key", "key"),
            ("aws_session_token", "session_token"),
        )
        found = {name: value for name, key in names if (value := _text(self._access.get(key), key)) is not None}
        for name, key in names:
            if name in found and not _VISIBLE.fullmatch(found[name]):
                raise InvalidParameter(f"_platform_access_data.{key}", None, "visible ASCII characters alone")
        if not found:
            return {}
        for name, key in names[:2]:
            if name not in found:
                raise InvalidParameter(
                    f"_platform_access_data.{key}", None, "the two of `key_id` and `key`, or neither"
                )
        return found

    def _proxies(self) -> dict[str, str] | None:
        proxy = self._access.get("proxy")
        if not isinstance(proxy, dict) or not proxy.get("host"):
            return None
        kind = _text(proxy.get("type"), "proxy.type") or ""
        if kind.lower() not in _HTTP_PROXIES:
            raise NotSupported(f"A proxy of the type {shown(kind)} is not known, only http. Nothing was changed.")
        host, port = _text(proxy["host"], "proxy.host"), _text(proxy.get("port"), "proxy.port")
        user, password = _text(proxy.get("user"), "proxy.user"), _text(proxy.get("pass"), "proxy.pass")
        for name, text, form in (("host", host, _HOST), ("port", port, _PORT)):
            if text is not None and not form.fullmatch(text):
                raise InvalidParameter(f"_platform_access_data.proxy.{name}", None, f"the {name} of an HTTP proxy")
        login = "" if user is None else f"{_quoted(user)}:{_quoted(password or '')}@"
        address = f"http://{login}{host}{':' + port if port else ''}"
        return {"http": address, "https": address}

    def _secrets(self) -> list[str]:
        texts = self._access.texts()
        if self._session is not None:
            # Those of the SDK's own chain; where they cannot be had, there are none to be seen.
            with contextlib.suppress(Exception):
                held = self._session.get_credentials().get_frozen_credentials()
                texts += [text for text in held if isinstance(text, str)]
        return [*texts, *(_quoted(text) for text in texts)]


def _text(value: Any, name: str) -> str | None:
    if isinstance(value, Secret):
        return value.reveal() or None
    if value is None or value is False:
        return None
    if isinstance(value, int):
        return str(value)
    raise InvalidParameter(f"_platform_access_data.{name}", None, "a string")


def _quoted(text: str) -> str:
    return urllib.parse.quote(text, safe="")
