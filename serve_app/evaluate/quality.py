"""`make quality`: measure all studies on the development data and write docs/routing-quality.md.

    python -m serve_app.evaluate.quality --out docs/routing-quality.md --ways docs/routing-quality-ways.md [--quick] [--workers 2]

`--results FOLDER` keeps each study's figures there and takes those that are there already.
"""

import argparse
import json
import multiprocessing
import sys
import time
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path

from serve_app.domain import Json
from serve_app.evaluate import quality_costs, quality_plots, studies
from serve_app.evaluate.quality_page import Page, render
from serve_app.evaluate.studies import STUDIES, Study


def main(arguments: list[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    data, started = studies.folder(), time.monotonic()
    only = {name for name in options.only.split(",") if name}
    wanted = [study for study in STUDIES if (study.name in only if only else study.quick or not options.quick)]
    there = [study for study in wanted if not studies.absent(data, study)]
    if not there:
        print(f"quality: none of the development data in {studies.FOLDER_ENV} or ../shared/data/routing: nothing was measured")
        return
    results = measure(there, data, quick=options.quick, workers=options.workers, keep=options.results)
    skipped = [f"{study.title} ({_why(study, wanted)})" for study in STUDIES if study not in there]
    minutes = (time.monotonic() - started) / 60
    kept = "" if options.results is None else " of this call; figures of earlier calls were taken from a folder"
    form = _form(quick=options.quick, everything=len(there) == len(STUDIES))
    each = ", ".join(f"{name} {sum(report['minutes'] for report in found):.1f}" for name, found in results.items())
    how = f"{form}; {minutes:.1f} minutes with {options.workers} processes{kept}. Minutes of each study: {each}.\n"
    pictures = _pictures(results, there, options.out.parent / "images")
    costs = quality_costs.measured(data, there[0], embedder=not options.quick)
    ways = options.ways.read_text(encoding="utf-8")
    page = Page(results, skipped, costs, how, options.quick, ways, pictures, quality_costs.reproduced(data))
    options.out.write_text(render(page, STUDIES), encoding="utf-8")
    print(f"quality: {options.out} written, {len(there)} studies, {minutes:.1f} minutes")


def measure(wanted: list[Study], data: Path, *, quick: bool, workers: int, keep: Path | None) -> dict[str, list[Json]]:
    """Each study in a process of its own, the long ones first; a line on stderr as each ends."""
    found = {study.name: kept for study in wanted if keep is not None and (kept := _kept(keep, study)) is not None}
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        waiting: dict[str, Future[list[Json]]] = {
            study.name: pool.submit(studies.run, study, data, quick=quick) for study in reversed(wanted) if study.name not in found
        }
        for name, future in waiting.items():
            found[name] = future.result()
            print(f"quality: {name} done", file=sys.stderr)
            if keep is not None:
                keep.mkdir(parents=True, exist_ok=True)
                (keep / f"{name}.json").write_text(json.dumps(found[name]), encoding="utf-8")
    return found


def _pictures(results: dict[str, list[Json]], there: list[Study], folder: Path) -> dict[str, str]:
    """Draw each study's first seed; the names of the files, from the page."""
    folder.mkdir(exist_ok=True)
    drawn = {study.name: study.title for study in there if "series" in results[study.name][0]}
    for name, title in drawn.items():
        (folder / f"quality-{name}.svg").write_text(quality_plots.draw(results[name][0]["series"], title), encoding="utf-8")
    return {name: f"images/quality-{name}.svg" for name in drawn}


def _form(*, quick: bool, everything: bool) -> str:
    if quick:
        return "The **reduced** form (`--quick`: one split, no centroids)"
    return "The full form" if everything else "The full form of **some** studies"


def _kept(folder: Path, study: Study) -> list[Json] | None:
    path = folder / f"{study.name}.json"
    return list(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None


def _why(study: Study, wanted: list[Study]) -> str:
    return "its rows are absent" if study in wanted else "left out of this form"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="quality", description="Measure routing quality on the development data.")
    parser.add_argument("--out", type=Path, required=True, help="the page to write")
    parser.add_argument("--ways", type=Path, required=True, help="the prose that is put behind the tables")
    parser.add_argument("--quick", action="store_true", help="two studies, one split, no embeddings: about two minutes")
    parser.add_argument("--only", default="", help="studies by name, with commas between")
    parser.add_argument("--workers", type=int, default=2, help="processes, one thread each")
    parser.add_argument("--results", type=Path, default=None, help="folder that keeps figures, and gives those that it has")
    return parser


if __name__ == "__main__":
    main()
