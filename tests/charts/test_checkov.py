"""checkov finds nothing in the chart but what checkov.yaml explains."""

import json
import os
import subprocess
import tempfile
import unittest
from pathlib import Path

import yaml

from chart import ROOT, render
from test_chart import MATRIX

ACCEPTED = yaml.safe_load((ROOT / "tests/charts/checkov.yaml").read_text())


def findings():
    """(check, kind, text) of all that fails."""
    with tempfile.TemporaryDirectory(prefix="roomcast-checkov-") as folder:
        for case, values in MATRIX.items():
            objects = render(values)
            for found in objects:
                # As Helm does when it installs.
                found["metadata"]["namespace"] = "realtime"
            text = "---\n".join(yaml.safe_dump(found) for found in objects)
            (Path(folder) / f"{case.replace(' ', '-')}.yaml").write_text(text)
        (Path(folder) / "Dockerfile").write_text((ROOT / "Dockerfile").read_text())
        args = [os.environ["CHECKOV"], "-d", folder, "--framework", "kubernetes", "dockerfile", "--output", "json", "--compact", "--quiet"]
        done = subprocess.run([*args, "--skip-download"], capture_output=True, text=True, timeout=300, cwd=folder)
    reports = json.loads(done.stdout)
    for report in reports if isinstance(reports, list) else [reports]:
        assert report["summary"]["parsing_errors"] == 0 and report["summary"]["passed"] > 10, report["summary"]
        for found in report["results"]["failed_checks"]:
            kind = found["resource"].split(".")[0]
            yield found["check_id"], kind, f"{found['check_id']} {found['check_name']}: {found['file_path']} {found['resource']}"


class Checkov(unittest.TestCase):
    def test_every_finding_is_explained_and_every_explanation_is_needed(self):
        found = list(findings())
        new = [text for check, kind, text in found if ACCEPTED.get(check, {"only": "-"}).get("only", kind) != kind]
        self.assertEqual(new, [])
        self.assertEqual(set(ACCEPTED), {check for check, _, _ in found})


if __name__ == "__main__":
    unittest.main()
