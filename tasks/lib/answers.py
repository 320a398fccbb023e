r"""How models dress an answer, and the answer without it: one grammar for all families. Standard library only.

The helpers beside this file load it by its path, for lm-eval gives them no package to import from.

1. What is read: the text after thinking (thinking that does not end is no answer), without special tokens. The first
   line answers. One that only announces ("Answer:", "Here is the list:", a code fence) is passed over. Where the first
   line is no answer, a later one that is announced as the answer is it ("Answer: ...", "\boxed{...}"). A line that
   begins as prompts do ("Sentence: ...") is another question, and ends what is read.
2. Dress is no part of an answer: quotes, Markdown, brackets, fences, LaTeX, a pair of XML tags, a JSON object of one
   pair, emoji, a bullet, a final stop. Nor is what joins the words of a label: "in-claim", "IN_CLAIM", "InClaim".
3. A lead may announce it: "Sure!", "Based on ...,", a noun of ``_NOUNS`` with "is" or a colon, "it is". Words of
   opinion ("I think", "probably") are no lead.
4. After it: nothing, its noun ("positive sentiment"), "is correct", or "because" or a stop, comma, colon, dash or
   bracket and a reason. A reason that begins with "or", "perhaps" or "I think", that is a question of few words, or no
   more than a denial ("positive? no", "positive: false", "B. This is the wrong answer."), takes the answer back, and
   so does a denial in a later line. A number alone after a label is how likely it is, and no reason.
5. One answer: a line that names two is none, whatever it says of them; nor is one that a later line contradicts
   ("Actually, negative.").
"""

import functools
import itertools
import json
import operator
import re
import unicodedata
from collections.abc import Callable, Collection, Sequence
from typing import Any

# a line -> (its answer, whether it is announced; None if it may be of something else), or None
Read = Callable[[str], tuple[Any, bool | None] | None]

LONGEST_LINE = 4_000  # characters; a longer line is no answer
_READ = 20_000  # characters in which lines are looked for
_LINES = 200

# ---------------------------------------------------------------- words of a lead

MARKS = " \t\"'`*_#[{“”‘’«»•="  # before an answer of any kind
_WORD_MARKS = MARKS + "\r\n(<>:.-"  # before words; of a number brackets, signs and points are a part
_COURTESY = r"(?:sure|certainly|of course|okay|ok|alright)"
_NOUN = (
    r"(?:(?:overall|final|correct|right|best|predicted|financial|sentiment|entity|us-gaap|xbrl|numerical|computed|"
    r"calculated|(?:most )?appropriate)\s+)*(?:answer|label|class|classification|category|sentiment|tone|stance|"
    r"polarity|type|score|rating|value|figure|number|amount|result|ratio|tag|concept|element|formula|option|choice|letter|"
    r"response|output|prediction|entities|list|json(?: list)?)"
)
_OF = (
    r"(?:\s+(?:here|(?:(?:expressed|conveyed) )?(?:of|for|in) (?:(?!not? )[\w-]+ ){0,5}[\w-]+|"
    r"(?:of|for) [\"“'][^\"”]{1,100}[\"”']))"
)
_TEXT = r"(?:(?:given|financial|news)\s+)*(?:sentence|headline|statement|text|tweet|post|news|article|message)"
_AS = r"(?:best )?(?:classified|categori[sz]ed|label?led|described|rated) as"
_IS = rf"(?:(?:is|are|was|were)(?: {_AS})?|(?:can|should) be {_AS}|equals)"
_LEAD = re.compile(
    rf"(?i)(?P<courtesy>{_COURTESY}\s*[!,.:]\s*|(?:based on|according to|given (?!that\b)) ?[^,.:;?!]{{1,100}},\s*|"
    r"(?:so|thus|therefore|hence|overall)(?:[,:]\s*|\s+(?=the\s|it\s))|"
    r"here(?:['’]s| is) (?=(?:the|my) )|in (?:one word|short|summary|conclusion)[,:]\s*)|"
    rf"(?:(?:the|this|its?|my)\s+)?(?:{_TEXT}['’]s\s+)?{_NOUN}[*_\"'`]*{_OF}{{0,2}}[*_\"'`]*\s*"
    rf"(?:{_IS}(?:\s*:|\b)|(?P<copula>:|=|→|->|≈|-(?!\d)|–(?!\d)))\s*:?\s*|"
    r"(?:it|this|that)(?:['’]s| is)\s+|(?:option|choice|letter|answer)\s+(?=\(?[a-z]\b)|"
    rf"(?:the|this)\s+{_TEXT}\s+(?:{_IS}|has|expresses|conveys|shows)\s+|"
    r"(?<=[\"“])[^\W\d][^\"”]{0,99}[\"”]\s+(?:is|refers to)\s+"
    rf"(?=an?\s(?!(?:[\w-]+\s){{0,2}}(?:{_NOUN}|fit|match|description|reading|one)\b))|"
    r"i(?:['’]d| would)? (?:(?:classify|categori[sz]e|label|rate) (?:this|it|the \w+(?: of this \w+)?)(?: \w+)? as|"
    r"give (?:this|it) an? (?:\w+ )?score of|choose|pick|select)\s+"
)
_LEADS = 4
_ARTICLE = re.compile(r"(?:an?|the)\s+(?=[\w\"'*`])", re.IGNORECASE)
_ANNOUNCEMENT = re.compile(
    rf"(?i)(?!.*\b(?:not|no|never|wrong|incorrect|possible)\b)[\s*_#>]*(?:{_COURTESY}[\s!,.:*_]*)?"
    r"(?:(?:here (?:is|are)|here['’]s|below (?:is|are)) [^.?!:]{1,120}:|"
    r"the [\w ,'’-]{1,80} (?:is|are|contains [\w ]{1,40}):|"
    r"(?:the )?(?:following )?entities [^.?!:]{0,80}:|"
    rf"(?:(?:the|my)\s+)?{_NOUN}{_OF}{{0,2}}[\s*_]*(?:{_IS})?[\s*_:]*)?[\s*_]*"
)
_FENCE = re.compile(r"(?:```|~~~) ?[\w+-]{0,20} ?")
_TAG = re.compile(rf"</?(?:{_NOUN})>", re.IGNORECASE)
_PAIR = re.compile(r"<([A-Za-z][\w-]{0,20})>\s*(.*?)\s*</\1>\s*(.*)")
_HTML = frozenset(("b", "i", "u", "em", "strong", "code", "p", "span", "div", "mark"))
_FIELD = re.compile(
    r"(?i)[\s*#>_]*(?:sentence|headline|post|news|tweet|question|input|instruction|context|passage|term)\b[\s*_]*:"
)

# ---------------------------------------------------------------- what is read

_ENDS = re.compile(r"(?:\s?(?:</s>|<eos>|<\|[^<>|]{1,30}\|>))+\s?$")  # special tokens that an engine has left in
_TAIL_OF = 200  # characters in which they are looked for
_UNSEEN = "\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"  # zero-width characters and byte order marks around it


def said(answer: str) -> str:
    """The answer without the thinking before it (thinking that does not end is no answer) and what is not text."""
    _, end, rest = answer.rpartition("</think>")
    rest = rest if end else "" if answer.lstrip().startswith("<think>") else answer
    return (rest[:-_TAIL_OF] + _ENDS.sub("", rest[-_TAIL_OF:])).strip(_UNSEEN)


def lines(answer: str, working: bool = False) -> list[str]:
    """The lines that may answer, undressed, with single spaces: no fence, nothing from another question on.

    ``working``: equations before a box of LaTeX are no part of its line.
    """
    found: list[str] = []
    for line in said(answer).strip()[:_READ].splitlines()[:_LINES]:
        if len(line) > LONGEST_LINE or _FIELD.match(line):
            break
        line = undressed(" ".join(line.split()), working)
        if line and not _FENCE.fullmatch(line) and not _TAG.fullmatch(line):
            found.append(line)
    return found


_TURN = re.compile(
    r"(?i)(?:actually|correction|no|wait|sorry|hmm+|or|maybe|perhaps|rather|on second thought|scratch that|"
    r"alternatively|edit|update)\b[\s,.:!…—-]*"
)


def one(
    answer: str,
    read: Read,
    same: Callable[[Any, Any], bool] = operator.eq,
    working: bool = False,
    deniable: Callable[[Any], bool] = bool,
) -> Any:
    """The only answer that the lines of ``answer`` give, or None.

    ``same``: whether two answers are one. ``deniable``: whether a later line that only denies takes an answer back.
    """
    found = lines(answer, working)
    while len(found) > 1 and _ANNOUNCEMENT.fullmatch(found[0]) and read(found[0]) is None:
        found = found[1:]
    given = [read(found[0]), *(_turned(line, read) for line in found[1:])] if found else []
    first = next(iter(given), None)
    others = [item for item in given[1:] if item is not None and item[1] is not None]
    if first is None or (first[1] is None and len(given) > 1):  # a line of working
        others = [item for item in others if item[1]]
        first = next(iter(others), None)
    if first is None or not all(same(item[0], first[0]) for item in others):
        return None
    return None if deniable(first[0]) and any(map(taken_back, found[1:])) else first[0]


def _turned(line: str, read: Read) -> tuple[Any, bool | None] | None:
    """What a later line gives, after words such as "Actually" too."""
    given = read(line)
    while (given is None or given[1] is None) and (turn := _TURN.match(line)):
        line = line[turn.end() :]
        given = read(line)
    return given


def structure(answer: str) -> tuple[str, int]:
    """(what is read of ``answer``, where its JSON begins: -1 if more stands before it than dress or announcement)."""
    text = said(answer).strip()
    text = "".join(itertools.takewhile(lambda line: not _FIELD.match(line), text.splitlines(keepends=True)))
    found = re.search(r"[\[{]", text)
    lines_before = text[: found.start()].splitlines()[-_LINES:] if found else []
    lines_before = [undressed(" ".join(line[:LONGEST_LINE].split())) for line in lines_before]
    if lines_before and _FENCE.match(lines_before[-1]):
        lines_before[-1] = _FENCE.sub("", lines_before[-1])
    before = [line for line in lines_before if line.strip("*_`>#•- ") and not _FENCE.fullmatch(line)]
    if before and not (_ANNOUNCEMENT.fullmatch(before[-1]) or _TAG.fullmatch(before[-1].strip())):
        own = before[-1].strip("*_`>#•- ")
        if body(own + " x")[0] <= len(own):
            return text, -1
    return text, found.start() if found else -1


def plain(answer: str) -> str:
    """What ``answer`` says, so that two ways to dress one answer are equal: for votes, and for no score."""
    text, place = structure(answer)
    try:
        return json.dumps(json.JSONDecoder().raw_decode(text, max(place, 0))[0], sort_keys=True).casefold()
    except (ValueError, RecursionError):
        own = next(iter(lines(answer)), "")
        return prefixed(own[body(own)[0] :]).replace("us-gaap:", "").strip(" .*`\"'").casefold()


# ---------------------------------------------------------------- dress

_COMMANDS = re.compile(r"\\(?:boxed|fbox|text|textbf|textit|texttt|mathrm|mathbf|mathit|operatorname) ?\{([^{}]*)\}")
_FRACTION = re.compile(r"\\[dt]?frac ?\{([^{}]*)\} ?\{([^{}]*)\}")
_BOX = re.compile(r"\\boxed ?\{([^{}]*)\}")
_SYMBOLS = {r"\times": "*", r"\cdot": "*", r"\div": "/", r"\approx": "≈", r"\;": " ", r"\ ": " "}
_SYMBOLS |= {"\\" + sign: sign for sign in "%$_&"}  # others leave nothing
_SYMBOL = re.compile(r"\\(?:times|cdot|div|approx|left|right)(?![A-Za-z])|\\[,!; %$_&()\[\]]")
_AS_MATHEMATICS = re.compile(  # "$1234.5$", not "$5 and $6"
    r"(?<![\d.,])(?<![\d)%]\$)\$(?=[-+(]?[\d.])([^$\s]*[\d)%])\$(?!\d)"
)
_DOLLAR = "\ue000"  # stands for "\\$", which is money, until the dollar signs of mathematics are gone
_MATHEMATICS = re.compile(r"(?<!\$)\$+([^$]*[\\\ue000][^$]*)\$+")
# what dress parts is not one number: "12$\\text{34}$", "\\boxed{12}\\boxed{34}"
_SEAM = re.compile(
    r"(?<=[\d.,])(?=\\[A-Za-z(\[]|\$+(?:\\[A-Za-z]+ ?\{|[ {(])*[.,]?\d)|(?<=[})\]])(?=[.,]?\d|\\[A-Za-z(\[])"
)
_NESTED = 8  # commands within each other
_DENIALS = frozenset("❌❎✖✗✘🚫👎⛔❓❔🤷")


def latex(line: str, working: bool = False) -> str:
    r"""``line`` without the LaTeX around answers; \frac{a}{b} becomes ((a) / (b)).

    A \boxed{} alone becomes "answer: ...", and with ``working`` one to which equations lead.
    """
    line = _AS_MATHEMATICS.sub(r"\1", line.replace("{,}", ",").replace(r"\$", _DOLLAR))
    if "\\" in line or _DOLLAR in line:
        line = _MATHEMATICS.sub(r"\1", _SEAM.sub(" ", line))
        for _ in range(_NESTED):
            boxes = _BOX.findall(line)
            # words before the box are read as words before any answer
            words = re.search("[A-Za-z]{3}", _COMMANDS.sub("", _FRACTION.sub("", line)))
            if len(boxes) == 1 and not (words if working else re.search(r"\w", _BOX.sub("", line))):
                line = f"answer: {boxes[0]}"
            line, commands = _COMMANDS.subn(r"\1", line)
            line, fractions = _FRACTION.subn(r"((\1) / (\2))", line)
            if not commands + fractions:
                break
        line = " ".join(_SYMBOL.sub(lambda match: _SYMBOLS.get(match[0], ""), line).split())
    while len(line) > 2 and line[0] == line[-1] == "$":  # mathematics: money has one
        line = line[1:-1].strip()
    return line.replace(_DOLLAR, "$")


def _emoji(character: str) -> bool:  # or a blank
    picture = unicodedata.category(character) in ("So", "Sk") or character in "\ufe0f\u200d"
    return character == " " or (character > "\u2190" and picture and character not in _DENIALS)


def undressed(line: str, working: bool = False) -> str:
    """``line`` without LaTeX, a pair of XML tags, and emoji at its ends."""
    line = latex(line, working)
    if pair := _PAIR.fullmatch(line):
        lead = "answer: " if re.fullmatch(_NOUN, re.sub("[_-]", " ", pair[1]), re.IGNORECASE) else ""
        if lead or pair[1].lower() in _HTML:
            line = f"{lead}{pair[2]} {pair[3]}".strip()
    line = re.sub(r"\s?</[A-Za-z][\w-]{0,20}>\.?$", "", line)
    line = re.sub(r"^[->] (?=[*_`]{1,3}\S)", "", line)  # a bullet, and no sign, before what is bold
    for _ in range(2):  # from either end
        line = "".join(itertools.dropwhile(_emoji, line))[::-1]
    return line


def body(line: str, marks: str = _WORD_MARKS) -> tuple[int, bool]:
    """(where the answer of ``line`` begins, whether a lead announces it); ``marks`` are the dress before it."""
    place, led = len(line) - len(line.lstrip(marks)), False
    for _ in range(_LEADS):
        match = _LEAD.match(line, place)
        # a dash before a number may be its sign
        if not match or (match["copula"] in ("-", "–") and marks != _WORD_MARKS):
            break
        led = led or match["courtesy"] is None
        place = len(line) - len(line[match.end() :].lstrip(marks))
    article = _ARTICLE.match(line, place) if led else None
    return (len(line) - len(line[article.end() :].lstrip(marks)) if article else place), led


# ---------------------------------------------------------------- what follows

_REASON = re.compile(r"\s?(?:$|(?:because|since)\b|[.,;:!。)\]}>\"'`*_”’»–—(\[-])")
_AFFIRMED = re.compile(
    r"(?i)\s?(?:is|would be) (?:(?:the )?(?:correct|right|best)(?: (?:answer|option|choice|label|tag|one))?|"
    r"the answer)(?=[.,:;!]|\W*$)"
)
_HEDGE = re.compile(
    r"(?i)\W*(?:or|if|unless|perhaps|maybe|possibly|probably|likely|presumably|at (?:least|most)|"
    r"I (?:guess|think|believe|suppose|assume))\b|[^\w?]*(?:[\w'’]{1,40}\s?){0,3}\?\W*$"
)
# "Positive? Not really", "positive - definitely not", "positive: false", "B. This is the wrong answer."
_DENIED = "not|no|never|false|wrong|incorrect|untrue|kidding"
# of the answer only: "Negative. The bid was rejected." and "Neutral, the impact is unclear." are reasons
_DOUBTED = r"unlikely|impossible|rejected|none|absent|uncertain|unsure|unclear|doubtful|\w+n['’]t"
_OF_IT = "it|this|that|which|i|am|is|was|are|but|and|though|very|highly|rather|quite|really|still|answer|label"
_AFTER_DENIAL = (
    "really|quite|sure|certain|applicable|at all|exactly|the|a|correct|right|true|answer|label|option|choice|one"
)
_TAKEN_BACK = re.compile(
    rf"(?i)(?:(?:\w+(?:['’]\w+)?[\s,]+){{0,4}}(?<!not )(?<!n['’]t )(?:{_DENIED})|"
    rf"(?:(?:the[\s,]+)?(?:{_OF_IT}|i['’]m|it['’]s)[\s,]+){{0,4}}(?:{_DOUBTED}))(?:[\s,]+(?:{_AFTER_DENIAL})){{0,3}}\W*"
)
_REACH = 200  # characters of a short answer


def taken_back(rest: str) -> bool:
    """Whether what follows the answer, to the end of a short line or in a line of its own, only denies it."""
    said = rest.lstrip(" \t\"'`*_.,;:!?…。()[]-–—=>")
    return len(rest) <= _REACH and (rest.lstrip().startswith("!=") or bool(_TAKEN_BACK.fullmatch(said)))


def may_follow(rest: str, denials: bool = True) -> bool:
    """Whether ``rest`` of a line may stand after its answer (rule 4)."""
    rest = _AFFIRMED.sub("", rest, count=1) if _AFFIRMED.match(rest) else rest
    doubtful = _HEDGE.match(rest) or (denials and taken_back(rest)) or not _DENIALS.isdisjoint(rest)
    return bool(_REASON.match(rest)) and not doubtful


# ---------------------------------------------------------------- labels


def key(text: str, labels: Sequence[str]) -> str:
    """``text`` in the form in which labels are looked for: any case, but for labels of one letter their own."""
    text = unicodedata.normalize("NFKC", text)
    return text if any(len(label) == 1 for label in labels) else text.casefold()


# what joins the words of a label; a longer dash, or one between blanks, begins a reason: "no - risk is low"
_SIGNS = r"(?:\s+|[_\u2010-\u2013\u2212-]+)"
_JOINT = re.compile(rf"(?<=[^\W\d_]){_SIGNS}(?=[^\W\d_])")


def _guarded(word: str, alone: bool) -> str:
    """The regular expression of one label; a number in a label must not be a part of a longer one."""
    before = r"(?<![-+−.,])" if word[:1].isdigit() else ""
    after = r"(?![.,]\d|\s?%)" if word[-1:].isdigit() else ""
    inner = f"{_SIGNS}?".join(map(re.escape, _JOINT.split(word) if alone else [word])).replace(r"\ ", r"\s+")
    return f"{before}({inner if len(word) == 1 else f'(?i:{inner})'}){after}"


@functools.lru_cache(maxsize=64)
def _pattern(labels: tuple[str, ...]) -> tuple[re.Pattern[str], list[str]]:
    """A group for each label as whole words, and the labels: longest first, so that none is seen inside another.

    Labels that differ only in how their words are joined are read as they are written.
    """
    forms = {" ".join(key(label, labels).split()): label for label in reversed(labels)}
    words = sorted(forms, key=lambda word: (-len(word), word))
    bare = [_JOINT.sub("", word) for word in words]
    every = "|".join(_guarded(word, bare.count(_JOINT.sub("", word)) == 1) for word in words)
    # "_" is markdown, no letter; a hyphenated word is another word
    return re.compile(rf"(?<![^\W_])(?<![^\W_]-)(?:{every})(?![^\W_]|-\w)"), [forms[word] for word in words]


def named(text: str, labels: Sequence[str]) -> list[tuple[re.Match[str], str]]:
    """Where ``text``, in the form of ``key``, names a label, and which, in the spelling of the task."""
    pattern, names = _pattern(tuple(labels))
    return [(match, names[(match.lastindex or 0) - 1]) for match in pattern.finditer(text)]


def denies(labels: Sequence[str]) -> bool:
    """Whether a label is itself a denial ("No", "False"): then nothing takes an answer back."""
    return any(re.search(rf"\b(?:{_DENIED}|{_DOUBTED})\b", label, re.IGNORECASE) for label in labels)


_ITS_NOUN = re.compile(
    r"\s(?:sentiment|tone|outlook|label|answer|stance|class|category|type|statement|sentence|headline)(?![a-z])"
)
_ONLY_A_NUMBER = re.compile(r"\W*\d[\d.]*\s?%?\W*")  # "positive: 0.2": how likely it is


def label(answer: str, labels: Sequence[str]) -> str | None:
    """The label that ``answer`` gives, or None."""

    def read(line: str) -> tuple[str, bool] | None:
        text = key(line, labels)
        place, led = body(text)
        found = named(text, labels)
        own = next((match for match, _ in found if match.start() == place), None)
        if own is None or len({name for _, name in found}) != 1:
            return None
        rest, name = text[own.end() :], found[0][1]
        if (noun := _ITS_NOUN.match(rest)) and not denies([name]):  # "No answer" is none
            rest = rest[noun.end() :]
        if ("{" in text[:place] and re.match(r"[\"']\s?:", rest)) or not may_follow(rest, not denies([name])):
            return None  # {"positive": 0.2} has a key
        # beside a letter it is the option's text
        return None if len(name) > 1 and _ONLY_A_NUMBER.fullmatch(rest) else (name, led)

    found: str | None = one(answer, read, deniable=lambda name: not denies([name]))
    return found


# ---------------------------------------------------------------- names of us-gaap elements

_PREFIX = re.compile(r"us[-_ ]?gaap\s*[:_]\s*", re.IGNORECASE)
_NAME = re.compile(r"(us-gaap:)?([A-Z][A-Za-z0-9]{1,254})(?!\w|:\S)", re.ASCII)
_ANY_NAME = re.compile(r"(us-gaap:)?([A-Za-z0-9]{1,255})(?!\w|:\S)", re.ASCII)


def prefixed(text: str) -> str:
    """``text`` with every prefix of us-gaap in one spelling."""
    return _PREFIX.sub("us-gaap:", text)


def tag(answer: str, known: Collection[str], only: bool = False) -> str | None:
    """The element that ``answer`` names, without prefix, or None; ``known``: names beside which it must be alone.

    A name that is neither prefixed nor known must be the whole line. ``only``: no other than known names. Names are
    identifiers: case counts.
    """

    def read(line: str) -> tuple[str, bool] | None:
        text = prefixed(line)
        place, led = body(text)
        match = (_ANY_NAME if only else _NAME).match(text, place)
        if match is None or (only and match[2] not in known) or _ANNOUNCEMENT.fullmatch(line):
            return None
        rest = text[match.end() :]
        follows = (match[1] or match[2] in known) and may_follow(rest)
        if _ONLY_A_NUMBER.fullmatch(rest) or (rest.strip(" \"'`*<>/.!)]}") and not follows):
            return None
        others = {found[2] for found in _ANY_NAME.finditer(text) if found[1] or found[2] in known}
        return None if others - {match[2]} else (match[2], led)

    found: str | None = one(answer, read)
    return found
