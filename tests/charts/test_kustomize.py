"""k8s/ says what the chart says."""

import json
import re
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

import kubernetes_validate
import yaml

from chart import ROOT, named, plain, render, unhashed, values_of

OVERLAYS = ["single", "cluster", "production"]


def old_kubectl():
    """Debian's kubectl has a kustomize that spells a few things differently."""
    said = json.loads(subprocess.run(["kubectl", "version", "--client", "-o", "json"], check=True, capture_output=True).stdout)
    return int(re.match(r"\d+", said["clientVersion"]["minor"])[0]) < 21


def respell(folder):
    for path in folder.rglob("kustomization.yaml"):
        said = yaml.safe_load(path.read_text())
        said["bases"] = [entry for entry in said["resources"] if entry.startswith("..")]
        said["resources"] = [entry for entry in said["resources"] if not entry.startswith("..")]
        said["patchesStrategicMerge"] = [patch["path"] for patch in said.pop("patches", [])]
        for generator in said.get("configMapGenerator", []):
            generator.pop("options", None)
        path.write_text(yaml.safe_dump(said))


def kustomize(overlay):
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "k8s"
        shutil.copytree(ROOT / "k8s", copy)
        if old_kubectl():
            respell(copy)
        done = subprocess.run(["kubectl", "kustomize", str(copy / "overlays" / overlay)], capture_output=True, text=True)
        if done.returncode != 0:
            raise AssertionError(done.stderr)
        return list(yaml.safe_load_all(done.stdout))


def by_name(entries):
    return sorted(entries, key=lambda entry: entry["name"])


def comparable(found):
    """An object whose lists with names have no order."""
    found = yaml.safe_load(unhashed(yaml.safe_dump(found)))
    if found["kind"] == "ConfigMap":
        # The suffixes that a generator adds differ between versions.
        found["metadata"] = {"name": found["metadata"]["name"]}
    pod = found.get("spec", {}).get("template", {}).get("spec", {})
    if "volumes" in pod:
        pod["volumes"] = by_name(pod["volumes"])
        for container in pod["containers"]:
            container["env"] = by_name(container.get("env", []))
            container["volumeMounts"] = by_name(container["volumeMounts"])
    return found


class Overlays(unittest.TestCase):
    def test_every_overlay_is_the_charts_rendering(self):
        for overlay in OVERLAYS:
            values = values_of(ROOT / "k8s" / "overlays" / overlay / "values.yaml")
            chart = [plain(found) for found in render(values, namespace="default")]
            expected = {(found["kind"], found["metadata"]["name"]): comparable(found) for found in chart}
            # kustomize has no counterpart of `helm test`.
            del expected[("Pod", "roomcast-test")]
            said = {(found["kind"], found["metadata"]["name"]): found for found in map(comparable, kustomize(overlay))}
            with self.subTest(overlay):
                self.assertEqual(set(said), set(expected))
                for key, found in expected.items():
                    self.assertEqual(said[key], found)

    def test_every_object_is_strictly_valid(self):
        for overlay in OVERLAYS:
            for found in kustomize(overlay):
                for version in ("1.30", "1.37"):
                    with self.subTest(overlay, kind=found["kind"], version=version):
                        kubernetes_validate.validate(found, version, strict=True)

    def test_the_settings_have_the_hash_of_their_content(self):
        names = {named_settings(overlay) for overlay in OVERLAYS}
        self.assertEqual(len(names), len(OVERLAYS))


def named_settings(overlay):
    objects = kustomize(overlay)
    [settings] = [found["metadata"]["name"] for found in objects if found["kind"] == "ConfigMap"]
    volumes = named(objects, "Deployment")["spec"]["template"]["spec"]["volumes"]
    assert {"configMap": {"name": settings}, "name": "config"} in [
        {key: value for key, value in volume.items() if key in ("name", "configMap")} for volume in volumes
    ]
    return settings
