#!/bin/sh
# What the course adds to NVIDIA's client image, which has perf_analyzer. Containerfile.client and client.def run it while they build, in the
# course's folder in the image.
set -eu
# The program for which this image is taken; without it the build ends here.
command -v perf_analyzer
# The notebooks need Python 3.11 or 3.12. The image has 3.12, which uv takes; where there is none of the two, it brings one, for all users.
export UV_PYTHON_INSTALL_DIR=/opt/course-python UV_NO_CACHE=1 UV_LINK_MODE=copy
export PIP_ROOT_USER_ACTION=ignore PIP_DISABLE_PIP_VERSION_CHECK=1
python3 -m pip install --no-cache-dir --constraint requirements.lock --target /tmp/uv uv
/tmp/uv/bin/uv venv --python '>=3.11,<3.13' .venv
# The packages of pyproject.toml, without those for development, at the lock's versions, and the course itself.
/tmp/uv/bin/uv pip install --python .venv --constraint requirements.lock --editable .
rm -r /tmp/uv
mkdir -p /work
