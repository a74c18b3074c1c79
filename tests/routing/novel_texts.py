"""What finds text that is no prompt: `python -m tests.routing.novel_texts`. For the table in docs/calibration.md; a minute of CPU.

Each way's bound is what 98 of 100 golden prompts keep, none of which was fitted on.
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from sklearn.cluster import KMeans

from serve_app.embedding import SentenceEmbedder
from serve_app.evaluate import labelled
from serve_app.routing import novelty
from serve_app.settings import NoveltySettings, parse

ROWS = 400  # of each part: embedding them takes most of the time
RANDOM = np.random.default_rng(0)
LETTERS = "".join(chr(97 + number) for number in range(26))
WORDS = " ".join("".join(RANDOM.choice(list(LETTERS), RANDOM.integers(3, 9))) for _ in range(30))
TEXTS = (
    *(
        "qwzx vvkq jjxq zzpt",
        "ATCGGGATTACCAGGATCCA" * 20,
        "4f 3a 9c 00 ff 12 " * 30,
        "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIx" * 4,
    ),
    *("0,1,2,3\n4,5,6,7\n" * 20, "<xml><a b='1'/><c/></xml>" * 10),
    *("....", "\U0001f98a" * 3, "A" * 24, "x" * 3000, "1", "SELECT", "\u200b" * 3, "\u00c4\u00d6\u00dc \u00df\u00df\u00df"),
    *("e2e4 e7e5 g1f3 b8c6 f1b5 a7a6 b5a4", "G: | C  G | Am F |", "MOV AX, 1 INT 21h JMP 0x100 " * 5, WORDS),
    *("\u1230\u120b\u121d \u12a5\u1295\u12f4\u1275 \u1290\u1205 \u12db\u122c", "\u10d2\u10d0\u10db\u10d0\u10e0\u10ef\u10dd\u10d1\u10d0"),
    *("lorem ipsum dolor sit amet consectetur adipiscing elit", "O\u02bbzbekiston haqida gapirib bering iltimos"),
    "".join(map(chr, RANDOM.integers(33, 123, 300))),
    '192.168.0.1 - - [10/Oct/2000:13:55:36] "GET /a.gif HTTP/1.0" 200 2326\n' * 8,
)
Vectors = npt.NDArray[np.float32]
Distance = Callable[[Vectors], npt.NDArray[np.float64]]


def found(of_golden: Sequence[float] | npt.NDArray[np.float64], of_texts: Sequence[float] | npt.NDArray[np.float64]) -> str:
    bound = float(np.percentile(of_golden, 98.0))
    return f"{sum(value > bound for value in of_texts)} of {len(TEXTS)}"


def main() -> None:
    fit, golden = ([row.prompt for row in part][:ROWS] for part in labelled.split(labelled.packaged()))
    model = SentenceEmbedder(parse({"profile": "local"}).embedder)
    rows, held_out, texts = (np.stack(model.encode([text[:2048] for text in part])) for part in (fit, golden, TEXTS))
    centres = KMeans(64, n_init=4, random_state=0).fit(rows)
    ways: dict[str, Distance] = {
        "MiniLM, nearest of 64 centres": lambda some: centres.transform(some).min(axis=1),
        "MiniLM, nearest fitted row": lambda some: 1.0 - (some @ rows.T).max(axis=1),
        "MiniLM, mean of 20 nearest rows": lambda some: 1.0 - np.sort(some @ rows.T, axis=1)[:, -20:].mean(axis=1),
    }
    for name, distance in ways.items():
        print(f"{name}: {found(distance(held_out), distance(texts))}")
    familiar = novelty.fit(fit, seed=0)
    assert familiar is not None
    ours, theirs = ([familiar.novelty(text) for text in part] for part in (golden, TEXTS))
    print(f"hand features and rarity: {found(ours, theirs)}")
    above = NoveltySettings().above
    marked = (sum(value > above for value in some) for some in (theirs, ours))
    print(f"marked (above {above}): {next(marked)} of {len(theirs)} texts, {next(marked)} of {len(ours)} golden prompts")


if __name__ == "__main__":
    main()
