# shellcheck shell=bash
# shellcheck disable=SC2034  # the variables are for the scripts that source this
# Sourced by the scripts beside it: where things are, how progress is shown, and which kind of build this machine takes.

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv_python=$repository/.venv/bin/python

step() { printf '==> %s\n' "$*"; }
note() { printf '    %s\n' "$*"; }
fail() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# Prints the comment at the top of the calling script.
print_help() { sed -n '2,/^[^#]/{s/^# \{0,1\}//p;}' "$0"; }

# Sets cuda to ON or OFF and cuda_reason to why. GPU kernels are built only where they can run.
choose_cuda() {
  cuda=OFF
  local version
  if ! nvcc=$(PATH=$PATH:/usr/local/cuda/bin command -v nvcc); then
    cuda_reason="no CUDA toolkit here (no nvcc)"
    return
  fi
  if ! nvidia-smi >/dev/null 2>&1; then
    cuda_reason="no NVIDIA GPU here (nvidia-smi does not run)"
    return
  fi
  version=$("$nvcc" --version | sed -n 's/.*release \([0-9]*\.[0-9]*\).*/\1/p')
  if [[ ${version%%.*} != 13 ]]; then
    cuda_reason="the toolkit is CUDA $version, libtorch is built for CUDA 13"
    return
  fi
  cuda=ON
  cuda_reason="an NVIDIA GPU and CUDA $version are here"
}
