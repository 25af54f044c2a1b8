"""The command ``streamgeo``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from streamgeo.errors import StreamGeoError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit status."""
    parser = argparse.ArgumentParser(
        prog="streamgeo", description="Streaming data loader that also runs backwards."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser("demo", help="run the main job on three domains and show what came out")
    demo.add_argument(
        "--out", type=Path, default=Path("demo_out"), help="folder for files and pictures (demo_out)"
    )
    demo.add_argument(
        "--data",
        type=Path,
        default=os.environ.get("STREAMGEO_SAMPLES"),
        help="folder with FITS, GeoTIFF and NetCDF files of your own (default: STREAMGEO_SAMPLES, else made scenes)",
    )
    options = parser.parse_args(argv)
    from streamgeo.demo import run

    try:
        run(options.out, Path(options.data) if options.data else None)
    except StreamGeoError as error:
        print(f"streamgeo: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
