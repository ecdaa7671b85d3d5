"""`mmdg data`: is a tree of data sets what the benchmark's lists say it is?"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

if TYPE_CHECKING:
    from mmdg_model.training.verification import ListReport, OverlapReport, Verification

#: Paths printed for people, a list; `--json` gives them all.
_SHOWN = 10


def register(app: typer.Typer) -> None:
    """Add the commands to `mmdg`."""
    data = typer.Typer(no_args_is_help=True, help="The benchmark's data sets on disk: check them against its lists.")
    data.callback()(_group)
    data.command("verify")(verify_command)
    app.add_typer(data, name="data")


def _group() -> None:
    """The benchmark's data sets on disk: check them against its lists."""


def verify_command(
    root: Annotated[Path, typer.Argument(metavar="ROOT", help="data root: holds CASIA-SURF-CROP, CeFA, WMCA-Image and "
                                                              "the .npz files of PADISI-Face")],
    lists: Annotated[Path, typer.Option(metavar="DIR", help="folder of the lists: C-train.txt and so on")],
    domain: Annotated[list[str] | None, typer.Option(help="S, C, W or P; all four by default; may be repeated")] = None,
    metadata: Annotated[Path | None, typer.Option(metavar="FILE", help="CSV of subjects and attacks where paths do not "
                                                                       "tell, such as PADISI-Face's ground "
                                                                       "truth")] = None,
    files: Annotated[bool, typer.Option("--files/--no-files", help="decode every file, or only read the lists")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON line")] = False,
) -> None:
    """Check a tree of data sets: labels, duplicates, missing and unreadable files, agreement with the public counts.

    Exit codes: 0 all as it should be, 1 something is not (each thing is printed), 2 wrong usage.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from mmdg_model.training.manifests import read_metadata
    from mmdg_model.training.samples import PUBLIC_DOMAINS, Domain, ManifestError
    from mmdg_model.training.verification import verify

    for letter in domain or ():
        if letter not in list(Domain):
            raise typer.BadParameter(f"{letter!r}, expected one of {', '.join(Domain)}", param_hint="--domain")
    for path, name in ((root, "ROOT"), (lists, "--lists")):
        if not path.is_dir():
            raise typer.BadParameter(f"{path} is no folder", param_hint=name)
    console = Console(stderr=True)
    try:
        with Progress(TextColumn("samples"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console,
                      transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task("samples", total=None)
            report = verify(root, lists, domains=[Domain(letter) for letter in dict.fromkeys(domain or PUBLIC_DOMAINS)],
                            metadata=read_metadata(metadata) if metadata else None, check_files=files,
                            on_progress=lambda done, total: progress.update(task, completed=done, total=total))
    except ManifestError as error:
        console.print(f"error: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        raise typer.Exit(1) from error
    sys.stdout.write(json.dumps(report.to_dict()) + "\n" if as_json else _described(report))
    if not report.passed:
        raise typer.Exit(1)


def _described(report: Verification) -> str:
    lines = ["a SIMULATED tree; its lists are compared with what it states itself"] if report.simulated else []
    lines += [line for each in report.lists for line in _list_lines(each, simulated=report.simulated)]
    lines += [line for each in report.overlaps for line in _overlap_lines(each)]
    looked = f"{report.files_checked} files named" if report.files_checked else "no file was looked at"
    lines.append(f"{'all as it should be' if report.passed else 'not all as it should be'}; {looked}"
                 f"{' (simulated)' if report.simulated else ''}")
    return "\n".join(lines) + "\n"


def _list_lines(report: ListReport, *, simulated: bool) -> list[str]:
    if report.counts is None:
        return [f"{report.list_name}: {report.error}"]
    counts, expected = report.counts, report.expected
    source = "stated" if simulated else "published"
    verdict = f"as {source}" if report.agrees else (
        f"NOT as {source}: {expected.lines} lines, {expected.live} live, {expected.spoof} spoof, "
        f"{expected.duplicates} duplicates")
    unknown = f", and {report.unknown_subjects} lines of unknown subjects" if report.unknown_subjects else ""
    lines = [(f"{report.list_name}: {counts.lines} lines, {counts.live} live, {counts.spoof} spoof, "
              f"{counts.duplicates} duplicates; {verdict}"),
             f"  species   {', '.join(f'{name} {count}' for name, count in report.species.items())}",
             f"  subjects  {report.num_subjects}{unknown}"]
    for kind in dict.fromkeys(trouble.kind for trouble in report.troubles):
        counted = ", ".join(f"{modality} {count}" for modality, count in report.num_troubles(kind).items())
        lines.append(f"  {kind:9} {counted}")
    lines += [f"    {trouble}" for trouble in report.troubles[:_SHOWN]]
    if len(report.troubles) > _SHOWN:
        lines.append(f"    and {len(report.troubles) - _SHOWN} more; --json lists all")
    return lines


def _overlap_lines(report: OverlapReport) -> list[str]:
    first, second = report.lists
    found = [(f"{len(report.names)} samples" + (" (as published)" if len(report.names) == report.expected else ""),
              report.names),
             (f"{len(report.subjects)} subjects", report.subjects),
             (f"{len(report.same_pictures)} pictures under two names",
              tuple(" = ".join(pair) for pair in report.same_pictures))]
    return [f"{first} and {second} share {what}: {', '.join(names[:_SHOWN])}{', ...' if len(names) > _SHOWN else ''}"
            for what, names in found if names]
