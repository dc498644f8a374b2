"""What the doctor looks at of container engines. Standard library only, and nothing is changed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

from helpers import container_checks, gpus, images, preflight, settings
from helpers.container_command import ENGINES
from helpers.errors import SetupError
from helpers.finding import GOOD, MEND, NOTE, Finding

_NAMES = {"apptainer": "Apptainer", "docker": "Docker", "podman": "podman"}


def engines() -> Iterator[Finding]:
    """Each engine on this machine: could it serve the course now, with which image, and if not, what to type.

    None is needed where the embedded server runs; elsewhere one should work.
    """
    there = [engine for engine in ENGINES if shutil.which(engine)]
    needed = bool(preflight.embedded_obstacle())
    if not there:
        other = "a server on another machine serves as well: connect(…)" if needed else "not needed: the embedded server runs without"
        yield Finding("Containers", NOTE, f"no Apptainer, Docker or podman; {other}")
    findings = [_look(engine) for engine in there]
    works = any(finding.state == GOOD for finding in findings)
    for finding in findings:
        lacking = finding.state != GOOD and needed and not works
        yield Finding(finding.subject, MEND if lacking else finding.state, finding.found, finding.todo)


def _look(engine: str) -> Finding:
    subject = _NAMES[engine]
    try:
        facts = container_checks.check_engine(engine)
        image = images.chosen(engine)
        variables = container_checks.check_image(engine, image)
        container_checks.check_shared_memory(engine, settings.shm_size())
        seen = gpus.here()
        container_checks.check_gpus(engine, seen, facts, variables)
    except SetupError as error:
        return Finding(subject, NOTE, error.happened, error.todo)
    return Finding(subject, GOOD, f"has {image}; {'with' if seen else 'without'} GPU")
