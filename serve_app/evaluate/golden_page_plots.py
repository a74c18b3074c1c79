"""The plots of a golden run's page."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from serve_app.domain import Tier
from serve_app.evaluate.golden_live import Found
from serve_app.evaluate.golden_live_answers import Answer, Arm, Receipt
from serve_app.evaluate.golden_live_figures import EVERYTHING
from serve_app.evaluate.html_report_plots import BOTH, INK, LARGE, SMALL

Draw = Callable[[Axes], None]
SHARES = np.linspace(0, 1, 200)


def latency(found: Found) -> Draw:
    return _distribution(found, "seconds to the end of the answer", lambda one: one.seconds)


def first_token(found: Found) -> Draw:
    return _distribution(found, "seconds to the first token", lambda one: one.seconds if one.first_token is None else one.first_token)


def _distribution(found: Found, says: str, value: Callable[[Answer], float]) -> Draw:
    def draw(axes: Axes) -> None:
        for name, colour, style, answers in _lines(found):
            if answers:
                axes.plot(np.quantile([value(one) for one in answers], SHARES), SHARES, color=colour, ls=style, label=name)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel(says)
        axes.set_ylabel("share of requests")
        axes.set_ylim(0, 1)
        axes.legend(loc="lower right")

    return draw


def _lines(found: Found) -> list[tuple[str, str, str, Sequence[Answer]]]:
    routed = list(found.run.of(Arm.ROUTED).values())

    def of(tier: Tier) -> list[Answer]:
        return [one for one in routed if one.receipt is not None and one.receipt.tier is tier]

    return [
        ("routed, small", SMALL, "-", of(Tier.SMALL)),
        ("routed, large", LARGE, "-", of(Tier.LARGE)),
        ("routed", INK, "-", routed),
        ("all large", BOTH, "--", list(found.run.of(Arm.ALL_LARGE).values())),
    ]


def ratios(found: Found) -> Draw:
    def draw(axes: Axes) -> None:
        names = list(next(iter(found.figures.ratios.values())))
        for shift, (which, measures) in enumerate(found.figures.ratios.items()):
            colour, label = (INK, "all prompts") if which == EVERYTHING else (SMALL, "those sent small")
            places = [len(names) - number - 0.25 * shift for number in range(len(names))]
            points = [measures[name] for name in names]
            axes.hlines(places, [one.low for one in points], [one.high for one in points], color=colour, lw=1.6)
            axes.plot([one.value for one in points], places, "o", color=colour, ms=4, label=label)
        axes.set_yticks([len(names) - number for number in range(len(names))], names)
        axes.axvline(1.0, color=INK, lw=1, ls=":")
        axes.set_xlim(left=0)
        axes.set_xlabel("routed / all large")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2)

    return draw


def scores(found: Found) -> Draw:
    def draw(axes: Axes) -> None:
        told = {name: one.receipt for name, one in found.run.of(Arm.ROUTED).items() if one.receipt is not None}
        parts = [[one for row in found.rows if row.expected_tier is tier and (one := _score(told, row.id)) is not None] for tier in Tier]
        bins = np.linspace(0, 1, 41).tolist()
        axes.hist(parts, bins=bins, stacked=True, color=[SMALL, LARGE], label=["labelled small", "labelled large"], alpha=0.85)
        thresholds = {one.threshold for one in told.values() if one.threshold is not None and one.score is not None}
        if len(thresholds) == 1:
            (threshold,) = thresholds
            axes.axvline(threshold, color=INK, lw=1.2, ls="--", label=f"threshold {threshold:g}")
        axes.set_xlabel("score")
        axes.set_ylabel("prompts")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlim(0, 1)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0.2)

    return draw


def _score(told: Mapping[str, Receipt], name: str) -> float | None:
    return told[name].score if name in told else None


def cost(found: Found) -> Draw:
    """Shares of all large: the two views differ by orders of magnitude."""

    def draw(axes: Axes) -> None:
        bars = _bars(found)
        axes.barh([name for name, _, _ in bars], [value for _, value, _ in bars], color=[colour for *_, colour in bars], height=0.6)
        for number, (_, value, _) in enumerate(bars):
            axes.text(value, number, f" {value:.0%}", va="center")
        axes.invert_yaxis()
        axes.set_xlim(0, 1.12 * max((value for _, value, _ in bars), default=1.0))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axes.set_xlabel("of the same prompts all large")

    return draw


def _bars(found: Found) -> list[tuple[str, float, str]]:
    one, fleet = found.figures.dollars, found.figures.fleet_saved
    bars = [] if one.saved is None else [("token prices, measured", 1 - one.saved.value, SMALL)]
    bars += [] if one.saved_same_tokens is None else [("token prices, same tokens", 1 - one.saved_same_tokens, SMALL)]
    bars += [("instance-hours", 1 - fleet.value, BOTH)] if fleet is not None else []
    return [*bars, ("all large", 1.0, LARGE)]
