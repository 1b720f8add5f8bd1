"""A program of its own: asks the TLS library that Apache uses what it makes of settings, certificates and keys.

`tls_library.py LIBRARY`, with JSON on standard input: a list of contexts, each a list of steps `[what, value]` in
Apache's order; `what` is `ciphers`, `ciphersuites`, `certificate`, `key` or the name of a command of SSL_CONF_cmd(3).
It prints JSON: of each context null, or the number of the step that the library refuses and its reason. It is nothing
that other modules import: an unknown library is loaded here, not in the agent.
"""

import ctypes
import json
import os
import sys
from typing import Any

_PEM = 1
# SSL_CONF_FLAG_FILE, _SERVER and _CERTIFICATE: those that Apache sets.
_FLAGS = 0x2 | 0x8 | 0x20
_POINTERS = ("TLS_server_method", "SSL_CTX_new", "SSL_CONF_CTX_new", "ERR_reason_error_string")


class Library:
    """OpenSSL's libssl, 1.1.0 or later.

    :param name: as the dynamic linker knows it, such as `libssl.so.3`.
    :raises OSError: there is none of that name.
    :raises AttributeError: it is an older one.
    """

    def __init__(self, name: str) -> None:
        self._functions = ctypes.CDLL(name)
        for pointer in _POINTERS:
            getattr(self._functions, pointer).restype = (
                ctypes.c_char_p if pointer.startswith("ERR") else ctypes.c_void_p
            )
        self._functions.ERR_get_error.restype = ctypes.c_ulong

    def first_refused(self, steps: "list[tuple[str, str]]") -> "tuple[int, str] | None":
        """Take the steps in a new context; gives the one that is refused, and why."""
        context = ctypes.c_void_p(self._functions.SSL_CTX_new(ctypes.c_void_p(self._functions.TLS_server_method())))
        try:
            for number, (what, value) in enumerate(steps):
                self._functions.ERR_clear_error()
                if not self._takes(context, what, value.encode()):
                    return number, self._reason()
            return None
        finally:
            self._functions.SSL_CTX_free(context)

    def _takes(self, context: ctypes.c_void_p, what: str, value: bytes) -> Any:
        if what == "ciphers":
            return self._functions.SSL_CTX_set_cipher_list(context, value) == 1
        if what == "ciphersuites":
            return self._functions.SSL_CTX_set_ciphersuites(context, value) == 1
        if what in ("certificate", "key"):
            # These functions read files alone; this one is in memory.
            descriptor = os.memfd_create("pem", os.MFD_CLOEXEC)
            try:
                os.write(descriptor, value)
                path = f"/proc/self/fd/{descriptor}".encode()
                if what == "certificate":
                    return self._functions.SSL_CTX_use_certificate_chain_file(context, path) == 1
                return self._functions.SSL_CTX_use_PrivateKey_file(context, path, _PEM) == 1
            finally:
                os.close(descriptor)
        commands = ctypes.c_void_p(self._functions.SSL_CONF_CTX_new())
        try:
            self._functions.SSL_CONF_CTX_set_flags(commands, _FLAGS)
            self._functions.SSL_CONF_CTX_set_ssl_ctx(commands, context)
            return self._functions.SSL_CONF_cmd(commands, what.encode(), value) > 0
        finally:
            self._functions.SSL_CONF_CTX_free(commands)

    def _reason(self) -> str:
        reason = self._functions.ERR_reason_error_string(ctypes.c_ulong(self._functions.ERR_get_error()))
        return reason.decode("utf-8", "replace") if reason else "it gives no reason"


def main() -> None:
    contexts: list[Any] = json.load(sys.stdin)
    library = Library(sys.argv[1])
    json.dump([library.first_refused(steps) for steps in contexts], sys.stdout)


if __name__ == "__main__":
    main()
