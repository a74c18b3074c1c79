"""The application of a cluster: deployments.yaml with two lines changed, also as `serveConfigV2` of the RayService.

python -m tests.cluster_files.sync     # writes it into cluster/kuberay/rayservice.yaml
"""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
DEPLOYMENTS = ROOT / "deployments.yaml"
RAYSERVICE = ROOT / "cluster/kuberay/rayservice.yaml"
# HAProxy and the replicas behind it listen on this address: on a loopback one, nodes could not reach each other.
CHANGES = (("profile: local", "profile: g6e"), ("host: 127.0.0.1", "host: 0.0.0.0"))
CONFIG = re.compile(r"(?<=^  serveConfigV2: \|\n)(?:    .*\n|\n)+", re.MULTILINE)


def for_a_cluster(text: str) -> str:
    """deployments.yaml as a cluster runs it. Raises ValueError when a line to change is not there exactly once."""
    lines = text.splitlines(keepends=True)
    for old, new in CHANGES:
        places = [number for number, line in enumerate(lines) if line.split("#")[0].strip() == old]
        if len(places) != 1:
            raise ValueError(f"{len(places)} lines of deployments.yaml are {old!r}: one is to be changed")
        lines[places[0]] = lines[places[0]].replace(old, new)
    return "".join(lines)


def synced(rayservice: str, deployments: str) -> str:
    """The RayService with the application in it. Comments stay: they are for whoever reads it there."""
    block = "".join(f"    {line}" if line.strip() else line for line in for_a_cluster(deployments).splitlines(keepends=True))
    text, times = CONFIG.subn(lambda _: block, rayservice)
    if times != 1:
        raise ValueError("the RayService has no block `serveConfigV2: |`")
    return text


if __name__ == "__main__":
    RAYSERVICE.write_text(synced(RAYSERVICE.read_text(encoding="utf-8"), DEPLOYMENTS.read_text(encoding="utf-8")), encoding="utf-8")
