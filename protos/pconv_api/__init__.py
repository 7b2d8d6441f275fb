"""The contract of pconv and the geometry that every door shares. Pure Python: nothing compiled, nothing else of ours.

`pconv_api.v1.pconv_pb2` and `pconv_pb2_grpc` are generated from the proto beside them (`python hatch_build.py`).
"""

from enum import Enum

from pconv_api.geometry import Box, Job, context_box, islands, plan_jobs

PROTOCOL_VERSION = 1  # raised by a change that an older client or server would misunderstand
DEFAULT_PORT = 50451  # on 127.0.0.1


class Texture(str, Enum):  # noqa: UP042 # the Python of a GIMP may be 3.10, without StrEnum
    """Where the texture of a fill comes from: values of the option `texture` of Inpaint; the first is the default."""

    PHOTO = "photo"  # copied from the surroundings, guided by the network's fill
    NETWORK = "network"  # the network's own, nothing added


__all__ = ["DEFAULT_PORT", "PROTOCOL_VERSION", "Box", "Job", "Texture", "context_box", "islands", "plan_jobs"]
