"""The kernels that this machine can run: `native` wants a compiler."""

from mohge.moe.kernels import KERNELS
from mohge.moe.native.build import library

KERNELS_HERE = [name for name in KERNELS if name != "native" or not isinstance(library(), str)]
