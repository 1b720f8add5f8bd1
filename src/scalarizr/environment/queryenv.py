"""The environment from the control plane: QueryEnv, signed form requests, answers in XML (API.md).

The answers are not signed, so https is the rule. Nothing is remembered between two questions.
"""

import re
import time
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from scalarizr.envelope.date import date_text
from scalarizr.envelope.key import ServerKey, WeakKey
from scalarizr.environment.source import Certificate, Metric, Role, Server, VirtualHost
from scalarizr.errors import NotConfigured, NotFound, OutsideFailure, PermissionRefused, TimedOut
from scalarizr.secret import Secret
from scalarizr.settings.model import Environment

API_VERSION = "2012-04-17"
_PATIENCE = 15.0
_LARGEST = 4 << 20
_VIRTUAL_HOST = re.compile(r"^[ \t]*<VirtualHost[ \t]+\S*?:([0-9]{1,5})[ \t]*>", re.IGNORECASE | re.MULTILINE)
_NUMBER = re.compile(r"[0-9]{1,18}", re.ASCII)


class QueryEnv:
    """The QueryEnv source.

    :param settings: the `[environment]` section.
    :param key_file: the server's key, which signs the requests.
    :param patience: seconds for a whole answer.
    :raises NotConfigured: `url` or `server_id` is missing, or the URL is http without `insecure`.
    """

    def __init__(self, settings: Environment, key_file: Path | None, patience: float = _PATIENCE) -> None:
        if not settings.url:
            raise NotConfigured("The setting [environment] url is missing.", {"setting": "environment.url"})
        if not settings.server_id:
            raise NotConfigured("The setting [environment] server_id is missing.", {"setting": "environment.server_id"})
        parts = urlsplit(settings.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise NotConfigured(
                "The setting [environment] url is no http or https URL.", {"setting": "environment.url"}
            )
        if parts.scheme == "http" and not settings.insecure:
            raise NotConfigured(
                "The setting [environment] url is http, where answers can be forged on the way: use https, or say "
                "insecure = true.",
                {"setting": "environment.insecure"},
            )
        self._parts = parts
        self._server_id = settings.server_id
        self._key_file = key_file
        self._patience = patience

    def roles(self) -> list[Role]:
        return self._roles({})

    def role(self, farm_role_id: str) -> Role:
        for role in self._roles({"farm-role-id": str(farm_role_id)}):
            if role.id == str(farm_role_id):
                return role
        raise NotFound(
            f"The control plane knows no role {str(farm_role_id)[:60]}.",
            {"farm_role_id": str(farm_role_id)[:60]},
        )

    def certificate(self, certificate_id: str | None) -> Certificate:
        answer = self._ask("get-https-certificate", {} if certificate_id is None else {"id": str(certificate_id)})
        found = answer.find("virtualhost")
        texts = (
            {name: (found.findtext(name) or "").strip() for name in ("cert", "pkey", "ca_cert")}
            if found is not None
            else {}
        )
        if not texts.get("cert") or not texts.get("pkey"):
            raise NotFound(
                f"The control plane has no certificate {'by default' if certificate_id is None else certificate_id}.",
                {"ssl_certificate_id": certificate_id},
            )
        return Certificate(
            id=certificate_id,
            certificate=texts["cert"],
            key=Secret(texts["pkey"]),
            chain=texts["ca_cert"] or None,
        )

    def virtual_hosts(self) -> list[VirtualHost]:
        hosts = []
        for element in self._ask("list-virtualhosts", {}).iterfind("vhosts/vhost"):
            raw = element.findtext("raw") or ""
            ssl = element.get("https", "0").lower() in ("1", "true")
            match = _VIRTUAL_HOST.search(raw)
            hosts.append(
                VirtualHost(
                    hostname=element.get("hostname", ""),
                    port=int(match[1]) if match else 443 if ssl else 80,
                    ssl=ssl,
                    template=raw,
                    ssl_certificate_id=element.get("ssl-certificate-id"),
                )
            )
        return hosts

    def metrics(self) -> list[Metric]:
        metrics = []
        for element in self._ask("get-scaling-metrics", {}).iterfind("metrics/metric"):
            texts = {name: (element.findtext(name) or "").strip() for name in ("name", "path", "retrieve-method")}
            identity = (element.findtext("id") or element.get("id") or "").strip()
            method = texts["retrieve-method"]
            if not _NUMBER.fullmatch(identity) or method not in ("execute", "read"):
                raise OutsideFailure("The control plane's answer to get-scaling-metrics is of an unknown form.")
            metrics.append(
                Metric(
                    id=int(identity),
                    name=texts["name"],
                    path=texts["path"],
                    retrieve_method="execute" if method == "execute" else "read",
                )
            )
        return metrics

    def farm_role_params(self, farm_role_id: str) -> dict[str, Any]:
        answer = self._ask("list-farm-role-params", {"farm-role-id": str(farm_role_id)})
        try:
            tree = _tree(answer)
        except RecursionError:
            raise OutsideFailure("The control plane's answer to list-farm-role-params is nested too deeply.") from None
        return tree if isinstance(tree, dict) else {}

    def _roles(self, fields: dict[str, str]) -> list[Role]:
        roles: dict[str, list[Any]] = {}
        for element in self._ask("list-roles", fields).iterfind("roles/role"):
            roles.setdefault(element.get("id", ""), []).append(element)
        return [_role(identity, elements) for identity, elements in roles.items()]

    def _ask(self, command: str, fields: dict[str, str]) -> Any:
        """Ask one question.

        :return: the root element of the answer.
        """
        fields = {"operation": command, "version": API_VERSION, **fields}
        date = date_text(int(time.time()))
        headers = {
            "Date": date,
            "X-Server-Id": self._server_id,
            "X-Signature": self._signature(fields, date),
            "Content-Type": "application/x-www-form-urlencoded",
            "Connection": "close",
        }
        path = f"{self._parts.path.rstrip('/')}/{API_VERSION}/{command}"
        return _xml(command, self._exchange(command, path, urlencode(fields), headers))

    def _signature(self, fields: dict[str, str], date: str) -> str:
        import binascii
        import hmac

        text = "".join(key + fields[key] for key in sorted(fields)) + date
        try:
            key = ServerKey.from_file(self._key_file or Path())
        except (OSError, WeakKey) as error:
            raise NotConfigured(f"{self._key_file}: the server's key cannot be used: {error}.") from None
        return binascii.b2a_base64(hmac.digest(key.raw, text.encode(), "sha1"), newline=False).decode()

    def _exchange(self, command: str, path: str, body: str, headers: dict[str, str]) -> bytes:
        import http.client
        import ssl

        deadline = time.monotonic() + self._patience
        host, port = self._parts.hostname or "", self._parts.port
        if self._parts.scheme == "https":
            context = ssl.create_default_context()
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                host, port, timeout=self._patience, context=context
            )
        else:
            connection = http.client.HTTPConnection(host, port, timeout=self._patience)
        where = f"The control plane at {host}"
        try:
            connection.request("POST", path, body, headers)
            with connection.getresponse() as answer:
                status = answer.status
                content = _bounded(answer, connection, deadline)
        except TimeoutError:
            raise TimedOut(f"{where} did not answer {command} within {self._patience:g} s.") from None
        except ssl.SSLError as error:
            raise OutsideFailure(f"{where} is not trusted: {error.reason or error}.") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            words = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise OutsideFailure(f"{where} cannot be asked: {words}.") from None
        finally:
            connection.close()
        if status in (401, 403):
            raise PermissionRefused(f"{where} refused {command} with status {status}{_words(content)}")
        if status != 200:
            raise OutsideFailure(f"{where} answered {command} with status {status}{_words(content)}")
        return content


def _bounded(answer: Any, connection: Any, deadline: float) -> bytes:
    """Read an answer within its limits in size and time, however it drips."""
    parts = []
    size = 0
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        if connection.sock is not None:
            connection.sock.settimeout(left)
        part = answer.read1(65536)
        if not part:
            break
        size += len(part)
        if size > _LARGEST:
            raise ValueError("the answer is larger than 4 MiB")
        parts.append(part)
    if answer.length:
        raise ValueError("the answer was cut off")
    return b"".join(parts)


def _words(content: bytes) -> str:
    text = " ".join(re.sub(r"<[^>]*>", " ", content[:2000].decode("utf-8", "replace")).split())[:200]
    return f": {text}" if text else "."


def _xml(command: str, content: bytes) -> Any:
    from xml.etree.ElementTree import ParseError

    import defusedxml
    from defusedxml.ElementTree import fromstring

    try:
        return fromstring(content, forbid_dtd=True)
    except (ParseError, defusedxml.DefusedXmlException, ValueError, LookupError, RecursionError) as error:
        raise OutsideFailure(
            f"The control plane's answer to {command} is not the XML that it should be: {type(error).__name__}."
        ) from None


def _role(identity: str, elements: list[Any]) -> Role:
    servers = []
    for element in elements:
        for host in element.iterfind("hosts/host"):
            index = host.get("index", "")
            servers.append(
                Server(
                    private=host.get("internal-ip") or None,
                    public=host.get("external-ip") or None,
                    cloud_location=host.get("cloud-location") or None,
                    index=int(index) if _NUMBER.fullmatch(index) else None,
                    replication_master=host.get("replication-master", "0") in ("1", "true"),
                    status=host.get("status", ""),
                )
            )
    behaviours = tuple(word.strip() for word in elements[0].get("behaviour", "").split(",") if word.strip())
    return Role(id=identity, name=elements[0].get("name", ""), behaviours=behaviours, servers=tuple(servers))


def _tree(element: Any) -> Any:
    """Read nested elements: leaves are texts, repeated tags and `item` make lists, all else objects."""
    children = list(element)
    if not children:
        return (element.text or "").strip()
    tags = Counter(child.tag for child in children)
    if set(tags) == {"item"}:
        return [_tree(child) for child in children]
    tree: dict[str, Any] = {}
    for child in children:
        value = _tree(child)
        if tags[child.tag] > 1:
            tree.setdefault(child.tag, []).append(value)
        else:
            tree[child.tag] = value
    return tree
