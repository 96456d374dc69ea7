"""`boltzflow resume DIR`: what an interrupted run still lacks, bit for bit as if nothing had happened."""

from collections.abc import Sequence
from pathlib import Path

from rich.text import Text

from boltzflow.cli.commands import report
from boltzflow.cli.finish import output, standing
from boltzflow.cli.seeds import conclude_seeds, train_and_report_seeds
from boltzflow.cli.train import train_and_report
from boltzflow.densities.from_file import LoadedTarget, reload_target
from boltzflow.report.report import Report
from boltzflow.storage import run_folder
from boltzflow.storage.run_folder import CHECKPOINT, REPORT_JSON, RunRecord, seed_folders
from boltzflow.training import checkpoint


def resume(directory: str) -> int:
    """Trains on from the last snapshot, or measures what is trained; says so where there is nothing left to do."""
    folder = Path(directory)
    if seeds := seed_folders(folder):
        records = {record.seed: record for record in map(run_folder.read_record, seeds)}
        if all(_is_trained(seed) for seed in seeds):
            _measure(seeds, folder)
            reports = {int(seed.name[5:]): _report_of(seed) for seed in seeds}
            return conclude_seeds(reports, {}, folder, output())
        run_folder.check_writable(folder)
        return train_and_report_seeds(_target(next(iter(records.values())), folder), records, folder, resume=True)
    record = run_folder.read_record(folder)
    if _is_trained(folder):
        _measure([folder], folder)
        return standing(folder, output())
    run_folder.check_writable(folder)
    return train_and_report(_target(record, folder), record, folder, resume=True)


def _is_trained(folder: Path) -> bool:
    return (folder / CHECKPOINT / checkpoint.FILE).exists()


def _measure(trained: Sequence[Path], folder: Path) -> None:
    """Measures what is trained and not yet measured."""
    unmeasured = [one for one in trained if not (one / REPORT_JSON).exists()]
    if not unmeasured:
        output().print(Text(f"{folder} is finished; nothing to resume."), soft_wrap=True)
    for one in unmeasured:
        report(str(one))


def _report_of(folder: Path) -> Report:
    return Report.from_json((folder / REPORT_JSON).read_text(encoding="utf-8"))


def _target(record: RunRecord, folder: Path) -> LoadedTarget:
    target = reload_target(record.target, record.options, record.path, record.sha256, where=str(folder))
    return LoadedTarget(target, record.target, dict(record.options), record.path, record.sha256)
