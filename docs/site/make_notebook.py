"""Makes the notebook of a tutorial: its text and its blocks as cells, executed, with what came out.

python docs/site/make_notebook.py [FILE]: where to write it; left out, it replaces docs/tutorials/own_images.ipynb.
"""

import re
import sys
import tempfile
from pathlib import Path

import nbformat
from doc_blocks import Block, environment, parts
from nbclient import NotebookClient
from nbformat import NotebookNode, v4

TUTORIAL = Path(__file__).parents[1] / "tutorials" / "own_images.md"
TIMEOUT = 540
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def notebook(text: str) -> NotebookNode:
    """A document as a notebook that was not executed. Outputs that are shown are left out."""
    cells: list[NotebookNode] = []
    for part in parts(text):
        if isinstance(part, Block):
            made = [v4.new_code_cell(source) for source in _sources(part)]
        else:
            made = [v4.new_markdown_cell(part.strip())] if part.strip() else []
        cells += made
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number}"  # by chance otherwise, and every start would change the file
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return v4.new_notebook(cells=cells, metadata={"kernelspec": kernel, "language_info": {"name": "python"}})


def _sources(block: Block) -> list[str]:
    if block.file is not None:
        return [f"%%writefile {block.file}\n{block.text.rstrip()}"]
    if block.language == "python":
        return [block.text.rstrip()]
    if block.language == "text":
        return []
    cells: list[list[str]] = [[]]
    for command, _ in block.commands:
        if command.startswith("cd "):  # of a shell that ends with its cell nothing would stay there
            cells += [[f"%{command}"], []]
        else:
            cells[-1].append(command)
    return [
        "\n".join(lines if lines[0].startswith("%cd") else ["%%bash -e", *lines]) for lines in cells if lines
    ]


def executed(made: NotebookNode, folder: Path) -> NotebookNode:
    """The notebook with its outputs, less progress and where it was.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell fails.
    """
    client = NotebookClient(
        made,
        timeout=TIMEOUT,
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}},
    )
    done = client.execute(env=environment())
    for cell in done.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
            for output in cell.outputs:
                if "text" in output:
                    output.text = _COLOUR.sub("", output.text).replace(str(folder), "...")
    done.metadata.language_info = {"name": "python"}
    return done


def main() -> None:
    """Make it and write it."""
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else TUTORIAL.with_suffix(".ipynb")
    with tempfile.TemporaryDirectory() as folder:
        done = executed(notebook(TUTORIAL.read_text(encoding="utf-8")), Path(folder).resolve())
    nbformat.write(done, target)


if __name__ == "__main__":
    main()
