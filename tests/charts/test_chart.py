"""The chart renders what Kubernetes takes, and refuses what it would not run."""

import json
import re
import tomllib
import unittest

import helm_python as helm
import kubernetes_validate
import yaml

import node
from chart import CHART, ROOT, SMALL, named, render
from write import OURS, secret_keys, written

KUBERNETES = ["1.30", "1.32", "1.34", "1.37"]
# Types that Kubernetes does not have by itself.
CUSTOM = {"ServiceMonitor", "PodMonitor", "PrometheusRule", "HTTPRoute"}
HASH = "sha256:" + "0" * 64
REDIS = {**SMALL, "redis": {"trial": {"enabled": True}}}
FULL = {
    "image": {"repository": "registry.example.com/roomcast", "digest": HASH},
    "imagePullSecrets": [{"name": "pull"}],
    "commonLabels": {"team": "realtime"},
    "contracts": {
        "embedded": ["chat"],
        "inline": {"parcels.toml": 'name = "parcels"\nnamespace = "/parcels"\n'},
        "configMaps": ["more-contracts"],
    },
    "config": {
        "server": {"path": "/ws/", "max_payload": "2MB", "trusted_proxies": ["10.0.0.0/8"], "max_connections": 1000000},
        "api": {"keys": [{"name": "shop", "contracts": ["parcels"]}]},
        "hooks": {"song-service": {"timeout": "2s", "breaker": {"failures": 3}}},
        "log": {"level": 'info,roomcast::auth=debug', "format": "human"},
    },
    "secrets": {
        "auth.keys.0.secret": {"value": "0123456789abcdef0123456789abcdef"},
        "api.keys.0.secret": {"value": "0123456789abcdef"},
        "redis.url": {"existingSecret": {"name": "redis", "key": "url"}},
        "hooks.song-service.url": {"value": "https://songs.example.com/"},
    },
    "service": {"type": "LoadBalancer", "sessionAffinity": "ClientIP", "annotations": {"a.example.com/b": "c"}},
    "api": {"service": {"annotations": {"a.example.com/b": "c"}}},
    "drain": {"endpoints": 20, "deadline": 60},
    "autoscaling": {"enabled": True, "connections": {"enabled": True}},
    "podDisruptionBudget": {"maxUnavailable": "20%"},
    "nodeSelector": {"kubernetes.io/arch": "amd64"},
    "tolerations": [{"key": "realtime", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "priorityClassName": "high",
    "podAnnotations": {"x": "y"},
    "podLabels": {"x": "y"},
    "extraEnv": [{"name": "RUST_BACKTRACE", "value": "1"}],
    "extraVolumes": [{"name": "ca", "secret": {"secretName": "ca"}}],
    "extraVolumeMounts": [{"name": "ca", "mountPath": "/etc/ca", "readOnly": True}],
    "serviceAccount": {"annotations": {"x": "y"}},
    "networkPolicy": {
        "enabled": True,
        "public": {"from": [{"namespaceSelector": {"matchLabels": {"name": "ingress"}}}]},
        "api": {"from": [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}]},
        "egress": {"enabled": True, "to": [{"ports": [{"port": 443, "protocol": "TCP"}]}]},
    },
    "ingress": {
        "enabled": True,
        "hosts": ["rt.example.com"],
        "annotations": {"nginx.ingress.kubernetes.io/proxy-body-size": "4m"},
        "tls": [{"secretName": "rt", "hosts": ["rt.example.com"]}],
    },
    "httpRoute": {"enabled": True, "parentRefs": [{"name": "gateway"}], "hostnames": ["rt.example.com"]},
    "metrics": {
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "rules": {"enabled": True, "labels": {"release": "prometheus"}},
        "dashboards": {"enabled": True},
    },
}
MATRIX = {
    "small": SMALL,
    "full": FULL,
    "trial": {**REDIS, "replicaCount": 3, "networkPolicy": {"enabled": True, "egress": {"enabled": True}}},
    "no stickiness": {
        **REDIS,
        "replicaCount": 3,
        "cluster": {"enabled": True},
        "secrets": {**SMALL.get("secrets", {}), "cluster.secret": {"value": "0123456789abcdef0123456789abcdef"}},
        "networkPolicy": {"enabled": True, "egress": {"enabled": True}},
    },
    "bare": {
        **SMALL,
        "serviceAccount": {"create": False},
        "podDisruptionBudget": {"enabled": False},
        "topologySpread": {"enabled": False},
        "drain": {"endpoints": 0},
        "service": {"type": "NodePort"},
        "listenAddress": "[::]",
        "metrics": {"podMonitor": {"enabled": True}},
        "fullnameOverride": "rt",
    },
    "no secrets": {"contracts": {"embedded": ["*"]}},
    "off": {**SMALL, "replicaCount": 0},
}
# Values that are refused, with a word from the error.
REFUSED = {
    "an unknown value": ({"replicas": 2}, "replicas"),
    "an unknown value inside": ({"image": {"name": "x"}}, "name"),
    "a wrong type": ({"replicaCount": "two"}, "replicaCount"),
    "a negative number": ({"replicaCount": -1}, "replicaCount"),
    "no contracts": ({"contracts": {"embedded": []}}, "no contracts"),
    "an inline contract that is no .toml": ({"contracts": {"inline": {"a.yaml": "x"}}}, "a.yaml"),
    "an unknown section": ({"config": {"sever": {}}}, "sever"),
    "an unknown setting": ({"config": {"server": {"pign_interval": "25s"}}}, "pign_interval"),
    "a setting of a wrong type": ({"config": {"server": {"queue": "many"}}}, "queue"),
    "a secret among the settings": ({"config": {"redis": {"password": "x"}}}, "password"),
    "an api key's secret among the settings": ({"config": {"api": {"keys": [{"name": "x", "secret": "y"}]}}}, "secret"),
    "a listener": ({"config": {"server": {"listen": "0.0.0.0:80"}}}, "listen"),
    "development mode": ({"config": {"node": {"dev": True}}}, "dev"),
    "a secret by a wrong key": ({"secrets": {"redis.passwort": {"value": "x"}}}, "redis.passwort"),
    "a secret without a value": ({"secrets": {"redis.password": {}}}, "redis.password"),
    "an empty secret": ({"secrets": {"redis.password": {"value": ""}}}, "redis.password"),
    "a secret from two places": (
        {"secrets": {"redis.password": {"value": "x", "existingSecret": {"name": "a", "key": "b"}}}},
        "redis.password",
    ),
    "several nodes without Redis": ({"replicaCount": 2}, "needs Redis"),
    "autoscaling without Redis": ({"autoscaling": {"enabled": True}}, "needs Redis"),
    "passing on without Redis": (
        {"cluster": {"enabled": True}, "secrets": {"cluster.secret": {"value": "0123456789abcdef0123456789abcdef"}}},
        "needs Redis",
    ),
    "passing on without a secret": (
        {"cluster": {"enabled": True}, "redis": {"trial": {"enabled": True}}},
        "cluster",
    ),
    "a listener for nodes": ({"config": {"cluster": {"listen": "0.0.0.0:1"}}}, "listen"),
    "two Redis": ({"redis": {"trial": {"enabled": True}}, "secrets": {"redis.url": {"value": "x"}}}, "choose one"),
    "least above most": (
        {"redis": {"trial": {"enabled": True}}, "autoscaling": {"enabled": True, "minReplicas": 20}},
        "minReplicas",
    ),
    "autoscaling on nothing": (
        {"redis": {"trial": {"enabled": True}}, "autoscaling": {"enabled": True, "cpu": {"enabled": False}}},
        "autoscaling needs",
    ),
    "an ingress for nobody": ({"ingress": {"enabled": True}}, "hosts"),
    "a route without gateway": ({"httpRoute": {"enabled": True}}, "parentRefs"),
    "two monitors": (
        {"metrics": {"serviceMonitor": {"enabled": True}, "podMonitor": {"enabled": True}}},
        "choose one",
    ),
    "a digest that is none": ({"image": {"digest": "sha256:1"}}, "digest"),
    "a deadline without time for clients": ({"drain": {"deadline": 5}}, "deadline"),
    "the node's own deadline": ({"config": {"drain": {"deadline": "5s"}}}, "deadline"),
    "a test of nowhere": ({"test": {"url": "rt.example.com"}}, "url"),
    "a test's argument that is none": ({"test": {"args": ["stickiness"]}}, "args"),
    "a port that is none": ({"service": {"port": 70000}}, "port"),
}


def node_schema():
    return json.loads(node.says("schema", "config"))


def spec(objects, name="roomcast"):
    return named(objects, "Deployment", name)["spec"]["template"]["spec"]


class Observes(unittest.TestCase):
    def test_the_prometheus_rule_is_the_plain_file_with_the_runbook_where_it_can_be_read(self):
        at = "https://wiki.example.com/runbook"
        values = {**SMALL, "metrics": {"rules": {"enabled": True, "runbook": at}}}
        plain = (CHART / "files" / "rules.yaml").read_text()
        rule = named(render(values), "PrometheusRule")
        self.assertEqual(rule["spec"], yaml.safe_load(plain.replace("docs/runbook.md#", at + "#")))

    def test_every_dashboard_is_in_a_config_map_as_it_is(self):
        values = {**SMALL, "metrics": {"dashboards": {"enabled": True}}}
        maps = [found for found in render(values) if found["kind"] == "ConfigMap" and "dashboard" in found["metadata"]["name"]]
        shown = {name: json.loads(text) for found in maps for name, text in found["data"].items()}
        files = sorted((CHART / "files" / "dashboards").glob("*.json"))
        self.assertEqual(shown, {path.name: json.loads(path.read_text()) for path in files})
        self.assertEqual(len(shown), 3)


class Renders(unittest.TestCase):
    def test_every_object_is_strictly_valid_in_every_version(self):
        for case, values in MATRIX.items():
            for found in render(values):
                for version in KUBERNETES:
                    if found["kind"] in CUSTOM:
                        continue
                    with self.subTest(case, kind=found["kind"], name=found["metadata"]["name"], version=version):
                        kubernetes_validate.validate(found, version, strict=True)

    def test_helm_lints_without_a_warning(self):
        for case, values in MATRIX.items():
            with self.subTest(case):
                said = helm.lint(str(CHART), values, strict=True)
                # The first level is advice, such as a missing icon.
                self.assertEqual([found for found in said["messages"] if found["severity"] > 1], [])

    def test_values_that_would_not_run_are_refused(self):
        for case, (values, word) in REFUSED.items():
            with self.subTest(case):
                with self.assertRaises(helm.HelmError) as refused:
                    render({**SMALL, **values})
                self.assertIn(word, str(refused.exception))

    def test_selectors_find_their_pods_and_no_other(self):
        for case, values in MATRIX.items():
            objects = render(values)
            pods = [found["spec"]["template"] for found in objects if found["kind"] in ("Deployment", "StatefulSet")]
            for service in (found for found in objects if found["kind"] == "Service"):
                chosen = [
                    pod for pod in pods if service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
                ]
                with self.subTest(case, service=service["metadata"]["name"]):
                    self.assertEqual(len(chosen), 1)
                    names = {port["name"] for port in chosen[0]["spec"]["containers"][0]["ports"]}
                    self.assertLessEqual({port["targetPort"] for port in service["spec"]["ports"]}, names)

    def test_the_pod_of_helm_test_may_come_in_and_is_no_node(self):
        for case, values in MATRIX.items():
            objects = render(values)
            labels = named(objects, "Pod", [o for o in objects if o["kind"] == "Pod"][0]["metadata"]["name"])["metadata"]["labels"]
            for policy in (o for o in objects if o["kind"] == "NetworkPolicy" and o["metadata"]["name"] == "roomcast"):
                for rule in policy["spec"]["ingress"]:
                    if [port["port"] for port in rule["ports"]] == ["cluster"]:
                        continue
                    peers = [peer["podSelector"].get("matchLabels", {}) for peer in rule.get("from", []) if "podSelector" in peer]
                    with self.subTest(case, ports=rule["ports"]):
                        self.assertTrue("from" not in rule or any(peer.items() <= labels.items() for peer in peers))
            for found in (o for o in objects if o["kind"] == "Service"):
                self.assertFalse(found["spec"]["selector"].items() <= labels.items())

    def test_only_nodes_reach_the_port_for_nodes(self):
        objects = render(MATRIX["no stickiness"])
        pod = named(objects, "Deployment")["spec"]["template"]
        labels, container = pod["metadata"]["labels"], pod["spec"]["containers"][0]
        self.assertIn({"name": "cluster", "containerPort": 3002, "protocol": "TCP"}, container["ports"])
        env = {entry["name"]: entry for entry in container["env"]}
        self.assertEqual(env["POD_IP"]["valueFrom"]["fieldRef"]["fieldPath"], "status.podIP")
        self.assertEqual(env["ROOMCAST_CLUSTER__ADVERTISE"]["value"], "$(POD_IP):3002")
        self.assertEqual(env["ROOMCAST_CLUSTER__SECRET_FILE"]["value"], "/run/secrets/roomcast/cluster.secret")
        # POD_IP must be defined before the variable that uses it.
        names = [entry["name"] for entry in container["env"]]
        self.assertLess(names.index("POD_IP"), names.index("ROOMCAST_CLUSTER__ADVERTISE"))
        policy = named(objects, "NetworkPolicy")["spec"]
        rules = {direction: [rule for rule in policy[direction] if rule["ports"][0]["port"] in ("cluster", 3002)] for direction in ("ingress", "egress")}
        for direction, peers in (("ingress", "from"), ("egress", "to")):
            [rule] = rules[direction]
            [peer] = rule[peers]
            self.assertLessEqual(peer["podSelector"]["matchLabels"].items(), labels.items())
            self.assertIn("app.kubernetes.io/component", peer["podSelector"]["matchLabels"])
        for service in (found for found in objects if found["kind"] == "Service"):
            self.assertNotIn("cluster", [port["targetPort"] for port in service["spec"]["ports"]])

    def test_helm_test_leaves_out_only_what_nothing_in_front_can_answer_for(self):
        def args(values):
            return [o for o in render(values) if o["kind"] == "Pod"][0]["spec"]["containers"][0]["args"]

        skipped = "--skip=stickiness,upgrade,patience.polling"
        trial = MATRIX["trial"]
        self.assertEqual(args(SMALL), ["doctor", "http://roomcast:80/socket.io/", "--api=http://roomcast-api:3001"])
        self.assertIn(skipped, args(trial))
        self.assertNotIn(skipped, args({**trial, "service": {"sessionAffinity": "ClientIP"}}))
        outside = args({**trial, "test": {"url": "https://rt.example.com", "args": ["--origin=https://app.example.com"]}})
        self.assertEqual(outside, ["doctor", "https://rt.example.com", "--api=http://roomcast-api:3001", "--origin=https://app.example.com"])

    def test_every_mounted_volume_exists(self):
        for case, values in MATRIX.items():
            for pod in (found["spec"]["template"]["spec"] for found in render(values) if found["kind"] == "Deployment"):
                mounts = {mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
                with self.subTest(case):
                    self.assertEqual(mounts, {volume["name"] for volume in pod["volumes"]})

    def test_pods_have_no_rights(self):
        for case, values in MATRIX.items():
            for found in render(values):
                if found["kind"] not in ("Deployment", "StatefulSet", "Pod"):
                    continue
                pod = found["spec"] if found["kind"] == "Pod" else found["spec"]["template"]["spec"]
                with self.subTest(case, kind=found["kind"]):
                    self.assertFalse(pod["enableServiceLinks"])
                    self.assertFalse(pod["automountServiceAccountToken"])
                    self.assertTrue(pod["securityContext"]["runAsNonRoot"])
                    self.assertEqual(pod["securityContext"]["seccompProfile"], {"type": "RuntimeDefault"})
                    for container in pod["containers"]:
                        rights = container["securityContext"]
                        self.assertFalse(rights["allowPrivilegeEscalation"])
                        self.assertTrue(rights["readOnlyRootFilesystem"])
                        self.assertEqual(rights["capabilities"], {"drop": ["ALL"]})
                        self.assertIn("memory", container["resources"]["limits"])

    def test_secrets_are_in_secrets_only(self):
        for found in render(FULL):
            if found["kind"] != "Secret":
                self.assertNotIn("0123456789abcdef", yaml.safe_dump(found))

    def test_a_change_of_the_settings_rolls_the_pods(self):
        def notes(values):
            return named(render(values), "Deployment")["spec"]["template"]["metadata"]["annotations"]

        inline = {**SMALL, "contracts": {"inline": {"a.toml": "name = 'a'"}}}
        secret = {**SMALL, "secrets": {"auth.keys.0.secret": {"value": "0123456789abcdef"}}}
        seen = [notes(values) for values in (SMALL, {**SMALL, "config": {"log": {"level": "debug"}}}, inline, secret)]
        for at, one in enumerate(seen):
            for other in seen[at + 1 :]:
                self.assertNotEqual(one, other)

    def test_the_grace_period_covers_the_way_out(self):
        pod = spec(render(FULL))
        self.assertEqual(pod["terminationGracePeriodSeconds"], 85)
        self.assertEqual(pod["containers"][0]["lifecycle"]["preStop"], {"sleep": {"seconds": 20}})
        [hpa] = [o for o in render({**FULL, "autoscaling": {**FULL["autoscaling"], "scaleDown": {"periodSeconds": 1}}}) if o["kind"] == "HorizontalPodAutoscaler"]
        self.assertEqual(hpa["spec"]["behavior"]["scaleDown"]["policies"][0]["periodSeconds"], 85)
        [hpa] = [o for o in render({**FULL, "drain": {"deadline": 7200}}) if o["kind"] == "HorizontalPodAutoscaler"]
        self.assertEqual(hpa["spec"]["behavior"]["scaleDown"]["policies"][0]["periodSeconds"], 1800)
        text = named(render(FULL), "ConfigMap")["data"]["roomcast.toml"]
        self.assertEqual(tomllib.loads(text)["drain"], {"delay": "0s", "deadline": "60s"})

    def test_systemd_waits_longer_than_the_node_takes(self):
        unit = (ROOT / "packaging/roomcast.service").read_text()
        [patience] = re.findall(r"^TimeoutStopSec=(\d+)s$", unit, re.MULTILINE)
        deadline = tomllib.loads(node.says("config"))["drain"]["deadline"]
        self.assertGreater(int(patience), int(deadline.removesuffix("s")))


class Mirrors(unittest.TestCase):
    """What the chart repeats of the node is what the node says."""

    def setUp(self):
        self.node = tomllib.loads(node.says("config"))

    def test_ports_and_path_are_the_nodes_defaults(self):
        ports = {port["name"]: port["containerPort"] for port in spec(render(SMALL))["containers"][0]["ports"]}
        listeners = {"public": self.node["server"]["listen"], "api": self.node["api"]["listen"]}
        self.assertEqual(ports, {name: int(address.rsplit(":")[-1]) for name, address in listeners.items()})
        route = {**SMALL, "httpRoute": {"enabled": True, "parentRefs": [{"name": "g"}]}}
        path = named(render(route), "HTTPRoute")["spec"]["rules"][0]["matches"][0]["path"]["value"]
        self.assertEqual(path, self.node["server"]["path"])

    def test_the_ingress_is_more_patient_than_the_node(self):
        notes = named(render({**SMALL, "ingress": {"enabled": True, "hosts": ["h"]}}), "Ingress")["metadata"]["annotations"]
        seconds = sum(int(self.node["server"][key].removesuffix("s")) for key in ("ping_interval", "ping_timeout"))
        self.assertGreater(int(notes["nginx.ingress.kubernetes.io/proxy-read-timeout"]), seconds)
        self.assertEqual(self.node["server"]["max_payload"], "1MB")
        self.assertEqual(notes["nginx.ingress.kubernetes.io/proxy-body-size"], "2m")

    def test_the_version_is_the_programs(self):
        version = node.says("--version").split()[1]
        self.assertEqual(helm.Chart.load(str(CHART)).metadata["appVersion"], version)

    def test_every_secret_of_the_node_has_a_key(self):
        found = set()

        def walk(shape, path):
            shape = definitions[shape["$ref"].rsplit("/")[-1]] if "$ref" in shape else shape
            for inner in shape.get("anyOf", []):
                walk(inner, path)
            if "items" in shape:
                walk(shape["items"], path + ["0"])
            if isinstance(shape.get("additionalProperties"), dict):
                walk(shape["additionalProperties"], path + ["songs"])
            for key, inner in shape.get("properties", {}).items():
                if inner.get("format") in ("secret", "url", "pem"):
                    found.add(".".join(path + [key]))
                walk(inner, path + [key])

        schema = node_schema()
        definitions = schema["$defs"]
        walk(schema, [])
        pattern = re.compile("|".join(secret_keys(schema)))
        self.assertEqual({key for key in found if not pattern.fullmatch(key)}, set())
        self.assertGreater(len(found), 8)
        self.assertLessEqual(set(OURS), set(definitions))

    def test_generated_files_are_current(self):
        for path, made in written(node_schema()):
            with self.subTest(str(path.relative_to(ROOT))):
                self.assertEqual(path.read_text(), made(), "run scripts/charts --write")


if __name__ == "__main__":
    unittest.main()
