"""What fuzz.py does to a project before a command runs in it: a mutation changes one thing and says what it was."""

import csv
import io
import json
import os
import pickle
import random
import shutil
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image

from u2pl.files import sha256_json
from u2pl.settings import fingerprint

SECRET = "s3cr3t-T0KEN"
"""Stands in addresses; no command may print it or write it down."""
PWNED = "pwned"
"""File that code hidden in a YAML file or a pickle would make in the current folder."""
SCRIPT = "<script>alert(1)</script>"
"""Class name that no page may hold as it is."""

Random = random.Random
Mutation = Callable[[Random, Path], str]
"""(rng, file) -> what was done to the file; the folder `odd` beside the project is where names that are paths lead."""

HUGE = 10**30
DEEP = 100_000

# None leads out of the folder of a case, whatever a command does with it: never "/", never more than two folders up.
NAMES = [
    "", " ", "x", ".", "..", "../../x", "a/b", "a/", "a b", "a\nb", "\x1b[31mred", "[bold]x[/red]", "é²ß",
    "\u202e", "-",
    "--set", "nan", "None", "%s{}$HOME`id`", "x" * 300, "a\0b", "con:x*?|<>", "=1+1", "NaN", "\\", "'", '"',
]  # fmt: skip
CLASSES = [
    "[bold]", "[/red]", 'a,b"c', "=1+1", "a|b", "a_b & 50% $x$ #1 {}\\", SCRIPT, "a\nb", "²ü", " ", "'",
    "square/x", "..",
    "nan", "x" * 300, "\t", "mIoU", "class", "\x1b[31m", "*x*", "`x`", "\\textbf{x}", "ground ", "-",
]  # fmt: skip
FOLDERS = [
    "pro ject", "pro'ject", 'pro"ject', "[bold]x[red]", "prö²", "a\nb", os.fsdecode(b"p\xff"), "-rf", "a;b",
    "%s{}", "a#b",
    "a?c", "~", "a,b", "a:b", "a=b", "a%20b", "$HOME", "${item}", "a*b", "a\\b", "&", "runs",
]  # fmt: skip


# ---- files -----------------------------------------------------------------------------------------------


def put(path: Path, data: bytes) -> None:
    """Write a file anew: what lies there may be a link to the template's own."""
    clear(path)
    path.write_bytes(data)


def clear(path: Path) -> None:
    """Remove whatever is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def quoted(value: Any) -> str:
    """A value in a phrase."""
    text = ascii(value)
    return text if len(text) < 80 else f"{text[:60]}... ({len(text)} long)"


def misplaced(rng: Random, path: Path) -> str:
    """Something else lies in the file's place, or half of it, or nothing."""
    data = path.read_bytes() if path.is_file() else b""
    what = rng.choice(list(PLACES))
    PLACES[what](path, data, rng)
    return f"{path.name}: {what}"


def _fifo(path: Path, data: bytes, rng: Random) -> None:
    clear(path)
    os.mkfifo(path)


def _folder(path: Path, data: bytes, rng: Random) -> None:
    clear(path)
    path.mkdir()


def _linked(target: str) -> Callable[[Path, bytes, Random], None]:
    def link(path: Path, data: bytes, rng: Random) -> None:
        clear(path)
        path.symlink_to(target if target != "itself" else path.name)

    return link


PLACES: Mapping[str, Callable[[Path, bytes, Random], None]] = {
    "missing": lambda path, data, rng: clear(path),
    "empty": lambda path, data, rng: put(path, b""),
    "blank": lambda path, data, rng: put(path, b"\n \n"),
    "cut off": lambda path, data, rng: put(path, data[: rng.randrange(len(data) or 1)]),
    "cut off at the front": lambda path, data, rng: put(path, data[rng.randrange(len(data) or 1) :]),
    "noise": lambda path, data, rng: put(path, rng.randbytes(rng.choice([1, 10, 1000]))),
    "zero bytes": lambda path, data, rng: put(path, bytes(len(data) or 10)),
    "a flipped byte": lambda path, data, rng: put(path, _flipped(data, rng)),
    "not UTF-8": lambda path, data, rng: put(path, data[:20] + b"\xff\xfe\xfa" + data[20:]),
    "UTF-16": lambda path, data, rng: put(path, data.decode("latin-1").encode("utf-16")),
    "a byte order mark": lambda path, data, rng: put(path, b"\xef\xbb\xbf" + data),
    "NUL inside": lambda path, data, rng: put(path, data[:10] + b"\0" + data[10:]),
    "line ends of Windows": lambda path, data, rng: put(path, data.replace(b"\n", b"\r\n")),
    "other text": lambda path, data, rng: put(path, b"Hello, this is a letter.\n"),
    "a number": lambda path, data, rng: put(path, b"7\n"),
    "a folder": _folder,
    "a FIFO": _fifo,
    "a link to nothing": _linked("nothing here"),
    "a link to itself": _linked("itself"),
    "a link to /dev/null": _linked("/dev/null"),
}  # fmt: skip


def _flipped(data: bytes, rng: Random) -> bytes:
    if not data:
        return b"\1"
    place = rng.randrange(len(data))
    return data[:place] + bytes([data[place] ^ (1 << rng.randrange(8))]) + data[place + 1 :]


# ---- values in trees -------------------------------------------------------------------------------------


def other(rng: Random, old: Any) -> Any:
    """A value in the place of another one, of its own or of another type."""
    numbers = [0, 1, -1, 2, 0.5, 1e308, float("nan"), float("inf"), -HUGE, HUGE, 10**400, 2**31, 2**63]
    texts = [*NAMES, "\ud800", "../outside/kept", "2026-01-01", "1e-3"]
    trees = [[], {}, [[]], [None], {"": None}, {"a": {"b": {}}}, ["x"] * 3, [1, 2, 3], _nested(50)]
    same = {str: texts, int: numbers, float: numbers, list: trees, dict: trees}.get(type(old), trees)
    return rng.choice(rng.choice([same, [None, True, False], numbers, texts, trees]))


def _nested(depth: int) -> Any:
    tree: Any = []
    for _ in range(depth):
        tree = [tree]
    return tree


def changed(rng: Random, tree: Any, where: str = "") -> tuple[Any, str]:
    """A tree with one place changed, and what was done."""
    if isinstance(tree, dict | list) and tree and (rng.random() < 0.75 or not where):
        tree = dict(tree) if isinstance(tree, dict) else list(tree)
        key: Any = rng.choice(list(tree)) if isinstance(tree, dict) else rng.randrange(len(tree))
        at = f"{where}.{key}".lstrip(".")
        act = rng.choice(["deeper"] * 5 + ["gone", "renamed", "extra"])
        if act == "deeper":
            tree[key], done = changed(rng, tree[key], at)
            return tree, done
        if act == "gone":
            del tree[key]
            return tree, f"{at} is gone"
        name, value = rng.choice(NAMES), other(rng, None)
        if isinstance(tree, list):
            tree.insert(key, value)
        elif act == "renamed":
            tree[name] = tree.pop(key)
            return tree, f"{at} is called {quoted(name)}"
        else:
            tree[name] = value
        return tree, f"{where or 'top'} has {quoted(name)}: {quoted(value)} too"
    value = _tamed(where, other(rng, tree))
    return value, f"{where or 'top'} is {quoted(value)}"


LENGTHY = (
    "epochs",
    "crop",
    "width",
    "representation",
    "batch",
    "queue",
    "queue_background",
    "M",
    "N",
    "images",
)
"""Settings that may not become large: a command that does as it is told would take its time."""


def _tamed(where: str, value: Any) -> Any:
    short = where.rpartition(".")[2]
    is_large = isinstance(value, int | float) and value > 2
    return 2 if short in LENGTHY and is_large else value


def json_file(rng: Random, path: Path) -> str:
    """A JSON file with another value, key or shape."""
    if rng.random() < 0.05:
        put(path, b"[" * DEEP)
        return f"{path.name}: {DEEP} brackets"
    tree, done = changed(rng, json.loads(path.read_text(encoding="utf-8")))
    put(path, json.dumps(tree).encode())
    return f"{path.name}: {done}"


def yaml_file(rng: Random, path: Path) -> str:
    """A YAML file with another value, key or shape, or with what else YAML knows."""
    text = path.read_text(encoding="utf-8")
    if rng.random() < 0.6:
        tree, done = changed(rng, yaml.safe_load(text))
        try:
            text = yaml.safe_dump(tree, allow_unicode=True, sort_keys=False)
        except (yaml.YAMLError, UnicodeError, ValueError):
            text, done = "{", "cut off"
    else:
        name = rng.choice(list(YAML_TEXTS))
        text, done = YAML_TEXTS[name](rng, text), name
    put(path, text.encode("utf-8", "surrogatepass"))
    return f"{path.name}: {done}"


def _in_a_value(word: str) -> Callable[[Random, str], str]:
    """Puts a word in the place of the value of some key."""

    def change(rng: Random, text: str) -> str:
        lines = text.splitlines()
        places = [k for k, line in enumerate(lines) if ":" in line and not line.lstrip().startswith("#")]
        if not places:
            return word
        k = rng.choice(places)
        lines[k] = f"{lines[k].partition(':')[0]}: {word}"
        return "\n".join(lines) + "\n"

    return change


def _twice(rng: Random, text: str) -> str:
    tops = [line for line in text.splitlines() if line[:1].isalpha() and ":" in line] or ["x: 1"]
    return f"{text}\n{rng.choice(tops).partition(':')[0]}: again\n"


BOMB = "&b0 [x, x, x, x, x, x, x, x]\n" + "".join(
    f"more{k}: &b{k} [{', '.join([f'*b{k - 1}'] * 8)}]\n" for k in range(1, 9)
)
YAML_TEXTS: Mapping[str, Callable[[Random, str], str]] = {
    "a key twice": _twice,
    "a tag of Python": _in_a_value(f"!!python/object/apply:os.system ['touch {PWNED}']"),
    "an unknown tag": _in_a_value("!mine {a: 1}"),
    "binary": _in_a_value("!!binary aGVsbG8="),
    "bad binary": _in_a_value("!!binary ä"),
    "a set": _in_a_value("!!set {a, b}"),
    "a date": _in_a_value("2026-01-01"),
    "no date": _in_a_value("2026-13-41"),
    "a bad number": _in_a_value("!!int x"),
    "base 60": _in_a_value("1:30"),
    "an anchor to itself": _in_a_value("&a [*a]"),
    "no such anchor": _in_a_value("*nowhere"),
    "a merge of a number": lambda rng, text: text + "\n<<: 3\n",
    "a list as a key": lambda rng, text: text + "\n? [a, b]\n: 1\n",
    "a number as a key": lambda rng, text: text + "\n7: 1\n",
    "nothing as a key": lambda rng, text: text + "\n~: 1\n",
    "two documents": lambda rng, text: f"{text}\n---\n{text}",
    "a tab": lambda rng, text: text + "\n\tx: 1\n",
    "an open bracket": lambda rng, text: text + "\nx: [1, 2\n",
    "brackets": lambda rng, text: "x: " + "[" * 2000,
    "many aliases": lambda rng, text: f"{text}\nmore: {BOMB}",
    "a list": lambda rng, text: "- a\n- b\n",
    "a control character": _in_a_value('"\x07"'),
    "a huge number": _in_a_value("9" * 5000),
}


def lines_file(rng: Random, path: Path) -> str:
    """A file with a JSON value a line, one of which is another."""
    lines = path.read_text(encoding="utf-8").splitlines() or ["{}"]
    k = rng.randrange(len(lines))
    done = rng.choice(["other", "other", "other", "half", "brackets", "twice", "out of order"])
    if done == "other":
        tree, done = changed(rng, json.loads(lines[k] or "{}"))
        lines[k] = json.dumps(tree)
    elif done == "half":
        lines[k] = lines[k][: len(lines[k]) // 2]
    elif done == "brackets":
        lines[k] = "[" * DEEP
    elif done == "twice":
        lines.insert(k, lines[k])
    else:
        rng.shuffle(lines)
    put(path, ("\n".join(lines) + "\n").encode())
    return f"{path.name}: line {k + 1}: {done}"


def csv_file(rng: Random, path: Path) -> str:
    """A CSV file with another cell or shape."""
    rows = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8")))) or [["a"]]
    done = rng.choice(
        ["cell", "cell", "cell", "heading", "short row", "long row", "heading twice", "no rows", "no heading"]
    )
    k = rng.randrange(len(rows))
    if done in ("cell", "heading"):
        k = 0 if done == "heading" else k
        c = rng.randrange(len(rows[k]) or 1)
        value = rng.choice(["", "nan", "inf", "x", "1e999", "-1", "9" * 400, *NAMES])
        rows[k][c : c + 1] = [value]
        done = f"row {k}, column {c} is {quoted(value)}"
    elif done == "short row":
        rows[k] = rows[k][: len(rows[k]) // 2]
    elif done == "long row":
        rows[k] = [*rows[k], "1", "2"]
    elif done == "heading twice":
        rows[0] = [rows[0][0]] * len(rows[0])
    else:
        rows = rows[:1] if done == "no rows" else rows[1:]
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    put(path, text.getvalue().replace("\0", "").encode("utf-8", "surrogatepass"))
    return f"{path.name}: {done}"


# ---- lists, pictures, checkpoints ------------------------------------------------------------------------


def list_file(rng: Random, path: Path) -> str:
    """A list of names with strange ones in it."""
    names = path.read_text(encoding="utf-8").splitlines() or ["00"]
    done = rng.choice([
        "a name twice", "all twice", "a strange name", "two columns", "a suffix", "a folder before", "absolute",
        "no name",
        "one name", "a comment", "other case", "backwards", "one line",
    ])  # fmt: skip
    k = rng.randrange(len(names))
    changes: dict[str, Callable[[], list[str]]] = {
        "a name twice": lambda: [*names, names[k]],
        "all twice": lambda: names * 2,
        "two columns": lambda: [f"images/{name}.png masks/{name}.png" for name in names],
        "a suffix": lambda: [f"{name}.png" for name in names],
        "a folder before": lambda: [f"../images/{name}" for name in names],
        "absolute": lambda: [f"{path.parent}/images/{name}" for name in names],
        "no name": lambda: [],
        "one name": lambda: [names[k]],
        "a comment": lambda: ["# names", *names],
        "other case": lambda: [name.upper() + " " for name in names],
        "backwards": lambda: names[::-1],
        "one line": lambda: [" ".join(names)],
    }
    if done == "a strange name":
        strange = rng.choice(NAMES)
        names[k] = strange
        done = f"line {k + 1} is {quoted(strange)}"
    else:
        names = changes[done]()
    put(path, ("\n".join(names) + "\n").encode("utf-8", "surrogatepass"))
    return f"{path.name}: {done}"


def picture(rng: Random, path: Path) -> str:
    """A picture of another mode, size or format, or what is none."""
    done = rng.choice(list(PICTURES))
    data = io.BytesIO()
    with Image.open(path) as image:
        image.load()
        PICTURES[done](image, data)
    put(path, data.getvalue())
    return f"{path.parent.name}/{path.name}: {done}"


def _mode(mode: str, suffix: str = "png") -> Callable[[Image.Image, io.BytesIO], None]:
    return lambda image, data: image.convert(mode).save(data, suffix)


def _size(width: int, height: int) -> Callable[[Image.Image, io.BytesIO], None]:
    return lambda image, data: image.resize((width, height), Image.Resampling.NEAREST).save(data, "png")


def _sixteen(image: Image.Image, data: io.BytesIO) -> None:
    Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257).save(data, "png")


def _header(width: int, height: int) -> Callable[[Image.Image, io.BytesIO], None]:
    """The picture, whose header speaks of another size."""

    def write(image: Image.Image, data: io.BytesIO) -> None:
        file = io.BytesIO()
        image.save(file, "png")
        text = file.getvalue()
        head = b"IHDR" + struct.pack(">II", width, height) + text[24:29]
        data.write(text[:12] + head + struct.pack(">I", zlib.crc32(head)) + text[33:])

    return write


def _turned(image: Image.Image, data: io.BytesIO) -> None:
    exif = Image.Exif()
    exif[0x112] = 6
    image.save(data, "png", exif=exif)


PICTURES: Mapping[str, Callable[[Image.Image, io.BytesIO], None]] = {
    "black and white": _mode("1"),
    "grey": _mode("L"),
    "grey and transparent": _mode("LA"),
    "a palette": _mode("P"),
    "colours": _mode("RGB"),
    "transparent": _mode("RGBA"),
    "CMYK": _mode("CMYK", "tiff"),
    "32 bit": _mode("I", "tiff"),
    "floats": _mode("F", "tiff"),
    "Lab": _mode("LAB", "tiff"),
    "16 bit": _sixteen,
    "a JPEG": _mode("RGB", "jpeg"),
    "an animation": lambda image, data: image.convert("P").save(
        data, "gif", save_all=True, append_images=[image.convert("P").rotate(90)]
    ),
    "one pixel": _size(1, 1),
    "a line": _size(200, 1),
    "a column": _size(1, 70),
    "a pixel less": _size(63, 64),
    "larger": _size(300, 200),
    "a header of 60000 x 60000": _header(60000, 60000),
    "a header of 15000 x 10000": _header(15000, 10000),
    "a header of 0 x 64": _header(0, 64),
    "all 200": lambda image, data: Image.new("L", image.size, 200).save(data, "png"),
    "all void": lambda image, data: Image.new("L", image.size, 255).save(data, "png"),
    "turned by EXIF": _turned,
}


def renamed_picture(rng: Random, path: Path) -> str:
    """A picture under a name that is hard to print, or too long for neighbours."""
    names = [
        "[bold]",
        "a\nb",
        os.fsdecode(b"\xff"),
        "-x",
        "x" * 250,
        "é",
        "e\u0301",
        "a b",
        "\x1b[31m",
        ".hidden",
        "a.b.c",
    ]
    name = rng.choice(names)
    path.rename(path.with_name(f"{name}{path.suffix}"))
    return f"{path.parent.name}/{path.name} is called {quoted(name)}"


class _Code:
    def __reduce__(self) -> Any:
        return os.system, (f"touch {PWNED}",)


def checkpoint(rng: Random, path: Path) -> str:
    """A checkpoint with other contents, or code."""
    done = rng.choice([
        "code in a pickle", "code in torch's file", "nothing", "a list", "a tensor", "a number", "a value", "a value",
        "a value", "a value", "NaN in tensors", "other shapes", "no numbers", "integers", "half precision",
        "more tensors", "fewer tensors",
    ])  # fmt: skip
    data = io.BytesIO()
    if done == "code in a pickle":
        pickle.dump({"state": _Code()}, data)
        put(path, data.getvalue())
        return f"{path.name}: {done}"
    if done in ("code in torch's file", "nothing", "a list", "a tensor", "a number"):
        contents = {"nothing": {}, "a list": [1], "a tensor": torch.zeros(3), "a number": 7}
        torch.save(contents.get(done, _Code()), data)
        put(path, data.getvalue())
        return f"{path.name}: {done}"
    content = torch.load(path, map_location="cpu", weights_only=False)
    if done == "a value":
        content, done = _changed_content(rng, content)
    else:
        content = _map_tensors(content, TENSORS[done])
    torch.save(content, data)
    put(path, data.getvalue())
    return f"{path.name}: {done}"


def _changed_content(rng: Random, content: Any, where: str = "") -> tuple[Any, str]:
    if isinstance(content, dict) and content and rng.random() < 0.8:
        key = rng.choice(list(content))
        content = dict(content)
        if rng.random() < 0.25:
            del content[key]
            return content, f"{where}.{key} is gone"
        content[key], done = _changed_content(rng, content[key], f"{where}.{key}")
        return content, done
    value = rng.choice([torch.zeros(2), None, other(rng, content), other(rng, content)])
    return value, f"{where or 'all'} is {quoted(value)}"


def _map_tensors(content: Any, change: Callable[[torch.Tensor], Any]) -> Any:
    if isinstance(content, torch.Tensor):
        return change(content)
    if isinstance(content, Mapping):
        mapped = {key: _map_tensors(value, change) for key, value in content.items()}
        return {key: value for key, value in mapped.items() if value is not TENSORS}
    return content


TENSORS: Mapping[str, Callable[[torch.Tensor], Any]] = {
    "NaN in tensors": lambda tensor: tensor * float("nan") if tensor.is_floating_point() else tensor,
    "other shapes": lambda tensor: torch.zeros((*tensor.shape, 2)),
    "no numbers": lambda tensor: "tensor",
    "integers": lambda tensor: tensor.to(torch.int64),
    "half precision": lambda tensor: tensor.half() if tensor.is_floating_point() else tensor,
    "more tensors": lambda tensor: {"a": tensor, "b": tensor},
    "fewer tensors": lambda tensor: TENSORS if tensor.ndim == 1 else tensor,
}


# ---- words -----------------------------------------------------------------------------------------------

NUMBERS = [
    "0", "-1", "1", "2", "1e9", "nan", "inf", "-inf", "1.5", "9" * 20, "9" * 400, "0x10", "１", "1_000", "+1",
    "1e-400", "true",
    "null", "", " ", "1,2", ",", "[1", "{a: b}", "2026-01-01",
    f"!!python/object/apply:os.system ['touch {PWNED}']", "0.3",
]  # fmt: skip
PATHS = [
    "nothing/x", "params.yaml", "params.yaml/x", "pictures", "runs", "runs/tiny-1_4-u2pl-s0", "../outside",
    "../outside/kept", "odd/fifo", "odd/dangling", "odd/loop", "odd/file", "odd/file/x", "odd/null", "odd/empty",
    "x" * 300, "x/" * 200 + "x", "pictures/images/00.png", "pictures/images", "theirs.pth", "é²[bold]", "a b", "a\nb",
    os.fsdecode(b"\xff"), ".", "..", "~", "lists/labeled.txt", "data/tiny", "runs/tiny-1_4-u2pl-s0/weights.pt",
    "runs/tiny-1_4-u2pl-s0/history.csv", "results/runs", "pictures/tiny.yaml",
]  # fmt: skip
SETTINGS = [
    "lr=nan", "lr=inf", "lr=-1", "lr=1e30", "batch=1", "batch=3", "batch=0", "micro_batch=5", "alpha0=2",
    "alpha0=nan", "width=0",
    "epochs=0", "epochs=-1", "epochs=1.5", "epochs=x", "crop=1", "crop=33", "scale=[2,1]", "scale=[nan,1]",
    "scale=[]", "scale=7",
    "weights=odd/file", "weights=odd/fifo", "weights=pictures", "weights=theirs.pth", "weights=",
    "backbone=vgg", "flavor=x",
    "flavor=released", "precision=float16", "precision=x", "replicas=2", "tau=0", "tau=nan", "r_l=9", "r_h=-1",
    "M=0", "N=0",
    "queue=0", "nothing=1", "u2pl.nothing=1", "recipe.lr", "=1", "x", "lr==1", "lr={a: 1}", "lr=[1", "dropout=nan",
    "momentum=nan", "weight_decay=inf", "poly_power=nan", "ema_decay=nan", "evaluation=x", "checkpoint=best",
    "lr=" + "9" * 400,
    "head_lr_multiplier=1e308", "resize=1e-300", "resize=0.01", "output_stride=4", "negatives=x", "lr=0.02", "a\nb=1",
    "cutmix_probability=7", "eta=nan", "lambda_c=1e39", "evaluation=sliding", "validate_every=0", "seed=1",
]  # fmt: skip
UNKNOWN = ["--nothing", "-x", "--help", "--version", "--", "--seed", "--set", "-", "extra", "é"]

ALONE = ("--workers", "--nproc", "--jobs")
"""Options whose value is a number of processes, which stays small."""


def words(rng: Random, line: list[str]) -> tuple[list[str], str]:
    """The words of a command with one of them changed, gone, or twice."""
    line = list(line)
    options = [k for k, word in enumerate(line) if word.startswith("--")]
    act = rng.choice(["value", "value", "value", "other", "other", "extra", "gone", "twice", "set"])
    if act == "value" and options:
        k = rng.choice(options) + 1
        value = _value_for(rng, line[k - 1])
        line[k : k + 1] = [value]
    elif act == "gone" and len(line) > 1:
        del line[rng.randrange(1, len(line))]
    elif act == "twice" and len(line) > 1:
        k = rng.randrange(1, len(line))
        line.insert(k, line[k])
    elif act == "set" and line[0] in ("train", "ablate", "import"):
        line += ["--set", rng.choice(SETTINGS)]
    elif act == "extra":
        line.insert(rng.randrange(1, len(line) + 1), rng.choice(UNKNOWN))
    else:
        k = rng.randrange(1, len(line) + 1)
        line[k : k + 1] = [rng.choice(rng.choice([PATHS, NAMES, NUMBERS]))]
    line = _with_few_processes([word.replace("\0", "\\0") for word in line])
    return line, "words"


def _value_for(rng: Random, option: str) -> str:
    if option == "--set":
        return rng.choice(SETTINGS)
    paths = ("--root", "--source", "--into", "--out", "--record", "--model", "--weights", "--dataset")
    return rng.choice(
        rng.choice([PATHS, PATHS, NAMES] if option in paths else [NUMBERS, NUMBERS, NAMES, PATHS])
    )


def _with_few_processes(line: list[str]) -> list[str]:
    for k, word in enumerate(line[:-1]):
        if word in ALONE and line[k + 1].strip().lstrip("+").replace("_", "").isdigit():
            line[k + 1] = "2"
    return line


# ---- class names -----------------------------------------------------------------------------------------


DAMAGED = (ValueError, LookupError, TypeError, OSError, RecursionError, yaml.YAMLError, csv.Error)
"""What a file brings about that another mutation has damaged: it stays as it is."""


def rename_class(rng: Random, project: Path) -> str:
    """The class `square` under a name that is hostile to terminals, tables or pages, wherever it stands."""
    name = rng.choice(CLASSES)

    def renamed(text: str) -> str:
        return (
            name
            if text == "square"
            else f"{text[: -len('square')]}{name}"
            if text.endswith("/square")
            else text
        )

    def mapped(tree: Any) -> Any:
        if isinstance(tree, dict):
            return {renamed(key): mapped(value) for key, value in tree.items()}
        if isinstance(tree, list):
            return [mapped(value) for value in tree]
        return renamed(tree) if isinstance(tree, str) else tree

    def rewrite(path: Path) -> None:
        if path.suffix == ".json":
            put(path, json.dumps(mapped(json.loads(path.read_text()))).encode())
        elif path.suffix == ".jsonl":
            lines = (json.dumps(mapped(json.loads(line))) for line in path.read_text().splitlines())
            put(path, "".join(f"{line}\n" for line in lines).encode())
        else:
            text = io.StringIO()
            csv.writer(text, lineterminator="\n").writerows(
                [list(map(renamed, row)) for row in csv.reader(io.StringIO(path.read_text()))]
            )
            put(path, text.getvalue().encode())

    for path in _written(project):
        with suppress(*DAMAGED):
            rewrite(path)
    description = project / "pictures" / "tiny.yaml"
    with suppress(*DAMAGED):
        put(
            description,
            yaml.safe_dump(mapped(yaml.safe_load(description.read_text())), allow_unicode=True).encode(),
        )
    _sign_anew(project)
    return f"class {quoted(name)}"


def _written(project: Path) -> Iterator[Path]:
    for folder in ("data", "runs", "results"):
        for suffix in ("json", "jsonl", "csv"):
            yield from (path for path in (project / folder).rglob(f"*.{suffix}") if path.is_file())


def _sign_anew(project: Path) -> None:
    """Runs know their split by its hash: after a change of the manifest they would all be of other data."""
    signed = {}
    with suppress(*DAMAGED):
        manifest = json.loads((project / "data/tiny/splits/1_4/manifest.json").read_text())
        for path in (project / "runs").glob("*/run.json"):
            run = json.loads(path.read_text())
            run["facts"]["data"] = sha256_json(manifest)
            old, run["fingerprint"] = run["fingerprint"], fingerprint(run["facts"])
            signed[old] = run["fingerprint"]
            put(path, json.dumps(run).encode())
    for path in _written(project):
        text = path.read_text(errors="surrogateescape")
        for old, new in signed.items():
            text = text.replace(old, new)
        put(path, text.encode(errors="surrogateescape"))
