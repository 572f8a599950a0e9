"""``python -m skinlesion.app RUN``: a trained model in the browser, on this machine only."""

import argparse
import ipaddress
import sys
from collections.abc import Sequence
from pathlib import Path

from skinlesion.cli import report_errors

EPILOG = """\
examples:
  python -m skinlesion.app runs/mobilenet_v2/6c516296a2/seed0
  python -m skinlesion.app model.safetensors --port 0 --open

It needs Gradio: pip install 'skinlesion[app]'. Images stay on this machine; an uploaded file is
deleted as soon as it is read. Ctrl-C stops it. It is research software and no medical device."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command until Ctrl-C."""
    options = _parser().parse_args(arguments)
    from skinlesion.serving.model import load_run
    from skinlesion.serving.server import serve

    if not _is_loopback(options.host):
        print(
            f"warning: listening on {options.host}: everybody who can reach this port can use the "
            "model. Nothing is authenticated or encrypted: nobody is asked for a password, and "
            "images travel readable. Without --host, only this machine can reach it.",
            file=sys.stderr,
        )
    path = Path(options.run)
    serve(load_run(path, options.device), path, options.host, options.port, options.open)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m skinlesion.app",
        description="Show a trained model in the browser: probabilities for an image, and where "
        "the network looks.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "run", metavar="RUN_OR_FILE", help="a run directory, or an exported .safetensors"
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on (default: 127.0.0.1, this machine only)",
    )
    parser.add_argument("--port", type=int, default=7860, help="default: 7860; 0 takes a free one")
    parser.add_argument("--open", action="store_true", help="open the browser")
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda, cuda:1, mps")
    return parser


if __name__ == "__main__":
    with report_errors():
        try:
            main()
        except KeyboardInterrupt:
            print()
