"""How the network is fitted and judged: photographs and holes in, checkpoints out (§§3.3, 4)."""
