"""Patterns of questions about fields, tables and documents; `splits` holds out a fifth of every family.

`{k}` stands for a key as asked, `{v}` for a value, `{r}` and `{c}` for a row and a column, `{s}` for a section.
"""

from __future__ import annotations

from slime_vlm.pages.more_wordings import MORE_WORDINGS

FIELD: tuple[str, ...] = (
    "What is the {k}?",
    "What's the {k}?",
    "{k}",
    "{k}?",
    "what {k}",
    "Give the {k}.",
    "Give me the {k}.",
    "Tell me the {k}.",
    "Find the {k}.",
    "Which {k} is shown?",
    "Which {k} is given?",
    "What does it say for {k}?",
    "What does the document say for {k}?",
    "What is stated as {k}?",
    "What is written next to {k}?",
    "What stands beside {k}?",
    "Read out the {k}.",
    "Read the {k}.",
    "I need the {k}.",
    "I'm looking for the {k}.",
    "Please give me the {k}.",
    "Can you tell me the {k}?",
    "Could you find the {k}?",
    "Look up the {k}.",
    "What value does {k} have?",
    "What has been entered for {k}?",
    "Show me the {k}.",
    "the {k} please",
    "What is printed under {k}?",
    "Extract the {k}.",
    "What do you see for {k}?",
    "Value of {k}",
)
"""Any field, by its key."""

BY_KIND: dict[str, tuple[str, ...]] = {
    "money": (
        "How much is the {k}?",
        "How much is {k}?",
        "What amount is given for {k}?",
        "How high is the {k}?",
        "What does the {k} come to?",
        "What sum is stated for the {k}?",
        "How much money is the {k}?",
        "What is the amount of the {k}?",
    ),
    "date": (
        "When is the {k}?",
        "What date is the {k}?",
        "On which date is the {k}?",
        "On what day is the {k}?",
        "Which date is given for {k}?",
        "When was the {k}?",
        "What day is stated as {k}?",
    ),
    "time": (
        "At what time is the {k}?",
        "What time is the {k}?",
        "When is the {k}?",
        "At which time is {k}?",
        "What time is given for {k}?",
    ),
    "person": (
        "Who is the {k}?",
        "Who is named as {k}?",
        "What is the name of the {k}?",
        "Which person is the {k}?",
        "Whose name is given as {k}?",
        "Who is given as {k}?",
    ),
    "company": (
        "Who is the {k}?",
        "Which company is the {k}?",
        "What is the name of the {k}?",
        "Which firm is given as {k}?",
        "What company is named as {k}?",
    ),
    "place": (
        "Where is the {k}?",
        "Which place is the {k}?",
        "In which place is the {k}?",
        "What town is given for {k}?",
        "What place is stated as {k}?",
    ),
    "address": (
        "Where is the {k}?",
        "What address is given for {k}?",
        "Which address is the {k}?",
        "What is the full {k}?",
    ),
    "integer": (
        "How many are given for {k}?",
        "What number is the {k}?",
        "What number is given for {k}?",
        "What count is stated for {k}?",
        "Which number stands at {k}?",
    ),
    "count": (
        "How many {k} are there?",
        "What number is the {k}?",
        "What number is given for {k}?",
        "Which number stands at {k}?",
    ),
    "measure": (
        "How much is the {k}?",
        "What was measured for {k}?",
        "What reading is given for {k}?",
        "How large is the {k}?",
        "Which quantity is stated for {k}?",
    ),
    "percent": (
        "How high is the {k}?",
        "What percentage is the {k}?",
        "How many percent is the {k}?",
        "What share is given as {k}?",
    ),
    "code": (
        "What number is the {k}?",
        "Which code is the {k}?",
        "What is the {k} exactly?",
        "Spell out the {k}.",
        "Which number is given as {k}?",
    ),
    "phone": (
        "Which number do I call for {k}?",
        "What number is the {k}?",
        "Which phone number is given as {k}?",
        "What do I dial for {k}?",
    ),
    "email": (
        "Which address is the {k}?",
        "Where do I write to for {k}?",
        "What e-mail address is the {k}?",
        "Which email is given as {k}?",
    ),
    "duration": (
        "How long is the {k}?",
        "What length of time is the {k}?",
        "How much time is the {k}?",
        "How long does the {k} last?",
    ),
    "state": (
        "What is {k} set to?",
        "How is {k} set?",
        "Which option is chosen for {k}?",
        "What state is {k} in?",
        "What has been selected for {k}?",
    ),
    "word": (
        "Which {k} is stated?",
        "What kind of {k} is it?",
        "What is given as {k}?",
    ),
}
"""Fields of a kind, by their key."""

IN_SECTION: tuple[str, ...] = (
    "What is the {k} under {s}?",
    "What is the {k} in the section {s}?",
    "{s}: {k}?",
    "In {s}, what is the {k}?",
    "Which {k} is given under {s}?",
    "What does {s} say for {k}?",
    "{k} ({s})",
    "Find the {k} in {s}.",
    "Give the {k} listed under {s}.",
)
"""Fields whose key stands on the page more than once, in sections."""

REVERSE: tuple[str, ...] = (
    "What is {v}?",
    "What does {v} stand for?",
    "Which field says {v}?",
    "Which entry has the value {v}?",
    "What is {v} the value of?",
    "To what does {v} belong?",
    "What label does {v} have?",
    "{v} is what?",
    "Which heading belongs to {v}?",
    "What is the {v} here?",
    "Beside which words does {v} stand?",
)
"""The key of a value."""

CELL: tuple[str, ...] = (
    "What is the {c} of {r}?",
    "What is the {c} for {r}?",
    "{c} of {r}",
    "{r}: {c}?",
    "{r} {c}",
    "What does the table give as {c} for {r}?",
    "Which {c} does {r} have?",
    "What is {r}'s {c}?",
    "Give the {c} of {r}.",
    "In the row {r}, what is the {c}?",
    "Look up the {c} for {r}.",
    "What stands in the column {c} for {r}?",
    "Find {r} in the table: what is the {c}?",
    "What is listed as {c} for {r}?",
    "For {r}, what is the {c}?",
)
"""A cell of a table by its row and column."""

CELL_BY_KIND: dict[str, tuple[str, ...]] = {
    "money": (
        "How much is {r}?",
        "How much does {r} cost?",
        "What does {r} cost?",
        "What is the price of {r}?",
        "What do I pay for {r}?",
        "How expensive is {r}?",
        "price of {r}",
    ),
    "count": (
        "How many {r} are listed?",
        "How many of {r} are there?",
        "How many {r}?",
        "How often is {r} listed?",
        "What quantity of {r} is given?",
    ),
    "time": (
        "When is {r}?",
        "At what time is {r}?",
        "What time is {r}?",
        "What time does it say for {r}?",
    ),
    "date": (
        "When is {r}?",
        "On what date is {r}?",
        "What date is given for {r}?",
        "On which day is {r}?",
    ),
    "person": (
        "Who is responsible for {r}?",
        "Who is listed for {r}?",
        "Whose name stands beside {r}?",
        "Which person belongs to {r}?",
    ),
    "place": (
        "Where is {r}?",
        "Which place is listed for {r}?",
        "Where do I find {r}?",
        "Where does {r} take place?",
    ),
    "measure": (
        "How much {r} was found?",
        "What is the result for {r}?",
        "What value was measured for {r}?",
        "How high is {r}?",
    ),
}
"""The one cell of its kind in a row: a price, a count, a time."""

ROW: tuple[str, ...] = (
    "Which row has {v} as {c}?",
    "Which entry has the {c} {v}?",
    "What has the {c} {v}?",
    "For which is the {c} {v}?",
    "Where is the {c} {v}?",
    "Which one has a {c} of {v}?",
    "{c} {v}: which one is it?",
    "Whose {c} is {v}?",
    "Find the entry with {c} {v}.",
)
"""The row of a cell."""

TITLE: tuple[str, ...] = (
    "What is the title?",
    "What is the title of this document?",
    "What is the heading?",
    "What does the largest text say?",
    "What is this document called?",
    "What is printed at the top?",
    "Which title does the page have?",
    "title",
    "Read out the title.",
    "Give the main heading.",
)
"""The title of a document."""

ISSUER: tuple[str, ...] = (
    "Who issued this?",
    "Which company is this from?",
    "Who is this from?",
    "Who sent this?",
    "From whom is this document?",
    "What is the name of the company at the top?",
    "Which firm made this out?",
    "Whose document is this?",
    "company name",
)
"""The firm or body whose name heads a document."""

RECIPIENT: tuple[str, ...] = (
    "Who is this addressed to?",
    "Who is it for?",
    "To whom is this addressed?",
    "Who receives this?",
    "Whom was it sent to?",
    "Who is the recipient?",
    "What is the name of the addressee?",
)
"""The person to whom a document is addressed."""

KIND: tuple[str, ...] = (
    "What kind of document is this?",
    "What type of page is it?",
    "What am I looking at?",
    "What sort of document is shown?",
    "Is this an invoice, a letter, a form or what?",
    "document type",
    "Name the type of this document.",
)
"""The kind of a document, which need not be printed; answers are those of `templates.KIND_NAMES`."""

COLOUR: tuple[str, ...] = (
    "What colour is the page's main colour?",
    "Which colour do the headings have?",
    "What colour is the header?",
    "Which colour stands out?",
    "accent colour",
    "What colour are the titles and rules?",
)
"""The accent colour of a document."""

POSITION: tuple[str, ...] = (
    "Where on the page is the {k}?",
    "In which part of the page do I find the {k}?",
    "Where does the {k} stand?",
    "Which corner is the {k} in?",
    "position of the {k}",
    "Whereabouts on the page is the {k} printed?",
)
"""The ninth of the page that holds a field: "top left", "middle right", "centre" and so on."""

CHART: tuple[str, ...] = (
    "What is the value for {r}?",
    "What is the value of {r}?",
    "Which value does {r} have in the chart?",
    "How high is the bar of {r}?",
    "What does the chart show for {r}?",
    "How much is {r} in the diagram?",
    "Read the figure for {r} off the chart.",
    "{r} in the chart",
)
"""A labelled value of a chart."""

CHART_REVERSE: tuple[str, ...] = (
    "Which bar has the value {v}?",
    "What has the value {v} in the chart?",
    "For which is {v} shown?",
    "Whose value is {v}?",
    "Which part of the chart is {v}?",
)
"""The label of a value in a chart."""

FIRST_WORDINGS: dict[str, tuple[str, ...]] = {
    "field": FIELD,
    **{f"field_{kind}": patterns for kind, patterns in BY_KIND.items()},
    "in_section": IN_SECTION,
    "reverse": REVERSE,
    "cell": CELL,
    **{f"cell_{kind}": patterns for kind, patterns in CELL_BY_KIND.items()},
    "row": ROW,
    "title": TITLE,
    "issuer": ISSUER,
    "recipient": RECIPIENT,
    "kind": KIND,
    "colour": COLOUR,
    "position": POSITION,
    "chart": CHART,
    "chart_reverse": CHART_REVERSE,
}
"""Every family of patterns by name, without `MORE_WORDINGS`."""

FAMILIES: dict[str, tuple[str, ...]] = {
    name: tuple(dict.fromkeys((*patterns, *MORE_WORDINGS.get(name, ())))) for name, patterns in FIRST_WORDINGS.items()
}
"""Every family of patterns by name."""
