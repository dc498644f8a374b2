#!/bin/sh
# What the course adds to NVIDIA's server image. Containerfile.server and server.def run it while they build, in the folder with the lock.
set -eu
# Packages that Python models in models/ import, at the lock's versions. torch and onnxruntime are not among them: in this image the backends
# are NVIDIA's own, and bring their libraries. pip takes what fits and is there already.
PACKAGES="numpy"
export PIP_ROOT_USER_ACTION=ignore PIP_DISABLE_PIP_VERSION_CHECK=1
python3 -m pip install --no-cache-dir --constraint server-requirements.lock $PACKAGES
# With numpy 2 models load, are READY and answer with empty tensors, without an error.
python3 -c 'import numpy; assert numpy.__version__.startswith("1."), numpy.__version__'
