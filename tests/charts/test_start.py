"""A node starts with exactly what the rendered Deployment gives it: arguments, variables and mounted files."""

import base64
import json
import signal
import socket
import subprocess
import tempfile
import time
import tomllib
import unittest
import urllib.request
from pathlib import Path

import node
from chart import ROOT, named, render, values_of

PATIENCE = 20
HS256 = "0123456789abcdef0123456789abcdef"
CONTRACT = """name = "parcels"
namespace = "/parcels"
summary = "Where is my parcel"

[auth]
mode = "required"
"""
# What an installation finds in its namespace.
SECRETS = {"roomcast-secrets": {"auth-secret": HS256, "api-secret": "an api key of 16+"}}
MAPS = {"contracts": {"parcels.toml": CONTRACT}, "more-contracts": {"more.toml": CONTRACT.replace("parcels", "more")}}


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def mount(folder, files):
    """Files as the kubelet mounts them: links into a folder that is itself behind a link."""
    real = folder / "..2026_01_01"
    real.mkdir(parents=True)
    (folder / "..data").symlink_to(real.name)
    for name, text in files.items():
        (real / name).write_text(text)
        (folder / name).symlink_to(f"..data/{name}")


class World:
    """A folder that stands for the container's root. The paths of the manifests are moved below it."""

    def __init__(self, objects, secrets):
        self.folder = tempfile.TemporaryDirectory(prefix="roomcast-charts-")
        self.root = Path(self.folder.name)
        self.maps = dict(MAPS)
        self.secrets = dict(secrets)
        for found in objects:
            if found["kind"] == "ConfigMap":
                self.maps[found["metadata"]["name"]] = found["data"]
            if found["kind"] == "Secret":
                data = {key: base64.b64decode(value).decode() for key, value in found["data"].items()}
                self.secrets[found["metadata"]["name"]] = data
        self.pod = named(objects, "Deployment")["spec"]["template"]["spec"]
        self.container = self.pod["containers"][0]

    def files_of(self, name):
        [volume] = [volume for volume in self.pod["volumes"] if volume["name"] == name]
        if "configMap" in volume:
            return self.maps[volume["configMap"]["name"]]
        files = {}
        for source in volume["projected"]["sources"]:
            for item in source["secret"]["items"]:
                files[item["path"]] = self.secrets[source["secret"]["name"]][item["key"]]
        return files

    def below(self, path):
        return self.root / path.lstrip("/")

    def moved(self, text):
        """Paths below the root: with the listeners on loopback, all that is not as in the container."""
        for path in ("/etc/roomcast", "/run/secrets"):
            text = text.replace(path, str(self.below(path)))
        return text

    def mount(self, ports):
        for entry in self.container["volumeMounts"]:
            files = self.files_of(entry["name"])
            if "subPath" in entry:
                path = self.below(entry["mountPath"])
                path.parent.mkdir(parents=True, exist_ok=True)
                text = self.moved(files[entry["subPath"]])
                for port, free in ports.items():
                    assert text.count(f'"0.0.0.0:{port}"') == 1, "the node listens for the Service, not on loopback"
                    text = text.replace(f'"0.0.0.0:{port}"', f'"127.0.0.1:{free}"')
                path.write_text(text)
            else:
                mount(self.below(entry["mountPath"]), files)

    def start(self, ports):
        self.mount(ports)
        variables = {entry["name"]: self.moved(entry["value"]) for entry in self.container.get("env", [])}
        args = [self.moved(arg) for arg in self.container["args"]]
        env = {**node.clean(), **variables}
        with (self.root / "log").open("w") as log:
            return subprocess.Popen([node.BIN, *args], env=env, cwd=self.root, stdout=subprocess.DEVNULL, stderr=log)


def get(port, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=2) as answer:
        return answer.status, answer.read().decode()


def eventually(process, world, question):
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return question()
        except OSError:
            log = (world.root / "log").read_text()
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the node is not ready: {log}") from None
            time.sleep(0.05)


class Starts(unittest.TestCase):
    def run_node(self, values, secrets=SECRETS, helm_test=None):
        world = World(render(values), secrets)
        ports = {"3000": free_port(), "3001": free_port()}
        process = world.start(ports)
        try:
            named_ports = {port["name"]: ports[str(port["containerPort"])] for port in world.container["ports"]}
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                ask = world.container[probe]["httpGet"]
                status, body = eventually(process, world, lambda ask=ask: get(named_ports[ask["port"]], ask["path"]))
                self.assertEqual(status, 200)
            _, metrics = get(named_ports["api"], "/metrics")
            self.assertIn("roomcast_", metrics)
            if helm_test:
                helm_test(world, named_ports)
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            self.assertEqual(process.wait(PATIENCE + 10), 0)
            self.assertLess(time.monotonic() - began, world.pod["terminationGracePeriodSeconds"])
            return json.loads(body), (world.root / "log").read_text()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            world.folder.cleanup()

    def test_single(self):
        ready, log = self.run_node(values_of(ROOT / "k8s/overlays/single/values.yaml"))
        self.assertEqual(ready["websocket"]["redis"]["mode"], "memory")
        # JSON lines, which are the chart's default.
        self.assertTrue(all(json.loads(line) for line in log.splitlines()))

    def test_helm_test_finds_nothing_wrong_with_a_node_that_is_right(self):
        values = {**values_of(ROOT / "k8s/overlays/single/values.yaml"), "config": {"server": {"ping_interval": "1s", "ping_timeout": "1s"}}}

        def helm_test(world, ports):
            said = self.doctor(values, ports)
            self.assertEqual(said.returncode, 0, said.stdout)
            for check in ("stickiness:", "upgrade:", "patience.polling:", "api.ready:", "api.open_files:"):
                self.assertIn(check, said.stdout)
            # The node's API stands for a Service that leads to another server.
            self.assertEqual(self.doctor(values, {**ports, "public": ports["api"]}).returncode, 1)

        self.run_node(values, helm_test=helm_test)

    def doctor(self, values, ports):
        """What the pod of `helm test` runs, with the node where the Services are."""
        [pod] = [found for found in render(values) if found["kind"] == "Pod"]
        [container] = pod["spec"]["containers"]
        here = {"http://roomcast:80": ports["public"], "http://roomcast-api:3001": ports["api"]}
        args = container["args"]
        for service, port in here.items():
            args = [arg.replace(service, f"http://127.0.0.1:{port}") for arg in args]
        self.assertNotIn("roomcast", " ".join(args))
        return subprocess.run([node.BIN, *args], env=node.clean(), capture_output=True, text=True, timeout=60)

    def test_production_with_a_real_redis(self):
        port = free_port()
        args = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        redis = subprocess.Popen(args, stdout=subprocess.DEVNULL)
        try:
            secrets = {"roomcast-secrets": {**SECRETS["roomcast-secrets"], "redis-url": f"redis://127.0.0.1:{port}"}}
            ready, _ = self.run_node(values_of(ROOT / "k8s/overlays/production/values.yaml"), secrets)
            self.assertTrue(ready["websocket"]["redis"]["connected"])
        finally:
            redis.terminate()
            redis.wait()

    def test_everything_a_value_can_say(self):
        self.run_node({
            "contracts": {"embedded": ["chat"], "inline": {"parcels.toml": CONTRACT}, "configMaps": ["more-contracts"]},
            "config": {
                "server": {
                    "max_payload": "2MB",
                    "max_connections": 1000000,
                    "cors_origins": ["https://app.example.com"],
                    "trusted_proxies": ["10.0.0.0/8"],
                },
                "api": {"keys": [{"name": "shop", "contracts": ["parcels"]}]},
                "hooks": {"song-service": {"timeout": "2s", "breaker": {"failures": 3, "open": "20s"}}},
                "limits": {"events_per_socket": "10/s burst 20"},
                "log": {"level": "info,roomcast::auth=debug"},
            },
            "secrets": {
                "auth.keys.0.secret": {"value": HS256},
                "api.keys.0.secret": {"value": "0123456789abcdef"},
                "hooks.song-service.url": {"value": "https://songs.example.com/"},
                "hooks.song-service.secret": {"value": "0123456789abcdef"},
            },
        })

    def test_the_settings_are_toml_that_says_what_the_values_say(self):
        config = {
            "server": {"max_connections": 12345678, "cors_origins": ['https://a"b\\c<&>', "ü"]},
            "hooks": {"a-b": {"url": "https://example.com/?a=1&b=2", "retries": 0}},
            "node": {},
        }
        objects = render({"contracts": {"embedded": ["chat"]}, "config": config})
        said = tomllib.loads(named(objects, "ConfigMap")["data"]["roomcast.toml"])
        self.assertEqual(said["server"], {**config["server"], "listen": "0.0.0.0:3000"})
        self.assertEqual(said["hooks"], config["hooks"])
        self.assertNotIn("node", said)
        self.assertIs(type(said["server"]["max_connections"]), int)


if __name__ == "__main__":
    unittest.main()
