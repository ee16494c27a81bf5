"""Join a reader and the language side of a page model to a checkpoint that `slime ask` takes.

python scripts/join_reader.py runs/reader runs/words runs/recogniser runs/joined --max-tiles 40 --budget 128
slime ask page.png --model runs/joined -q "What is the amount due?"
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from slime_vlm.errors import SlimeError
from slime_vlm.training.pages.join import join_folders


def main() -> None:
    """Parse the command line and write the checkpoint."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("reader", type=Path, help="folder that train_reader.py wrote")
    parser.add_argument("words", type=Path, help="folder that train_words.py wrote")
    parser.add_argument("encoder", type=Path, help="folder that convert_recogniser.py wrote")
    parser.add_argument("out", type=Path, help="folder to write, new or empty")
    parser.add_argument("--view", type=int, default=304, help="side of a view in pixels, as in train_reader.py")
    parser.add_argument("--cell", type=int, default=24, help="side of a cell in pixels")
    parser.add_argument("--margin", type=int, default=8, help="pixels that a view shows beyond its tile")
    parser.add_argument("--heads", type=int, default=4, help="heads of the language model")
    parser.add_argument("--unguided", action="store_true", help="train_words.py had --unguided")
    parser.add_argument("--max-tiles", type=int, default=40, help="most tiles of an image")
    parser.add_argument("--budget", type=int, help="most local tokens that a question reads; none reads the selector's")
    parser.add_argument("--top-p", type=float, help="probability mass of local tokens that a question reads")
    parser.add_argument("--trust", type=float, default=1.0, help="how many times as much the answer finder is believed")
    parser.add_argument("--refusal-bias", type=float, default=0.0, help='added to the logit of "not on this page"')
    parser.add_argument("--both", action="store_true", help="add a global view, whose adapters are new and untrained")
    options = parser.parse_args()
    fields: dict[str, Any] = {} if options.budget is None else {"max_local_tokens": options.budget}
    if options.top_p is not None:
        fields["selector_top_p"] = options.top_p
    try:
        join_folders(
            options.reader,
            options.words,
            options.encoder,
            options.out,
            view_size=options.view,
            cell=options.cell,
            margin=options.margin,
            heads=options.heads,
            guided=not options.unguided,
            views="both" if options.both else "local",
            max_tiles=options.max_tiles,
            refusal_bias=options.refusal_bias,
            trust=options.trust,
            **fields,
        )
    except SlimeError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
