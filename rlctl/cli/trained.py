"""What ``rlctl train`` says of the policies that it has saved."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlctl.bundle.manifest import Manifest
from rlctl.bundle.saved_policy import MANIFEST, read_manifest


def trained(folders: Sequence[Path]) -> tuple[dict[str, Any], str]:
    """The same for programs and for people."""
    # Learners of other packages may save in a form of their own.
    manifests = [read_manifest(folder) if (folder / MANIFEST).exists() else None for folder in folders]
    judged = [manifest and manifest.judgement and manifest.judgement.model_dump(mode="json") for manifest in manifests]
    names = [str(folder) for folder in folders]
    text = "\n".join(line for name, of in zip(names, manifests, strict=True) for line in _lines(name, of))
    if len(names) > 1:
        return {"policies": names, "judgements": judged}, text
    return {"policy": names[0], "judgement": judged[0]}, text


def _lines(name: str, manifest: Manifest | None) -> list[str]:
    lines = [f"saved the policy in {name}"]
    start = {} if manifest is None else (manifest.model_extra or {}).get("start", {})
    if "differs" in start:
        lines.append(f"it started as {start['rule']}, and decides otherwise in {start['differs']:.0%} of decisions")
    if manifest is not None and manifest.judgement is not None:
        lines.append(f"judged: {manifest.judgement.reason(manifest.judgement.policy.policy)}")
    return lines
