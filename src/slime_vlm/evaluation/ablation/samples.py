"""What an ablation asks about: rendered pages of several seeds, or a user's own images with their records."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from slime_vlm.data.images import open_stored_image
from slime_vlm.data.opening import open_source
from slime_vlm.errors import DataError
from slime_vlm.evaluation.pages.exact_match import FIRST_SEED, GROUPS
from slime_vlm.pages import ABSENT, Page, PageSettings, make_page, render
from slime_vlm.pages.scaling import scale_page

_PLACEHOLDER = "<image>"
# The pages differ from those of `slime eval pages`, on which nano's defaults were chosen.
_SEEDS_APART = 1_000_000


@dataclass(frozen=True)
class Asked:
    """A question with its answer.

    Attributes:
        text: The question.
        answer: The exact answer.
        group: Group that results are reported by. "absent" for questions about something that is not on the page.
    """

    text: str
    answer: str
    group: str


class Sample(ABC):
    """An image and its questions.

    Attributes:
        id: Name, unique in a run.
        seed: Number of the set of pages that it belongs to, or 1 without sets.
        questions: The questions.
    """

    def __init__(self, name: str, seed: int, questions: list[Asked]) -> None:
        self.id, self.seed, self.questions = name, seed, questions

    @abstractmethod
    def image(self) -> Image.Image:
        """Return the unchanged image, RGB."""

    @abstractmethod
    def rendered(self, side: int) -> Image.Image:
        """Return the same page, rendered with a longest side of `side` pixels."""

    def resized(self, side: int) -> Image.Image:
        """Return the image, resized to a longest side of `side` pixels."""
        image = self.image()
        factor = side / max(image.size)
        size = max(1, round(image.width * factor)), max(1, round(image.height * factor))
        return image.resize(size, Image.Resampling.LANCZOS)


class RenderedPage(Sample):
    """A rendered page."""

    def __init__(self, page: Page, seed: int) -> None:
        groups = [("absent" if question.answer == ABSENT else GROUPS[page.kind]) for question in page.questions]
        asked = [Asked(q.text, q.answer, group) for q, group in zip(page.questions, groups, strict=True)]
        super().__init__(f"{page.kind}-{page.seed}", seed, asked)
        self.page = page

    def image(self) -> Image.Image:
        """See `Sample`."""
        return Image.fromarray(render(self.page))

    def rendered(self, side: int) -> Image.Image:
        """See `Sample`."""
        return Image.fromarray(render(scale_page(self.page, side)))


class RecordSample(Sample):
    """An image of a record in the published format."""

    def __init__(self, name: str, stored: object, root: Path, questions: list[Asked]) -> None:
        super().__init__(name, 1, questions)
        self._stored, self._root = stored, root

    def image(self) -> Image.Image:
        """See `Sample`."""
        return open_stored_image(self._stored, self._root)

    def rendered(self, side: int) -> Image.Image:
        """Raise an error: a scan cannot be rendered. `settings.applicable` leaves such settings out."""
        raise DataError(f"{self.id}: an image cannot be rendered at {side} pixels, expected `resized`")


def rendered_pages(settings: PageSettings, seeds: int, limit: int) -> Iterator[RenderedPage]:
    """Yield pages of all seeds in turn, so that an unfinished run has the same number of each.

    Args:
        settings: Settings of the pages.
        seeds: Number of seeds. Each gives a separate set of pages.
        limit: Number of pages per seed.
    """
    for number in range(limit):
        for seed in range(1, seeds + 1):
            yield RenderedPage(make_page(FIRST_SEED + seed * _SEEDS_APART + number, settings), seed)


def record_samples(records: Path, limit: int | None = None) -> list[RecordSample]:
    """Return the images of records in the published format, each with the questions of its conversation.

    A record has one image. Its turns of `human` and `gpt` are questions and answers. Results are reported by its `kind`
    if it has one.

    Raises:
        DataError: A record does not have exactly one image, or its turns are not questions with answers.
    """
    source = open_source(records)
    samples = []
    seen: set[str] = set()
    for index in range(len(source) if limit is None else min(limit, len(source))):
        record = source[index]
        name = str(index if record.id is None else record.id)
        where = f"{source.name}: record {name!r}"
        if len(record.images) != 1:
            raise DataError(f"{where} has {len(record.images)} images, expected one; leave it out")
        if name in seen:
            raise DataError(f"{where}: two records have this id; repair the data")
        seen.add(name)
        kind = str(record.rest.get("kind", "record"))
        texts = [turn["value"].strip() for turn in record.conversations]
        senders = [turn["from"] for turn in record.conversations]
        if len(texts) % 2 or any(sender != ("human", "gpt")[index % 2] for index, sender in enumerate(senders)):
            raise DataError(f"{where} has turns of {', '.join(senders)}, expected human and gpt in turn")
        questions = [
            Asked(question.replace(_PLACEHOLDER, "").strip(), answer, "absent" if answer == ABSENT else kind)
            for question, answer in zip(texts[::2], texts[1::2], strict=True)
        ]
        samples.append(RecordSample(name, record.images[0], source.images, questions))
    return samples


def row_id(sample: Sample, setting: str, number: int) -> str:
    """Return the id of the prediction for a question about an image under a setting."""
    return f"{sample.id}/{setting}/{number}"
