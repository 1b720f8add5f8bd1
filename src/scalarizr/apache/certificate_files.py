"""The files of a certificate as Apache wants them: the certificate, its key, and its chain beside them."""

import logging
import re
from pathlib import Path

from scalarizr.apache.template import CertificatePaths
from scalarizr.certificates import check_certificate
from scalarizr.changes.transaction import Transaction
from scalarizr.environment.source import EnvironmentSource
from scalarizr.errors import InvalidParameter, NotFound, OutsideFailure

_IDENTITY = re.compile(r"https_(?P<id>.+)\.crt")


def plan_certificate(
    transaction: Transaction,
    keys: Path,
    environment: EnvironmentSource,
    identity: str | None,
    parameter: str,
    log: logging.Logger,
) -> CertificatePaths:
    """Plan a certificate's files: fetched from the environment, or as they are on disk.

    :param keys: their directory.
    :param identity: the certificate's; None: the environment's default one.
    :param parameter: the caller's, for errors.
    :raises NotFound: there is none of it, neither in the environment nor on disk.
    :raises OutsideFailure: the environment does not answer, and there is none of it on disk.
    """
    stem = "https" if identity is None else f"https_{identity}"
    certificate, key, chain = (keys / f"{stem}{ending}" for ending in (".crt", ".key", "-ca.crt"))
    try:
        found = environment.certificate(identity)
    except InvalidParameter as failure:
        failure.facts["parameter"] = parameter
        raise
    except (NotFound, OutsideFailure) as failure:
        if transaction.exists(certificate) and transaction.exists(key):
            has_chain = transaction.exists(chain)
            return CertificatePaths(str(certificate), str(key), str(chain) if has_chain else None)
        failure.say_further(f"({parameter}.) Nothing was changed.")
        failure.facts["parameter"] = parameter
        raise
    checked = check_certificate(found, log)
    transaction.write(certificate, checked.certificate.encode(), mode=0o644)
    transaction.write(key, checked.key.reveal().encode(), mode=0o600, secret=True)
    if checked.chain is not None:
        transaction.write(chain, checked.chain.encode(), mode=0o644)
    elif transaction.exists(chain):
        transaction.delete(chain)
    return CertificatePaths(str(certificate), str(key), str(chain) if checked.chain else None)


def identity_in(path: str | None) -> str | None:
    """Give the id of the certificate that a file of these is of; None for the default one's, and for other files."""
    match = _IDENTITY.search(Path(path).name) if path else None
    return match["id"] if match else None
