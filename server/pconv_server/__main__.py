"""`python -m pconv_server` is `pconv-server`."""

from pconv_server.cli import app

app(prog_name="pconv-server")
