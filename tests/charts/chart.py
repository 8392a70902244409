"""The chart, rendered by Helm's own library."""

import re
from functools import cache
from pathlib import Path

import helm_python as helm
import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "roomcast"
# The values of the smallest installation.
SMALL = {
    "contracts": {"embedded": ["chat"]},
    "secrets": {"auth.keys.0.secret": {"existingSecret": {"name": "roomcast-secrets", "key": "auth-secret"}}},
}


def values_of(path):
    return yaml.safe_load(path.read_text()) or {}


@cache
def _chart():
    return helm.Chart.load(str(CHART))


def render(values, name="roomcast", namespace="realtime"):
    """The objects of an installation; raises helm.HelmError for values that are refused."""
    return list(_render(values, name, namespace))


def _render(values, name, namespace):
    # Rendering alone does not check the schema; installing does.
    _chart().validate_schema(values)
    for path, text in _chart().render(values, name=name, namespace=namespace, is_install=True).items():
        if path.endswith(".yaml"):
            yield from (found for found in yaml.safe_load_all(text) if found)


def named(objects, kind, name="roomcast"):
    """The one object of a kind and name."""
    [found] = [found for found in objects if found["kind"] == kind and found["metadata"]["name"] == name]
    return found


def plain(found):
    """An object without what only Helm needs: kustomize renders the rest."""
    found = yaml.safe_load(yaml.safe_dump(found))
    meta = found["metadata"]
    for label in ("helm.sh/chart", "app.kubernetes.io/managed-by"):
        meta["labels"].pop(label, None)
    template = found.get("spec", {}).get("template", {}).get("metadata", {})
    notes = template.get("annotations", {})
    for note in [note for note in notes if note.startswith("checksum/")]:
        del notes[note]
    if template and not notes:
        template.pop("annotations", None)
    return found


def unhashed(text):
    """Names as they are before kustomize adds the hash of the content."""
    return re.sub(r"\b(roomcast(?:-contracts)?)-[a-z0-9]{10}\b", r"\1", text)
