"""Writes what is made of something else: values.schema.json, the chart's README and the base of k8s/.

`scripts/charts --write` runs it; the tests compare. The schema of `config` is the node's own."""

import json
import re
import sys

import yaml

from chart import CHART, ROOT, SMALL, named, plain, render, values_of

TEXT, FLAG, NUMBER = {"type": "string"}, {"type": "boolean"}, {"type": "integer", "minimum": 0}
TEXTS = {"type": "array", "items": {"type": "string", "minLength": 1}, "uniqueItems": True}
MAP, LIST = {"type": "object"}, {"type": "array", "items": {"type": "object"}}
STRING_MAP = {"type": "object", "additionalProperties": TEXT}
PORT = {"type": "integer", "minimum": 1, "maximum": 65535}
POSITIVE = {"type": "integer", "minimum": 1}
PERIOD = {"type": "string", "pattern": r"^[0-9]+(ms|s|m|h)$"}
NAME = {"type": "string", "pattern": r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"}
SECRET = {
    "oneOf": [
        {
            "type": "object",
            "additionalProperties": False,
            "required": ["value"],
            "properties": {"value": {"type": "string", "minLength": 1}},
        },
        {
            "type": "object",
            "additionalProperties": False,
            "required": ["existingSecret"],
            "properties": {
                "existingSecret": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["name", "key"],
                    "properties": {"name": NAME, "key": {"type": "string", "minLength": 1}},
                }
            },
        },
    ]
}
# Values whose default gives too little information about their type.
PRECISE = {
    "replicaCount": NUMBER,
    "image.repository": {"type": "string", "minLength": 1},
    "image.digest": {"type": "string", "pattern": "^(sha256:[0-9a-f]{64})?$"},
    "image.pullPolicy": {"enum": ["Always", "IfNotPresent", "Never"]},
    "imagePullSecrets": LIST,
    "commonLabels": STRING_MAP,
    "contracts.embedded": TEXTS,
    "contracts.inline": {
        "type": "object",
        "additionalProperties": False,
        "patternProperties": {r"^[A-Za-z0-9][-A-Za-z0-9_.]*\.toml$": {"type": "string", "minLength": 1}},
    },
    "contracts.configMaps": {**TEXTS, "items": NAME},
    "config": {"$ref": "#/$defs/Config"},
    "listenAddress": {"enum": ["0.0.0.0", "[::]"]},
    "service.type": {"enum": ["ClusterIP", "NodePort", "LoadBalancer"]},
    "service.port": PORT,
    "service.annotations": STRING_MAP,
    "service.sessionAffinity": {"enum": ["None", "ClientIP"]},
    "api.service.port": PORT,
    "api.service.annotations": STRING_MAP,
    "drain.deadline": {"type": "integer", "minimum": 10},
    "resources": MAP,
    "autoscaling.minReplicas": POSITIVE,
    "autoscaling.maxReplicas": POSITIVE,
    "autoscaling.connections.target": {"type": "string", "pattern": "^[1-9][0-9]*(m|k)?$"},
    "autoscaling.cpu.target": {"type": "integer", "minimum": 1, "maximum": 100},
    "autoscaling.scaleDown.periodSeconds": {"type": "integer", "minimum": 1, "maximum": 1800},
    "autoscaling.scaleDown.stabilizationSeconds": {"type": "integer", "minimum": 0, "maximum": 3600},
    "podDisruptionBudget.maxUnavailable": {
        "oneOf": [POSITIVE, {"type": "string", "pattern": "^[1-9][0-9]?%$"}],
    },
    "nodeSelector": STRING_MAP,
    "tolerations": LIST,
    "affinity": MAP,
    "podAnnotations": STRING_MAP,
    "podLabels": STRING_MAP,
    "extraEnv": LIST,
    "extraVolumes": LIST,
    "extraVolumeMounts": LIST,
    "serviceAccount.annotations": STRING_MAP,
    "networkPolicy.public.from": LIST,
    "networkPolicy.api.from": LIST,
    "networkPolicy.egress.to": LIST,
    "ingress.hosts": TEXTS,
    "ingress.annotations": STRING_MAP,
    "ingress.tls": LIST,
    "httpRoute.parentRefs": LIST,
    "httpRoute.hostnames": TEXTS,
    "httpRoute.absoluteTimeout": PERIOD,
    "metrics.serviceMonitor.interval": PERIOD,
    "metrics.serviceMonitor.labels": STRING_MAP,
    "metrics.podMonitor.interval": PERIOD,
    "metrics.podMonitor.labels": STRING_MAP,
    "metrics.rules.labels": STRING_MAP,
    "metrics.dashboards.labels": STRING_MAP,
    "redis.trial.resources": MAP,
    "test.url": {"type": "string", "pattern": "^(https?://.+)?$"},
    "test.args": {"type": "array", "items": {"type": "string", "pattern": "^--[a-z-]+(=.*)?$"}},
}
# Values that are required when a part is enabled.
NEEDS = {"ingress": ("hosts", {"minItems": 1}), "httpRoute": ("parentRefs", {"minItems": 1})}
# Values that the chart itself sets.
OURS = {"Node": ["id", "dev"], "Server": ["listen"], "Api": ["listen"], "Contracts": ["files"], "Cluster": ["listen", "advertise"], "Drain": ["delay", "deadline"]}


def typed(value, path=""):
    """The schema of a default."""
    if path in PRECISE:
        return PRECISE[path]
    if isinstance(value, dict):
        shape = {
            "type": "object",
            "additionalProperties": False,
            "properties": {key: typed(inner, f"{path}.{key}".lstrip(".")) for key, inner in value.items()},
        }
        if path in NEEDS:
            key, least = NEEDS[path]
            shape["if"] = {"required": ["enabled"], "properties": {"enabled": {"const": True}}}
            shape["then"] = {"required": [key], "properties": {key: least}}
        return shape
    return FLAG if isinstance(value, bool) else NUMBER if isinstance(value, int) else TEXT


def secret_keys(schema):
    """Patterns of the keys that may stand in a file of their own."""
    return [
        r"cluster\.(secret|previous_secret)",
        r"redis\.(url|password)",
        r"redis\.sentinel\.password",
        r"api\.keys\.[0-9]+\.secret",
        r"auth\.keys\.[0-9]+\.(secret|public_key)",
        r"auth\.jwks\.url",
        r"hooks\.[a-z0-9]([-a-z0-9]*[a-z0-9])?\.(url|secret|previous_secret)",
    ]


def config_schema(node):
    """The node's schema, without secrets and without what the chart says."""
    text = json.dumps(node.pop("$defs"))
    defs = json.loads(text.replace("#/$defs/", "#/$defs/Config"))
    for name, shape in defs.items():
        properties = shape.get("properties", {})
        for key in OURS.get(name, []):
            del properties[key]
        for key in [key for key, inner in properties.items() if inner.get("format") == "secret"]:
            del properties[key]
        for inner in properties.values():
            inner.pop("default", None)
            inner.pop("format", None)
    sections = {key: {**inner} for key, inner in node["properties"].items()}
    for key, inner in sections.items():
        inner.pop("default", None)
        if "$ref" in inner:
            inner["$ref"] = inner["$ref"].replace("#/$defs/", "#/$defs/Config")
        if isinstance(inner.get("additionalProperties"), dict):
            inner["additionalProperties"] = {"$ref": "#/$defs/ConfigHook"}
    top = {"type": "object", "additionalProperties": False, "properties": sections}
    return {"Config": top, **{f"Config{name}": shape for name, shape in sorted(defs.items())}}


def values_schema(node):
    PRECISE["secrets"] = {
        "type": "object",
        "additionalProperties": False,
        "patternProperties": {f"^({'|'.join(secret_keys(node))})$": SECRET},
    }
    shape = typed(values_of(CHART / "values.yaml"))
    # Helm passes these to every chart.
    shape["properties"]["global"] = MAP
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Values of the chart roomcast"}
    return json.dumps({**head, **shape, "$defs": config_schema(node)}, indent=2, ensure_ascii=False) + "\n"


def rows(text):
    """Key, default and comment of every value, from the text of values.yaml."""
    path, comment, values = [], [], yaml.safe_load(text)
    for line in text.split("\n\n", 1)[1].splitlines():
        entry = re.match(r"^( *)([A-Za-z_]+):", line)
        if line.strip().startswith("#"):
            comment.append(line.strip().lstrip("# "))
        elif entry:
            depth = len(entry[1]) // 2
            path[depth:] = [entry[2]]
            value = values
            for key in path:
                value = value[key]
            whole = not isinstance(value, dict) or not value or path[-1] == "resources" or path == ["config"]
            if comment or not isinstance(value, dict):
                if "resources" in path[:-1]:
                    continue
                note = " ".join(comment)
                comment = []
                if whole:
                    yield ".".join(path), json.dumps(value), note
            elif whole:
                yield ".".join(path), json.dumps(value), ""
        elif not line.strip():
            comment = []


def readme():
    table = "\n".join(
        f"| `{key}` | `{default}` | {note.replace('|', chr(92) + '|')} |"
        for key, default, note in rows((CHART / "values.yaml").read_text())
    )
    return f"""# The chart roomcast

This page is generated from `values.yaml` by `scripts/charts --write`; [docs/kubernetes.md](../../docs/kubernetes.md) says how to use the chart.
Helm refuses values that this page does not list; the node's own schema checks the values below `config`.

| value | default | meaning |
| --- | --- | --- |
{table}
"""


def dumped(objects):
    texts = [yaml.safe_dump(found, sort_keys=False, width=120) for found in objects]
    return "---\n".join(texts)


def k8s():
    """The base's files: the smallest installation, without what only Helm needs."""
    objects = [plain(found) for found in render(SMALL, namespace="default")]
    files = {"roomcast.toml": named(objects, "ConfigMap")["data"]["roomcast.toml"]}
    for kind in ("Deployment", "Service", "ServiceAccount", "PodDisruptionBudget"):
        files[f"{kind.lower()}.yaml"] = dumped([found for found in objects if found["kind"] == kind])
    return {ROOT / "k8s" / "base" / name: text for name, text in files.items()}


def extras(overlay, kinds):
    """The objects that an overlay adds to the base."""
    values = values_of(ROOT / "k8s" / "overlays" / overlay / "values.yaml")
    base = {(found["kind"], found["metadata"]["name"]) for found in render(SMALL, namespace="default")}
    added = [plain(found) for found in render(values, namespace="default")]
    chosen = [found for found in added if (found["kind"], found["metadata"]["name"]) not in base and found["kind"] in kinds]
    return dumped(chosen)


def written(node):
    """Every file that is made of something else, with its text. The schema comes first: rendering reads it."""
    overlays = ROOT / "k8s" / "overlays"
    yield CHART / "values.schema.json", lambda: values_schema(node)
    yield CHART / "README.md", readme
    for path in k8s():
        yield path, lambda path=path: k8s()[path]
    yield overlays / "cluster" / "redis.yaml", lambda: extras("cluster", ["Service", "StatefulSet", "NetworkPolicy"])
    yield overlays / "production" / "scaling.yaml", lambda: extras("production", ["HorizontalPodAutoscaler"])
    yield overlays / "production" / "network.yaml", lambda: extras("production", ["NetworkPolicy"])
    for overlay in ("cluster", "production"):
        yield overlays / overlay / "roomcast.toml", lambda overlay=overlay: overlay_toml(overlay)


def overlay_toml(overlay):
    values = values_of(ROOT / "k8s" / "overlays" / overlay / "values.yaml")
    return named(render(values, namespace="default"), "ConfigMap")["data"]["roomcast.toml"]


if __name__ == "__main__":
    schema = json.load(sys.stdin)
    first = CHART / "values.schema.json"
    first.write_text(values_schema(json.loads(json.dumps(schema))))
    for path, made in written(schema):
        if path != first:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(made())
        print(path.relative_to(ROOT))
