"""Java and folders of jars: what Kafka and HAPI FHIR run on."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

#: Kafka 4 and HAPI FHIR 8 need it.
LEAST_VERSION = 17
HOW_TO_GET_JAVA = f"install Java {LEAST_VERSION} or newer (Debian 12: apt-get install default-jre-headless)"


def find() -> str | None:
    """The `java` of JAVA_HOME or PATH, or None."""
    home = os.environ.get("JAVA_HOME")
    inside = Path(home) / "bin" / "java" if home else None
    return str(inside) if inside is not None and inside.exists() else shutil.which("java")


def missing() -> str | None:
    """Why Java cannot be used and what to do, or None when it can."""
    java = find()
    if java is None:
        return f"no Java here: {HOW_TO_GET_JAVA}"
    told = subprocess.run((java, "-version"), capture_output=True, text=True, check=False).stderr
    found = re.search(r'version "(\d+)', told)
    if found is None or int(found[1]) < LEAST_VERSION:
        return f"{java} is {found[0] if found else 'of an unknown version'}: {HOW_TO_GET_JAVA}"
    return None


def jars(folder: Path) -> Path | None:
    """`folder/libs`, or `folder` itself, when it holds jars."""
    for place in (folder / "libs", folder):
        if any(place.glob("*.jar")):
            return place
    return None
