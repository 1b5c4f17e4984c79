"""``python -m vitlocal``."""

from vitlocal.cli import main

if __name__ == "__main__":
    main()
