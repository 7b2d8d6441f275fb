"""What a device computes with."""

import torch


def has_bf16(device: str) -> bool:
    """Whether a device, as torch names it, computes with bfloat16 itself; emulated it is slower than float32."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_capability(device)[0] >= 8
    # AVX-512 BF16, AMX, or Arm's: oneDNN's own test also admits CPUs that only emulate.
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("bf16"))
