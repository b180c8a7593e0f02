"""What a stranger's features.json names; importing it leaves a file EXECUTED in the working folder."""

from pathlib import Path

Path("EXECUTED").touch()
