#!/bin/sh
# What the course adds to NVIDIA's server image. Containerfile.server and server.def run it while they build, in the folder with the lock.
set -eu
# Packages that Python models in models/ import, at the lock's versions. torch and onnxruntime are not among them: in this image the backends
# are NVIDIA's own, and bring their libraries. pip takes what fits and is there already.
PACKAGES="numpy"
# The image's Python is Ubuntu 24.04's own, which pip leaves alone unless told otherwise; in an image there is nothing to break.
export PIP_BREAK_SYSTEM_PACKAGES=1 PIP_ROOT_USER_ACTION=ignore PIP_DISABLE_PIP_VERSION_CHECK=1
python3 -m pip install --no-cache-dir --constraint server-requirements.lock $PACKAGES
# In 24.10 and 24.11 models with numpy 2 load, are READY and answer with empty tensors, without an error. NVIDIA does not say since when that is
# over, so numpy stays at 1.26 here; it runs on the image's Python 3.12.
python3 -c 'import numpy; assert numpy.__version__.startswith("1."), numpy.__version__'
