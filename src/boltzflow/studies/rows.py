"""Rows of measurements in a JSON file, one row a line: `{"rows": [...]}`, after other entries where there are any."""

import json
from pathlib import Path
from typing import Any

from boltzflow.errors import InputError
from boltzflow.storage.files import write_text

Row = dict[str, Any]


class Rows:
    """The rows of one file; a missing file has none, and a file of something else raises `InputError`."""

    def __init__(self, path: Path):
        self.path = path
        self.head: dict[str, Any] = {}  # the other entries of the file
        self.rows: list[Row] = []  # in the order of writing
        if path.exists():
            try:
                self.head = json.loads(path.read_text(encoding="utf-8"))
                self.rows = self.head.pop("rows")
            except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
                raise InputError(f"{path} is no file of results ({error!r}); move it away") from None

    def find(self, **values: Any) -> Row | None:
        """The first row with these entries, or None."""
        return next((row for row in self.rows if all(row.get(name) == values[name] for name in values)), None)

    def put(self, row: Row, *names: str) -> None:
        """Appends a row, removes the rows that equal it in the entries `names`, and writes the file."""
        self.rows = [other for other in self.rows if any(other.get(name) != row[name] for name in names)] + [row]
        self.write()

    def write(self) -> None:
        """Writes the whole file: an interruption leaves the old one or the new one."""
        lines = ",\n".join(json.dumps(row, allow_nan=False, ensure_ascii=False) for row in self.rows)
        head = "".join(f"{json.dumps(name)}: {json.dumps(value, indent=1)},\n" for name, value in self.head.items())
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_text(self.path, f'{{{head}"rows": [\n{lines}\n]}}\n')
