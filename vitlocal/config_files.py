"""The YAML files that come with vitlocal, and how a name on the command line finds one."""

from pathlib import Path

from vitlocal.errors import InputError

# In a wheel the files are inside the package; in a checkout they are the folder beside it.
FOLDERS = (Path(__file__).parent / "configs", Path(__file__).parent.parent / "configs")


def shipped() -> dict[str, Path]:
    """File names and paths of the shipped configurations."""
    folder = next((folder for folder in FOLDERS if folder.is_dir()), None)
    return {path.name: path for path in sorted(folder.glob("*.yaml"))} if folder else {}


def find(name: str) -> Path:
    """The file that ``name`` means: that path if it is there, else the shipped one of that name.

    Raises:
        InputError: neither is there; the sentence lists the shipped ones.
    """
    if Path(name).is_file():
        return Path(name)
    files = shipped()
    if name not in files:
        raise InputError(
            f"config {name}: there is no such file, nor a shipped one of that name; "
            f"shipped are {', '.join(files) or 'none'}"
        )
    return files[name]
