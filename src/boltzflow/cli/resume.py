"""`boltzflow resume DIR`: what an interrupted run still lacks, bit for bit as if nothing had happened."""

from pathlib import Path

from rich.text import Text

from boltzflow import checkpoint, run_folder
from boltzflow.cli.commands import report
from boltzflow.cli.finish import DONE, output
from boltzflow.cli.run import train_and_report
from boltzflow.cli.seeds import train_and_report_seeds
from boltzflow.load_target import LoadedTarget, reload_target
from boltzflow.run_folder import CHECKPOINT, REPORT_JSON, RunRecord, seed_folders


def resume(directory: str) -> int:
    """Trains on from the last snapshot, or measures what is trained; says so where there is nothing left to do."""
    folder = Path(directory)
    if seeds := seed_folders(folder):
        records = {record.seed: record for record in map(run_folder.read_record, seeds)}
        if all(_is_trained(seed) for seed in seeds):
            return _finish([seed for seed in seeds if not (seed / REPORT_JSON).exists()], folder)
        run_folder.check_writable(folder)
        return train_and_report_seeds(_target(next(iter(records.values())), folder), records, folder, resume=True)
    record = run_folder.read_record(folder)
    if _is_trained(folder):
        return _finish([] if (folder / REPORT_JSON).exists() else [folder], folder)
    run_folder.check_writable(folder)
    return train_and_report(_target(record, folder), record, folder, resume=True)


def _is_trained(folder: Path) -> bool:
    return (folder / CHECKPOINT / checkpoint.FILE).exists()


def _finish(unmeasured: list[Path], folder: Path) -> int:
    """Measures what is trained and not yet measured."""
    if not unmeasured:
        output().print(Text(f"{folder} is finished; nothing to resume."), soft_wrap=True)
    return max((report(str(one)) for one in unmeasured), default=DONE)


def _target(record: RunRecord, folder: Path) -> LoadedTarget:
    target = reload_target(record.target, record.options, record.path, record.sha256, where=str(folder))
    return LoadedTarget(target, record.target, dict(record.options), record.path, record.sha256)
