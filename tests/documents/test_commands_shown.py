"""Every command that a document shows or speaks of is one that there is, with options and values that it takes."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_lines import BadLineError, check
from doc_blocks import blocks, parts
from tiny import REPOSITORY

DOCUMENTS = sorted(
    [
        *(
            REPOSITORY / name
            for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "reports/README.md")
        ),
        *REPOSITORY.glob("docs/**/*.md"),
    ]
)
PROGRAMS = r"(?:u2pl|dvc|mlflow|make|torchrun)"
INLINE = re.compile(rf"(?<!`)`((?:\w+=\S+ )?{PROGRAMS}\s[^`]+)`(?!`)")
TYPED = re.compile(rf"(?:\w+=\S+ )*(?:{PROGRAMS}|python|pip|git)\s.+")


def shown(text: str) -> Iterator[tuple[str, bool]]:
    """The command lines of a document, and whether its text only speaks of them."""
    for part in parts(text):
        if isinstance(part, str):
            yield from ((" ".join(line.split()), True) for line in INLINE.findall(part))
        elif part.language == "console":
            yield from ((command, False) for command, _ in part.commands)
        elif part.language in ("", "bash", "sh"):
            lines = part.text.replace("\\\n", " ").splitlines()
            yield from ((line.strip(), False) for line in lines if TYPED.fullmatch(line.strip()))


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_every_command_of_a_document_is_one_that_there_is(path: Path):
    problems, text = [], path.read_text(encoding="utf-8")
    saved = {block.file for block in blocks(text)}
    for line, mention in shown(text):
        try:
            check(line, mention=mention, files=saved)
        except BadLineError as error:
            problems.append(str(error))
    assert not problems


def test_commands_are_found():
    found = [line for path in DOCUMENTS for line, _ in shown(path.read_text(encoding="utf-8"))]
    for program, least in {"u2pl": 250, "dvc": 30, "make": 10, "mlflow": 2, "python": 10}.items():
        assert sum(program in line.split() for line in found) >= least, program


@pytest.mark.parametrize(
    "line",
    [
        "u2pl trian --dataset shapes",
        "u2pl train --datset shapes",
        "u2pl train --nproc zero",
        "u2pl prepare --dataset shapes && u2pl runs shw RUN",
        "u2pl ablate 0.1 0.2",
        "dvc rerpo",
        "dvc exp run --ques",
        "mlflow uj",
        "mlflow ui --backend sqlite:///mlflow.db --nothing",
        "make dmeo",
        "python benchmarks/nothing.py",
        "python benchmarks/loading.py --nothing",
        "OMP_NUM_THREADS=1 torchrun --nproc-per-node 4 -m u2pl_cli trian",
        "docker run --rm u2pl trian",
        "docker build --build-arg NOTHING=1 .",
        "conda install u2pl",
    ],
)
def test_a_command_that_there_is_not_is_noticed(line: str):
    with pytest.raises(BadLineError):
        check(line)


@pytest.mark.parametrize(
    "line",
    [
        "u2pl train --limit-batches N --name NAME  # a comment; with a semicolon",
        "u2pl init work && cd work",
        "U2PL_TRACKING=none u2pl table methods > table.md",
        "u2pl predict RUN photos --out FOLDER",
        "u2pl plan demo",
        "u2pl COMMAND --help",
        "make PYTHON=python3.12 demo",
        "python benchmarks/contrastive.py --threads 2",
        "mlflow ui --backend-store-uri sqlite:///mlflow.db",
    ],
)
def test_a_command_that_there_is_is_let_pass(line: str):
    check(line)
