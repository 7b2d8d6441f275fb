"""`python -m pconv_train`, for torchrun."""

from pconv_train.cli import app

app(prog_name="pconv-train")
