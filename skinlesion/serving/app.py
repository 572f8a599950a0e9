"""``skinlesion app``: a trained model in the browser, on this machine only."""

import argparse
import ipaddress
import sys
from collections.abc import Callable
from pathlib import Path

from skinlesion.serving.options import add_model

EPILOG = """\
examples:
  skinlesion app runs/mobilenet_v2/6c516296a2/seed0
  skinlesion app model.safetensors --port 0 --open

It needs Gradio: pip install 'skinlesion[app]'. Images stay on this machine; an uploaded file is
deleted as soon as it is read. Ctrl-C stops it. It is research software and no medical device."""


def command(parser: argparse.ArgumentParser) -> Callable[[argparse.Namespace], int | None]:
    """Show a trained model in the browser."""
    parser.description = (
        "Show a trained model in the browser: probabilities for an image, and where the network "
        "looks."
    )
    parser.epilog = EPILOG
    add_model(parser)
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on (default: 127.0.0.1, this machine only)",
    )
    parser.add_argument("--port", type=int, default=7860, help="default: 7860; 0 takes a free one")
    parser.add_argument("--open", action="store_true", help="open the browser")
    return run


def run(options: argparse.Namespace) -> None:
    """Serve until Ctrl-C."""
    from skinlesion.serving.model import load_run
    from skinlesion.serving.server import serve

    if not _is_loopback(options.host):
        print(
            f"warning: listening on {options.host}: everybody who can reach this port can use the "
            "model. Nothing is authenticated or encrypted: nobody is asked for a password, and "
            "images travel readable. Without --host, only this machine can reach it.",
            file=sys.stderr,
        )
    path = Path(options.model)
    try:
        serve(load_run(path, options.device), path, options.host, options.port, options.open)
    except KeyboardInterrupt:  # the way to end it
        print()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
