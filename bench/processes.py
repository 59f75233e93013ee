"""Child processes: the programs that are measured, and those that fetch them."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

# Whoever needs longer for one certificate, or for being fetched, is stuck.
PATIENCE = 300


class Failed(Exception):
    """A program did not do what it was started for; the message has its last words."""


def run(
    command: Sequence[str | Path],
    *,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    stdin: str = "",
) -> str:
    """What the program says on stdout. Raises Failed.

    environment: all of it; this process's own if not given.
    """
    name = Path(command[0]).name
    try:
        done = subprocess.run(
            command,
            env=environment,
            cwd=folder,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise Failed(f"{name} did not end within {PATIENCE} seconds") from error
    except OSError as error:
        raise Failed(f"{name} cannot be run: {error}") from error
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()
        raise Failed(f"{name} ended with status {done.returncode}: {said[-1]}")
    return done.stdout


class Conversation:
    """A program that stays: it reads a line, does what it says, and answers with a line."""

    def __init__(
        self, command: Sequence[str | Path], environment: Mapping[str, str], folder: Path
    ) -> None:
        self._process = subprocess.Popen(
            command,
            env=environment,
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def say(self, line: str) -> str:
        """The answer, without its end of line. Raises Failed where the program ended instead."""
        assert self._process.stdin is not None  # it is a pipe
        assert self._process.stdout is not None  # so is this
        try:
            self._process.stdin.write(f"{line}\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except OSError:
            answer = ""
        if not answer:
            raise Failed(f"it ended with status {self._process.wait(PATIENCE)}; see above")
        return answer.rstrip("\n")

    def end(self) -> None:
        """Close its stdin, which is how it is told, and wait."""
        try:
            self._process.communicate(timeout=PATIENCE)
        except (OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
