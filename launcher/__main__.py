"""`python -m launcher` and the `launcher` command."""

import sys


def main() -> None:
    """Run the command line and exit with its code."""
    from launcher.cli import main as cli_main

    sys.exit(cli_main())


if __name__ == "__main__":
    main()
