"""How distributions arrange Apache."""

import msgspec


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """How a distribution arranges Apache.

    :param programs: where the program is.
    :param controls: where its control script is.
    :param config_dir: its configuration.
    :param main: the main file below that.
    :param default_tls_sites: files below that which may hold the default virtual host for TLS.
    :param own_certificate: certificate and key that the distribution made.
    :param pid_file: where its pid file is, should its configuration not say so.
    :param service: the name of its unit and init script.
    """

    programs: tuple[str, ...]
    controls: tuple[str, ...]
    config_dir: str
    main: str
    default_tls_sites: tuple[str, ...]
    own_certificate: tuple[str, str]
    pid_file: str
    service: str


DEBIAN = Layout(
    programs=("/usr/sbin/apache2",),
    controls=("/usr/sbin/apache2ctl", "/usr/sbin/apachectl"),
    config_dir="/etc/apache2",
    main="apache2.conf",
    default_tls_sites=("sites-available/default-ssl.conf", "sites-available/default-ssl"),
    own_certificate=("/etc/ssl/certs/ssl-cert-snakeoil.pem", "/etc/ssl/private/ssl-cert-snakeoil.key"),
    pid_file="/var/run/apache2/apache2.pid",
    service="apache2",
)
RED_HAT = Layout(
    programs=("/usr/sbin/httpd", "/usr/local/apache2/bin/httpd"),
    controls=("/usr/sbin/apachectl", "/usr/local/apache2/bin/apachectl"),
    config_dir="/etc/httpd",
    main="conf/httpd.conf",
    default_tls_sites=("conf.d/ssl.conf",),
    own_certificate=("/etc/pki/tls/certs/localhost.crt", "/etc/pki/tls/private/localhost.key"),
    pid_file="/run/httpd/httpd.pid",
    service="httpd",
)
LAYOUTS = (DEBIAN, RED_HAT)
