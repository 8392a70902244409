"""What can be known of the container, compose.yaml and the systemd unit without an engine."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

import yaml

import node
from chart import ROOT
from test_start import free_port

DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())


def inside(root, args, **more):
    """A command with the container's file system and user."""
    change = ["chroot", "--userspec=65532:65532"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "chroot"]
    path = {"PATH": f"{os.environ['PATH']}:/usr/sbin"}
    return [*change, str(root), *args], {"env": path, "cwd": "/", **more}


class Image(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="roomcast-rootfs-")
        self.addCleanup(folder.cleanup)
        self.root = Path(folder.name)
        self.root.chmod(0o755)
        subprocess.run([ROOT / "packaging/rootfs", node.BIN, self.root], check=True)

    def test_the_node_runs_in_it_and_its_health_check_sees_it(self):
        ports = {"3000": free_port(), "3001": free_port()}
        settings = self.root / "etc/roomcast/roomcast.toml"
        text = settings.read_text()
        for port, free in ports.items():
            text = text.replace(f'"0.0.0.0:{port}"', f'"127.0.0.1:{free}"')
        # A node does not start without a contract, so one is mounted beside the settings.
        (self.root / "etc/roomcast/open.toml").write_text('name = "open"\n[auth]\nmode = "none"\n')
        settings.write_text(f'{text}\n[contracts]\nfiles = ["/etc/roomcast/open.toml"]\n')
        entry = json.loads(re.search(r"^ENTRYPOINT (.*)$", DOCKERFILE, re.M)[1])
        command = json.loads(re.search(r"^CMD (.*)$", DOCKERFILE, re.M)[1])
        health = [part.replace("3000", str(ports["3000"])) for part in json.loads(re.search(r"HEALTHCHECK .*CMD (\[.*\])$", DOCKERFILE, re.M)[1])]
        checked, options = inside(self.root, health)
        self.assertNotEqual(subprocess.run(checked, capture_output=True, **options).returncode, 0)
        args, options = inside(self.root, [*entry, *command], stderr=subprocess.DEVNULL)
        process = subprocess.Popen(args, **options)
        try:
            checked, options = inside(self.root, health)
            deadline = time.monotonic() + 20
            while subprocess.run(checked, capture_output=True, **options).returncode != 0:
                self.assertIsNone(process.poll())
                self.assertLess(time.monotonic(), deadline, "the health check fails")
                time.sleep(0.1)
            process.terminate()
            self.assertEqual(process.wait(30), 0)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()

    def test_it_has_no_shell_and_nothing_that_is_not_needed(self):
        programs = {str(path.relative_to(self.root)) for path in self.root.rglob("*") if path.is_file() and path.parent.name == "bin"}
        self.assertEqual(programs, {"usr/local/bin/roomcast", "usr/local/bin/wget"})

    def test_the_build_gets_every_file_that_the_binary_is_made_of(self):
        copied = re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.M)
        sources = [ROOT / name for line in copied for name in line.split()]
        passed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
        self.assertEqual(passed, {str(path.relative_to(ROOT)) for path in sources})
        made_of = Path(f"{node.BIN}.d").read_text().split(":", 1)[1].split()
        self.assertGreater(len(made_of), 50)
        for path in map(Path, made_of):
            # build.rs embeds the contracts. The commit of an image is a build argument, because the image has no .git.
            if path.name == "embedded.rs" or ".git" in path.parts:
                continue
            self.assertTrue(any(path == source or source in path.parents for source in sources), f"{path} is not copied")

    def test_its_labels_and_user_agree_with_the_rest(self):
        self.assertIn(f'version="{node.says("--version").split()[1]}"', DOCKERFILE)
        self.assertIn("USER 65532:65532", DOCKERFILE)


class Compose(unittest.TestCase):
    def test_it_is_what_the_compose_specification_says(self):
        args = ["-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(ROOT / "compose.yaml")]
        done = subprocess.run([sys.executable, *args], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_every_node_has_settings_that_the_node_takes(self):
        with tempfile.TemporaryDirectory() as folder:
            for name in COMPOSE["secrets"]:
                (Path(folder) / name).write_text("0123456789abcdef0123456789abcdef")
            for name in ("node1", "node2", "node3"):
                given = COMPOSE["services"][name]["environment"]
                env = {key: value.replace("/run/secrets", folder) for key, value in given.items()}
                done = subprocess.run([node.BIN, "check"], env={**node.clean(), **env}, cwd=folder, capture_output=True, text=True)
                self.assertEqual(done.returncode, 0, done.stderr)

    def test_what_it_refers_to_exists(self):
        for name, service in COMPOSE["services"].items():
            for volume in service.get("volumes", []):
                path = ROOT / volume.split(":")[0]
                self.assertTrue(path.exists(), f"{name}: {volume}")
            for used, known in (("secrets", "secrets"), ("configs", "configs")):
                wanted = {entry if isinstance(entry, str) else entry["source"] for entry in service.get(used, [])}
                self.assertLessEqual(wanted, set(COMPOSE[known]))
            self.assertLessEqual(set(service.get("depends_on", {})), set(COMPOSE["services"]))
        for text in (config["content"] for name, config in COMPOSE["configs"].items() if name != "nodes"):
            self.assertIsInstance(yaml.safe_load(text), dict)

    def test_every_node_is_behind_nginx_and_scraped(self):
        nodes = {name for name in COMPOSE["services"] if name.startswith("node")}
        self.assertEqual(set(re.findall(r"server (\w+):3000", COMPOSE["configs"]["nodes"]["content"])), nodes)
        self.assertEqual(set(re.findall(r"(\w+):3001", COMPOSE["configs"]["prometheus"]["content"])), nodes)

    def test_nginx_takes_what_it_is_given(self):
        with tempfile.TemporaryDirectory() as folder:
            conf = Path(folder)
            (conf / "conf.d").mkdir()
            service = COMPOSE["services"]["nginx"]
            for volume in service["volumes"]:
                source, target, _ = volume.split(":")
                shutil.copy(ROOT / source, conf / Path(target).relative_to("/etc/nginx"))
            for config in service["configs"]:
                # Names that only the engine's own DNS resolves.
                text = re.sub(r"server node\d:", "server 127.0.0.1:", COMPOSE["configs"][config["source"]]["content"])
                (conf / Path(config["target"]).relative_to("/etc/nginx")).write_text(text)
            port = free_port()
            listen = conf / "roomcast-listen.conf"
            listen.write_text(listen.read_text().replace("listen 80;", f"listen 127.0.0.1:{port};"))
            # As in the image.
            (conf / "nginx.conf").write_text(f"pid {folder}/pid; events {{}} http {{ include conf.d/*.conf; }}")
            args = ["nginx", "-t", "-q", "-p", folder, "-c", str(conf / "nginx.conf"), "-e", "stderr"]
            done = subprocess.run(args, capture_output=True, text=True)
            self.assertEqual(done.returncode, 0, done.stderr)

    def test_prometheus_and_grafana_take_what_they_are_given(self):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "prometheus.yml"
            file.write_text(COMPOSE["configs"]["prometheus"]["content"])
            (Path(folder) / "rules.yaml").symlink_to(ROOT / "charts/roomcast/files/rules.yaml")
            done = subprocess.run(["promtool", "check", "config", str(file)], capture_output=True, text=True)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        [source] = yaml.safe_load(COMPOSE["configs"]["datasources"]["content"])["datasources"]
        self.assertEqual((source["type"], source["url"]), ("prometheus", "http://prometheus:9090"))
        [provider] = yaml.safe_load(COMPOSE["configs"]["dashboards"]["content"])["providers"]
        mounted = [volume.split(":")[1] for volume in COMPOSE["services"]["grafana"]["volumes"]]
        self.assertIn(provider["options"]["path"], mounted)


class Unit(unittest.TestCase):
    unit = ROOT / "packaging" / "roomcast.service"

    def test_systemd_reads_it_without_a_complaint(self):
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "roomcast.service"
            # The binary is not installed at the path in the unit.
            copy.write_text(self.unit.read_text().replace("/usr/local/bin/roomcast", node.BIN))
            done = subprocess.run(["systemd-analyze", "verify", "--man=no", str(copy)], capture_output=True, text=True)
            told = [line for line in done.stderr.splitlines() if "roomcast.service" in line]
            self.assertEqual(told, [])

    def test_it_is_hardened(self):
        args = ["systemd-analyze", "security", "--offline=true", "--threshold=15", str(self.unit)]
        done = subprocess.run(args, capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stdout[-300:])


if __name__ == "__main__":
    unittest.main()
