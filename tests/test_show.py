"""One scored text to look at: its numbers against explicit covers, the source of its page, the lines of a terminal."""

from __future__ import annotations

import html
import io
import json
import math
import random
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("rich")

import crosstok as ct
from crosstok.errors import TextError
from crosstok.show import Explanation, Shown, Token, page
from crosstok.show.layout import LONGEST, WIDTH, blocks
from crosstok.show.page import embedded
from crosstok.show.palette import BINS, IMPOSSIBLE, bin_of, contrast
from crosstok.show.pieces import clipped, plain, visible
from crosstok.show.terminal import rendered
from explained import NASTY, TEXT, Markup, demo, explain, show, tiny
from rich.console import Console


def check_sums(found: Explanation) -> None:
    """Listed and unlisted covers make up P(s_1..s_i), on raw numbers; shares are of it."""
    for position in found.positions:
        masses = [cover.log_mass for cover in position.covers]
        total = np.logaddexp.reduce([*masses, position.log_rest])
        if position.prefix_lower == -math.inf:
            assert total == -math.inf
            continue
        assert total == pytest.approx(position.prefix_lower, abs=1e-11)
        assert sum(cover.share for cover in position.covers) <= 1 + 1e-11
        assert masses == sorted(masses, reverse=True)
        assert (position.log_rest == -math.inf) or position.rest


def check_places(found: Explanation) -> None:
    """Tokens follow each other and spell the text; covers begin at the trunk and reach the student token's end."""
    for tokens in ([position.token for position in found.positions], found.teacher):
        assert b"".join(token.piece for token in tokens if not token.is_end) == found.text
        assert [token.start for token in tokens[1:]] == [token.end for token in tokens[:-1]]
        assert [token.is_end for token in tokens] == [False] * (len(tokens) - found.ended) + [
            True
        ] * found.ended
    for position in found.positions:
        for cover in position.covers:
            assert cover.tokens[0].start == (found.teacher[position.trunk].start)
            assert cover.tokens[0].start <= position.token.start
            spelled = b"".join(token.piece for token in cover.tokens if not token.is_end)
            own = found.text[cover.tokens[0].start : position.token.end]
            assert spelled.startswith(own)
            assert cover.tokens[-1].end >= position.token.end
            assert all(one.end == other.start for one, other in pairwise(cover.tokens))


@pytest.mark.parametrize("merges", [0, 200, 10_000])
@pytest.mark.parametrize("text", [TEXT, NASTY, "", "x"], ids=["plain", "nasty", "empty", "short"])
@pytest.mark.parametrize("ended", [True, False])
def test_masses_sum_and_log_probabilities_are_the_scorers(merges: int, text: str, ended: bool) -> None:
    scorer = demo(merges)
    found = explain(scorer, text, ended=ended, max_covers=4)
    check_sums(found)
    check_places(found)
    score = scorer.score([text], ended=ended)[0]
    assert [position.token.id for position in found.positions] == score.student_ids.tolist()
    assert [p.logprob for p in found.positions] == pytest.approx(score.logprobs.tolist(), abs=2e-5)
    assert [p.rows for p in found.positions] == score.rows.tolist()
    assert found.total == pytest.approx(score.total, abs=1e-3)
    assert found.text == text.encode() and found.prompt is None
    assert {p.status for p in found.positions} <= {"exact", "unsupported"}


def explicit_log_q(scorer: ct.Scorer, path: list[int], prompt: list[int]) -> float:
    """log q of a path that may end with end-of-text, one row a token, masked to the canonical next tokens."""
    tokenizer, (eos,) = scorer.pair.teacher, scorer.pair.teacher_eos
    log_q = 0.0
    for at, token in enumerate(path):
        row = scorer.teacher.rows([(*prompt, *path[:at])])[0].double().numpy()
        allowed = np.zeros(len(row), dtype=bool)
        allowed[: tokenizer.vocab_size] = tokenizer.canonical_next(path[:at])
        allowed[eos] = tokenizer.is_canonical(path[:at], complete=True)
        log_q += float(row[token] - np.logaddexp.reduce(row[allowed]))
    return log_q


def check_explicit(
    scorer: ct.Scorer, text: str, prompt: list[int], every: int = 1, within: float = 1e-10
) -> int:
    """Every listed cover is one of `enumerate_covers`, and none is missing; q of some against a row for each token."""
    found = explain(scorer, text, prompt, max_covers=10_000)
    check_sums(found)
    ids = [position.token.id for position in found.positions]
    covers = ct.enumerate_covers(scorer.pair, [ids])
    count = 0
    for i, position in enumerate(found.positions):
        paths = [found.path(i, cover) for cover in position.covers]
        assert sorted(paths) == sorted(tuple(path.tolist()) for path in covers.paths(i + 1))
        assert position.rest == 0 and position.log_rest == -math.inf
        for path, cover in zip(paths, position.covers, strict=True):
            count += 1
            if count % every == 0:
                expected = explicit_log_q(scorer, list(path), prompt)
                assert cover.log_mass == pytest.approx(expected, abs=within)
    return count


@pytest.mark.parametrize("merges", [0, 1, 2, 3])
@pytest.mark.parametrize("text", ["aba  ab", "  ", "a b  aba   ", "b"])
def test_covers_are_the_enumerated_ones(merges: int, text: str) -> None:
    assert check_explicit(tiny(merges), text, [1, 4]) > 1


def test_covers_of_the_demo_are_the_enumerated_ones() -> None:
    assert check_explicit(demo(200), TEXT[:24], [0, 300], every=37, within=2e-5) > 100


def test_covers_that_have_no_mass() -> None:
    """A probability of zero is listed as such, and what comes after it; nothing is NaN."""
    scorer = tiny(1, dead=(3, 3))
    found = explain(scorer, "aba  ab", max_covers=1)
    check_sums(found)
    assert any(position.prefix_lower == -math.inf for position in found.positions)
    for position in found.positions:
        numbers = [position.logprob, position.log_rest, *(c.share for c in position.covers)]
        assert not any(math.isnan(number) for number in numbers)
        if position.prefix_lower == -math.inf:
            assert position.status == "unsupported"
            assert all(cover.share == 0 for cover in position.covers)


def test_mask_mode() -> None:
    """Without renormalisation the masses still sum; they are less than one."""
    found = explain(tiny(1, canonical="mask"), "aba  ab", max_covers=2)
    check_sums(found)
    assert any(position.noncanonical_mass > 0 for position in found.positions)


def test_fewer_covers_are_the_largest() -> None:
    """The first of all covers, the others counted and summed up."""
    every, some = (explain(demo(0), TEXT, max_covers=most) for most in (10_000, 3))
    cut = 0
    for all_of, position in zip(every.positions, some.positions, strict=True):
        assert position.covers == all_of.covers[:3] or position.trunk != all_of.trunk
        others = all_of.covers[3:]
        assert [c.log_mass for c in position.covers] == [c.log_mass for c in all_of.covers[:3]]
        assert position.rest == len(others)
        if others:
            rest = np.logaddexp.reduce([cover.log_mass for cover in others])
            assert position.log_rest == pytest.approx(float(rest), abs=1e-9)
            cut += 1
    assert cut > 20


def test_errors() -> None:
    scorer = demo(200)
    with pytest.raises(ValueError, match="max_covers"):
        explain(scorer, TEXT, max_covers=0)
    with pytest.raises(TextError, match=r"^byte 1: invalid UTF-8"):
        explain(scorer, b"a\xff")
    with pytest.raises(ValueError, match="theme"):
        page(explain(scorer, "x"), "pink")


def cuts(data: bytes, some: random.Random, end: bool = True) -> list[Token]:
    """Tokens at random boundaries."""
    inner = sorted(some.sample(range(1, len(data)), some.randrange(len(data))))
    tokens = [Token(1, data[a:b], a, b) for a, b in pairwise([0, *inner, len(data)])]
    return [*tokens, Token(0, b"<end>", len(data), len(data), True)] if end else tokens


@pytest.mark.parametrize("seed", range(60))
def test_blocks_line_up(seed: int) -> None:
    """Each student token stands in one block, teacher tokens are whole in one or cut; columns are the same bytes."""
    some = random.Random(seed)
    data = bytes(some.choices(b"ab \n\xc3\xa9", k=some.choice([1, 7, 60, 300])))
    students, teachers = cuts(data, some), cuts(data, some)
    found = blocks(students, teachers)
    assert [part.token for block in found for part in block.students] == list(range(len(students)))
    spelled: dict[int, bytes] = {}
    for block in found:
        for parts in (block.students, block.teachers):
            assert [part.first for part in parts] == [0, *(part.last for part in parts[:-1])]
            assert parts[-1].last == block.columns
        lengths = [
            {part.last: b"".join(p.piece for p in parts[: at + 1]) for at, part in enumerate(parts)}
            for parts in (block.students, block.teachers)
        ]
        for column in (
            lengths[0].keys() & lengths[1].keys() if not students[block.students[0].token].is_end else ()
        ):
            assert lengths[0][column] == lengths[1][column]
        for part in block.teachers:
            spelled[part.token] = spelled.get(part.token, b"") + part.piece
            assert part.cut_left == (spelled[part.token] != part.piece)
            assert part.cut_right == (spelled[part.token] != teachers[part.token].piece)
        shown = [
            len(text) for part in block.students[:-1] for _, text in clipped(visible(part.piece), LONGEST)
        ]
        assert sum(shown) <= WIDTH
    assert [spelled[at] for at in range(len(teachers))] == [token.piece for token in teachers]


def test_pieces() -> None:
    assert visible(b"a b\n\t") == [("text", "a"), ("space", "␣"), ("text", "b"), ("space", "↵⇥")]
    assert visible(b"\xe4\xbd") == [("code", "E4"), ("code", "BD")]
    assert visible("\u0301x".encode()) == [("text", "◌\u0301x")]
    assert plain("\x1b[0m\u202e\x00".encode()) == "<U+001B>[0m<U+202E><U+0000>"
    assert clipped(visible(b"x" * 40), 40) == [("text", "x" * 40)]
    assert "".join(text for _, text in clipped(visible(b"a" * 50 + b"\xff"), 8)) == "aaaaa…aFF"


def test_colours_can_be_read() -> None:
    """WCAG AA on every ground; the order shows in lightness alone, so also without hues."""
    for theme in ("light", "dark"):
        shades = [getattr(bin, theme) for bin in BINS]
        assert all(contrast(shade.ground, shade.text) >= 4.5 for shade in shades)
        paper = "#ffffff" if theme == "light" else "#000000"
        against = [contrast(shade.ground, paper) for shade in shades]
        assert against == sorted(against)
    assert [bin_of(math.log(p)) for p in (1.0, 0.9001, 0.6, 0.04, 1e-9)] == [0, 0, 1, 4, 6]
    assert bin_of(-1e9) == IMPOSSIBLE - 1 and bin_of(-math.inf) == IMPOSSIBLE


def data_in(source: str) -> dict[str, object]:
    """The data that a page carries."""
    data = json.loads(Markup(source).scripts[0])
    assert isinstance(data, dict)
    return data


@pytest.mark.parametrize(
    "text", [TEXT, NASTY, "", "{{data}}{{script}}"], ids=["plain", "nasty", "empty", "fields"]
)
def test_page_is_whole_and_needs_nothing(text: str) -> None:
    found = explain(demo(200), text)
    source = page(found)
    markup = Markup(source)
    names = [name for name, _ in markup.tags]
    assert names.count("script") == 2 and source.count("</script") == 2 and "<!--" not in source
    outside = [
        value
        for _, attributes in markup.tags
        for name, value in attributes.items()
        if name in ("src", "href")
    ]
    assert outside == ["data:,"]
    assert not re.search(r"(?i)url\(|@import|https?://(?!www\.w3\.org/2000/svg)", source)
    data = data_in(source)
    students, pieces = data["students"], data["pieces"]
    assert isinstance(students, list) and isinstance(pieces, list)
    for position, (id, piece, start, end, is_end) in zip(found.positions, students, strict=True):
        token = position.token
        assert (id, start, end, bool(is_end)) == (token.id, token.start, token.end, token.is_end)
        assert [tuple(run) for run in pieces[piece]] == [
            (kind[0], shown) for kind, shown in visible(token.piece)
        ]


def test_embedded_json_is_no_markup() -> None:
    text = "".join(map(chr, range(300))) + "</script><!--<script>\u2028\u2029]]>&lt;"
    source = embedded([text])
    assert source.isascii() and not set("<>&") & set(source) and json.loads(source) == [text]


def test_long_text_stays_small() -> None:
    """4,050 student tokens: a page of a few MB, of which every listed cover and its rest still sum."""
    found = explain(demo(0), TEXT * 50)
    assert len(found.positions) == 50 * len(TEXT) + 1
    check_sums(found)
    source = page(found)
    assert len(source) < 3e6
    positions = data_in(source)["positions"]
    assert isinstance(positions, dict)
    for at in range(0, len(found.positions), 97):
        masses = [cover[0] for cover in positions["covers"][at]]
        rest = -math.inf if positions["log_rest"][at] is None else positions["log_rest"][at]
        total = np.logaddexp.reduce([*masses, rest])
        assert total == pytest.approx(found.positions[at].prefix_lower, abs=1e-5)
        listed = len(masses) + positions["rest"][at]
        assert listed == len(found.positions[at].covers) + found.positions[at].rest


def test_notebook_frame(tmp_path: Path) -> None:
    shown = show(demo(200), NASTY)
    frame = shown._repr_html_()
    (tag, attributes), *others = Markup(frame).tags
    assert tag == "iframe" and not others and attributes["srcdoc"] == shown.html
    assert attributes["sandbox"] == "allow-scripts"
    assert html.escape(shown.html) in frame
    shown.save(tmp_path / "page.html")
    assert (tmp_path / "page.html").read_bytes() == shown.html.encode()


def printed(shown: Shown, width: int = 80, colour: bool = False) -> str:
    system = "truecolor" if colour else None
    console = Console(file=io.StringIO(), width=width, force_terminal=colour, color_system=system)  # type: ignore[arg-type]
    with console.capture() as capture:
        console.print(shown)
    return capture.get()


def test_terminal() -> None:
    shown = show(demo(200), NASTY)
    for width in (40, 80, 200):
        text = printed(shown, width)
        assert all(len(line) <= width for line in text.splitlines())
        assert all(char.isprintable() or char == "\n" for char in text)
    lines = printed(shown, 400).splitlines()
    joined = "".join(lines[3 : lines.index("", 3)]).replace("│", "")
    pieces = [position.token.piece for position in shown.explanation.positions[:-1]]
    assert joined == "".join(map(plain, pieces)) + "(end)" and b"".join(pieces) == NASTY.encode()


def test_terminal_colours_and_table() -> None:
    shown = show(demo(400), TEXT)
    text = printed(shown, 120)
    assert str(shown).splitlines()[0] == text.splitlines()[0]
    assert "\x1b" not in text and f"log P {shown.explanation.total:.4f} nats" in text
    least = shown.explanation.least_likely()[0]
    position = shown.explanation.positions[least]
    (row,) = (line for line in text.splitlines() if line.split()[:1] == [str(least + 1)])
    assert plain(position.token.piece) in row and f"{position.logprob:.4f}" in row
    assert f"{100 * position.covers[0].share:.1f}%" in row
    coloured = printed(shown, 120, colour=True)
    red, green, blue = (int(BINS[bin_of(position.logprob)].dark.ground[at : at + 2], 16) for at in (1, 3, 5))
    assert f"48;2;{red};{green};{blue}m" in coloured
    assert [type(part).__name__ for part in rendered(shown.explanation, dark=False)][-1] == "Table"
