"""What a device computes with."""

import torch


def prefers_bf16(device: str) -> bool:
    """Whether a device, as torch names it, computes faster with bfloat16 than with float32."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_capability(device)[0] >= 8
    # AMX, or Arm's. AVX-512 BF16 alone is slower than float32 (training/RECIPE.md), as emulation is.
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(capabilities.get("amx_bf16") or capabilities.get("bf16"))
