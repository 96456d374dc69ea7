"""`boltzflow compare TARGET`: a flow beside NUTS, tempered SMC and parallel tempering, at equal cost."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from boltzflow import run as runs
from boltzflow.cli.finish import DONE, output
from boltzflow.cli.progress import make_display
from boltzflow.config import make_preset
from boltzflow.densities.from_file import load_target
from boltzflow.errors import InputError
from boltzflow.studies.baselines.compare import Entry, Truth, at_equal_cost, baselines, of_flow, truth_of

_WORDS = {"reverse_ess": "reverse ESS", "r_hat": "R-hat", "acceptance": "acceptance", "temperatures": "temperatures",
          "barrier": "barrier", "beta": "β reached", "trusted": "trusted"}  # fmt: skip


def compare(name: str, options: Mapping[str, int | float], seed: int, preset_name: str, start_std: float) -> int:
    """Trains a flow, gives each peer as many energy evaluations and then as many seconds, prints two tables."""
    if not name:
        raise InputError("say which target to compare on, as in mixture-2 or path/to/file.py:name")
    if not 0 < start_std < float("inf"):
        raise InputError(f"--start-std must be above 0, got {start_std:g}")
    make_preset(preset_name)
    others = baselines()
    loaded = load_target(name, options)
    target, console = loaded.target, output()
    with make_display(console) as display:
        run = runs.fit(
            target, seed=seed, preset=preset_name, name=loaded.name, options=loaded.options, on_progress=display.show
        )
        display.phase("evaluate")
        flow, truth = of_flow(run), truth_of(target)
    tables: tuple[list[Entry], list[Entry]] = ([flow], [flow])
    for method, (peer, smallest) in others.items():
        console.print(Text(f"{method} …"))
        answers = at_equal_cost(peer, smallest, target, seed, start_std, flow.answer.evaluations, flow.answer.seconds)
        for table, (budget, answer) in zip(tables, answers, strict=True):
            table.append(Entry(method, budget, answer))
    _print(console, f"At {flow.answer.evaluations:,} energy evaluations", tables[0], truth)
    _print(console, f"In {flow.answer.seconds:.0f} seconds", tables[1], truth)
    if truth is None:
        sentence = (
            "No exact answer is known of this target: where they disagree, these numbers do not say who is right."
        )
        console.print(Text(sentence), soft_wrap=True)
    return DONE


def _print(console: Console, title: str, entries: Sequence[Entry], truth: Truth | None) -> None:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    headers = ("error of log Z", "of ⟨x⟩", "of ⟨x²⟩") if truth else ("log Z",)
    table.add_column("method")
    for header in (*headers, "evaluations", "seconds", "compiling"):
        table.add_column(header, justify="right")
    table.add_column("how it went")
    for entry in entries:
        answer = entry.answer
        numbers = [f"{value:.2g}" for value in entry.errors(truth)] if truth else [f"{answer.log_z:.6g}"]
        numbers = ["–" if number == "nan" else number for number in numbers]
        table.add_row(
            entry.method, *numbers, f"{answer.evaluations:,}", f"{answer.seconds:.1f}", f"{answer.compile_seconds:.1f}",
            _went(answer.detail),
        )  # fmt: skip
    console.print(table)
    console.print()


def _went(detail: Mapping[str, Any]) -> str:
    if "trusted" in detail:
        return f"not trusted, reverse ESS {detail['reverse_ess']:.3f}"
    return ", ".join(f"{_WORDS.get(name, name)} {value:.3g}" for name, value in detail.items())
