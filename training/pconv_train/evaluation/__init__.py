"""`pconv-train evaluate`: the paper's experiments (§4.3, §5.2), with rivals on the same pictures in the same run."""
