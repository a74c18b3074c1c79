"""Make every checkpoint anew: `python -m serve_app.demo.make [llama] [router]`; without a name, both."""

import sys

from serve_app.demo import make_llama, make_router
from serve_app.demo.dialogues import load


def main(wanted: list[str]) -> None:
    """Make what `wanted` names, the chat models first; all of them share one tokenizer."""
    if unknown := set(wanted) - {"llama", "router"}:
        sys.exit(f"unknown: {', '.join(sorted(unknown))}; there are llama and router")
    if "llama" in wanted or not wanted:
        make_llama.make()
    if "router" in wanted or not wanted:
        make_router.make(make_llama.tokenizer_of(load(make_llama.SEED)))


if __name__ == "__main__":
    main(sys.argv[1:])
