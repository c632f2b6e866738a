"""A reader of a tutorial: types its commands into a shell, runs its Python, saves its files, compares what is shown."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import doc_blocks
from doc_blocks import Block, blocks, shows

SHELL = """{command}
status=$?
pwd > "$TUTORIAL_PLACE"
exit $status
"""
PYTHON = """
import contextlib, io, json, os, sys, traceback
space = {"__name__": "__main__"}
for line in sys.stdin:
    place, source = json.loads(line)
    os.chdir(place)
    said, failed = io.StringIO(), ""
    with contextlib.redirect_stdout(said):
        try:
            exec(compile(source, "block", "exec"), space)
        except BaseException:
            failed = traceback.format_exc()
    print(json.dumps([said.getvalue(), failed]), flush=True)
"""


class Reader:
    """Goes through a document in a folder of its own."""

    def __init__(self, folder: Path, environment: Mapping[str, str] | None = None, timeout: float = 540):
        self.place, self.timeout = folder, timeout
        self._marker = folder.parent / f".{folder.name}-place"
        self._environment = doc_blocks.environment() | {
            "TUTORIAL_PLACE": str(self._marker),
            **(environment or {}),
        }
        self._python: subprocess.Popen[str] | None = None

    def read(self, text: str) -> None:
        """Do all that a document says.

        Raises:
            AssertionError: something fails, or says something else than is shown.
        """
        try:
            said: str | None = None
            for block in blocks(text):
                if block.language == "text" and said is not None:
                    self._compare(block, said, block.text.splitlines())
                said = self._do(block)
        finally:
            if self._python is not None:
                self._python.communicate(timeout=60)

    def _do(self, block: Block) -> str | None:
        """Do what a block says; what its Python prints."""
        if block.file is not None:
            path = self.place / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")
        elif block.language == "console":
            for command, shown in block.commands:
                self._compare(block, self._type(block, command), shown)
        elif block.language == "python":
            return self._run(block)
        else:
            assert block.language == "text", f"line {block.line}: what is to be done with {block.language!r}?"
        return None

    def _type(self, block: Block, command: str) -> str:
        done = subprocess.run(
            ["bash", "-c", SHELL.format(command=command)],
            cwd=self.place,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=self.timeout,
        )
        assert done.returncode == 0, f"line {block.line}: $ {command}\n{done.stdout}"
        self.place = Path(self._marker.read_text().strip())
        return done.stdout

    def _run(self, block: Block) -> str:
        if self._python is None:
            self._python = subprocess.Popen(
                [sys.executable, "-c", PYTHON],
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        assert self._python.stdin is not None and self._python.stdout is not None
        self._python.stdin.write(json.dumps([str(self.place), block.text]) + "\n")
        self._python.stdin.flush()
        said, failed = json.loads(self._python.stdout.readline())
        assert not failed, f"line {block.line}:\n{block.text}\n{failed}"
        return said

    def _compare(self, block: Block, output: str, shown: list[str]) -> None:
        missing = shows(output, shown)
        assert missing is None, f"line {block.line} shows {missing!r}, and what came was:\n{output}"
