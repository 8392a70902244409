"""Objects whose types Kubernetes does not have by itself are what their definitions say."""

import json
import subprocess
import unittest

from chart import ROOT, render
from test_chart import CUSTOM, MATRIX

CHECK = ROOT / "tests" / "charts" / "crds" / "check.mjs"


def mistakes(objects):
    done = subprocess.run(["node", str(CHECK)], input=json.dumps(objects), capture_output=True, text=True, timeout=120)
    assert done.returncode in (0, 1) and not done.stderr, done.stderr
    return done.stdout.splitlines()


def customs():
    return [found for values in MATRIX.values() for found in render(values) if found["kind"] in CUSTOM]


class Custom(unittest.TestCase):
    def test_every_object_fits_its_definition_and_has_no_other_field(self):
        found = customs()
        self.assertLessEqual({"HTTPRoute", "ServiceMonitor", "PodMonitor"}, {one["kind"] for one in found})
        self.assertEqual(mistakes(found), [])

    def test_wrong_fields_and_values_would_be_found(self):
        found = customs()
        for one in found:
            if one["kind"] == "HTTPRoute":
                one["spec"]["rules"][0]["timeout"] = {}
            elif one["kind"] == "ServiceMonitor":
                one["spec"]["endpoints"][0]["interval"] = "often"
        told = "\n".join(mistakes(found))
        self.assertIn("'timeout' does not exist", told.replace('"', ""))
        self.assertIn("interval", told)


if __name__ == "__main__":
    unittest.main()
