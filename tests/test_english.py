"""Phrases that public text avoids: word order and words that a reader trips on.

Each line is a kind of phrase that was found, not one sentence.
"""

import pathlib
import re

ROOT = pathlib.Path(__file__).parents[1]
# What is found -> what to write in its place.
PHRASES = {
    r"\bmend(s|ed|ing)?\b": "fix",
    r"\b(goes|go) on (from|with|without|bit for bit)\b": "continues",
    r"\b(Tried|Refused|Left out|Shown|Kept) (are|is)\b": "the subject first",
    r"(?<!here\s)\b(is|are) no (?!longer|more|less|larger|such|news)\w+": "is not a",
    r"\bby heart\b": "memorizes",
    r"\bwithout a word\b": "silently",
    r"\bfor free\b": "at no cost",
    r"\bin turns\b": "alternately",
    r"\bmethods of (two|three)\b": "methods with two gradients",
    r"\ba fourth of\b": "a quarter of",
    r"\bso many (of|consecutive|[a-z]+s)\b": "that many, or the number",
    r"\btells (a|an|the|its|how|which|none|nothing|of)\b": "says, returns",
    r"\b(is|are) told (of|that|the|what|when|everything)\b": "receives, is called when",
    r"\bthe other one\b": "the other",
    r"\bone's own\b": "your own",
    r"\bof yours\b": "your",
    r"\b(other|SAM) codes\b": "implementations",
    r"\bgiven again\b": "given a second time",
    r"\bputs? out\b": "returns",
    r"\bcannot tell\b": "does not show",
    r"\bin front\b": "before",
    r"\bstands? around\b": "wraps",
    r"\bbelongs? into\b": "belongs in",
    r"\bhears? of\b": "receives",
    r"\b(of|to) no use\b": "does not help",
    r"\b(farthest|steepest way) up\b": "highest, steepest ascent",
    r"\blaid on\b": "composited on",
    r"\bof (its|their) own kind\b": "a separate type",
    r"\b(is|are) refused by (its|their) names?\b": "the error names it",
    r"\bless apart\b": "closer together",
    r"\bnow and then\b": "periodically",
    r"\banew\b": "again",
    r"\bwho(ever|so)\b": "you, a person who",
    r"\bout of reach\b": "cannot be reached",
    r"\b(stands?|goes) behind\b": "comes after",
    r"\b(held|holds?) (\w+ ){0,3}against (it|every|the)\b": "checked against",
    r"\bgives? (it|them) back\b": "returns",
    r"\b(lies?|lay) (in memory|on (a|the) disk|on (every )?device)\b": "is",
    r"\b(where|how) (\w+ ){0,4}lie\b": "the place of, are",
    r"\bthat which\b": "what, the one that",
    r"\b(needed|given|meant) are\b": "the subject first",
    r"\b(for ever|again and again)\b": "always, repeatedly",
    r"\bbut for\b": "except for",
    r"\bsays? of\b": "predicts, reports about",
    r"\bless (its|the) (mean|loss|part)\b": "minus",
    r"\bunless (it is )?told\b": "by default",
    r"\btakes?( \w+){1,2} by (itself|themselves)\b": "takes the step itself",
    r"\bin silence\b": "silently",
    r"\b(is|are|it) (at|of) another version\b": "written by another version",
    r"\b(a|the) training (of|is|was)\b": "training, a training run",
    r"\bwhich it began with\b|\bto begin with\b": "starts from",
    r"\bsurest (mistakes?|wrong)\b": "most confident",
    r"\bparts? in \$?\\?(rho|lambda|e_k)\b": "the rho term",
    r"\b(has|with) (\w+ )?room\b": "is not tight",
}
FILES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    *(ROOT / "docs").rglob("*.md"),
    *(ROOT / "docs" / "tutorials").glob("*.py"),
    *(ROOT / "sam_jax").rglob("*.py"),
    *(ROOT / "configs").rglob("*.py"),
    *(ROOT / "experiments" / "theory").rglob("*.py"),
]


def found(text):
    """(Line, phrase, advice) of each; a phrase may be broken at the end of a line."""
    flat = re.sub(r"\n[ #]*", lambda gap: "\n" + " " * (len(gap[0]) - 1), text)
    for pattern, advice in PHRASES.items():
        for match in re.finditer(pattern.replace(" ", r"\s+"), flat):
            yield text.count("\n", 0, match.start()) + 1, match[0], advice


def test_finds_what_it_is_for():
    text = "All of it.\nTried\n    # are two, and so many steps of yours."
    assert sorted(found(text))[0][0] == 2
    assert {phrase for _, phrase, _ in found(text)} >= {"so many steps", "of yours"}


def test_public_text_avoids_them():
    lines = [
        f"{path.relative_to(ROOT)}:{line}: {phrase!r}: {advice}"
        for path in FILES
        for line, phrase, advice in found(path.read_text())
    ]
    assert not lines, "\n".join(["", *lines])
