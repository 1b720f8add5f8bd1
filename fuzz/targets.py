"""The targets, each with its share of the executions: what is fast and stands open to strangers gets more."""

SHARES = {
    "envelope_founding": 18,
    "envelope_sealed": 20,
    "http_head": 12,
    "json_rpc": 10,
    "parameters": 14,
    "nginx_templates": 6,
    "apache_templates": 5,
    "queryenv_xml": 11,
    "settings": 4,
}
