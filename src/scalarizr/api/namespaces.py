"""The table of namespaces: adding one is a class and a line here. A class is imported when first asked for."""

NAMESPACES = {
    "apache": "scalarizr.api.apache:ApacheAPI",
    "nginx": "scalarizr.api.nginx:NginxAPI",
    "postgresql": "scalarizr.api.postgresql:PostgreSQLAPI",
    "mongodb": "scalarizr.api.mongodb:MongoDBAPI",
    "storage": "scalarizr.api.storage:StorageAPI",
    "system": "scalarizr.api.system:SystemAPI",
    "operation": "scalarizr.api.operation:OperationAPI",
    "change": "scalarizr.api.change:ChangeAPI",
    "rpc": "scalarizr.api.discovery:DiscoveryAPI",
}

ALIASES = {"app": "apache", "www": "nginx", "sysinfo": "system"}
