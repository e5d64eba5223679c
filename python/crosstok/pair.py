"""`Pair`: a teacher's tokenizer beside a student's, and the plans of texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from crosstok import _core
from crosstok.errors import NotCanonicalError, TextError, UnsupportedTokenizerError
from crosstok.ragged import IntArray, Ragged, ids_array, one_id
from crosstok.tokenizer import Tokenizer, to_text

BoolArray = npt.NDArray[np.bool_]


class Pair:
    """Two tokenizers and how they relate.

    regime: "same" (both encode every text alike), "subset" (the student's merges are the teacher's first ones,
    all else is alike), or "general"; `reason` says why (docs/mathematics.md, 6). It is found from what the files
    hold, by bytes, never from ids or names.

    teacher_eos, student_eos: the id or ids that end a text, as tuples afterwards; the first stands for the event.
    None: those the tokenizer was loaded with. Raises UnsupportedTokenizerError where it was loaded with none,
    ValueError for an empty list and for an id that is not a special token.
    """

    def __init__(
        self,
        teacher: Tokenizer,
        student: Tokenizer,
        teacher_eos: int | Sequence[int] | None = None,
        student_eos: int | Sequence[int] | None = None,
    ) -> None:
        for whose, given in (("teacher", teacher), ("student", student)):
            if not isinstance(given, Tokenizer):
                kind = type(given).__name__
                raise TypeError(
                    f"{whose} must be a crosstok.Tokenizer, not {kind} (Tokenizer.from_pretrained reads it)"
                )
        self.teacher, self.student = teacher, student
        self.teacher_eos = _eos(teacher, teacher_eos, "teacher")
        self.student_eos = _eos(student, student_eos, "student")
        self._core = _core.Pair(teacher._core, student._core, list(self.teacher_eos), list(self.student_eos))

    @property
    def regime(self) -> str:
        """Which of "same", "subset" and "general" the pair is."""
        return self._core.regime

    @property
    def reason(self) -> str:
        """Why the regime is what it is."""
        return self._core.reason

    def encode(self, text: str | bytes, start: bool = False, index: int | None = None) -> IntArray:
        """Student ids of a pair-admissible text, int64 [n]. Raises TextError for any other, naming ``index``."""
        decoded = to_text(text, index)
        try:
            self.teacher.check_admissible(decoded, start)
            self.student.check_admissible(decoded, start)
            return self.student.encode(decoded, start)
        except TextError as error:
            raise TextError(error.reason, index, error.offset) from None

    def plan(
        self,
        texts: Sequence[str | bytes],
        *,
        start: bool | Sequence[bool] = False,
        ended: bool | Sequence[bool] = True,
        every_node: bool = False,
        num_threads: int = 0,
    ) -> Plan:
        """Plan the scoring of texts (docs/mathematics.md, 6), in parallel (0 threads: as many as the machine has).

        start: the text starts a document. ended: end-of-text follows it. every_node: keep the nodes that only
        whole distributions need. Raises TextError, naming the text, for one
        that is not admissible, ValueError for a wrong number of flags, TypeError for a single text.
        """
        if isinstance(texts, (str, bytes)):
            raise TypeError("texts must be a list of texts, not one text")
        starts = flags(start, len(texts), "start")
        ids = [self.encode(text, bool(starts[i]), i) for i, text in enumerate(texts)]
        ends = flags(ended, len(texts), "ended") | every_node
        return self.plan_ids(Ragged.of(ids), starts, ends, every_node, num_threads, boundaries=every_node)

    def plan_ids(
        self,
        ids: Ragged,
        start: BoolArray,
        end_rows: BoolArray,
        every_node: bool,
        num_threads: int = 0,
        boundaries: bool = False,
    ) -> Plan:
        """Plan for student ids (without end-of-text), as `plan` does for texts; admissibility is not checked.

        start, end_rows: bool [sequences]; end_rows: whether the rows at the end are needed, for end-of-text or the
        last distribution. every_node: in the general regime only those at the end; boundaries: there, those at the
        ends of all student tokens. Raises ValueError for a negative id.
        """
        core = self._core.plan(ids.values, ids.offsets, start, every_node, boundaries, end_rows, num_threads)
        return Plan(core, self)

    def prompt_ids(self, prompt: Sequence[int] | IntArray | None) -> tuple[int, ...]:
        """The ids that the teacher sees first: ``prompt``, or its BOS, or, if it has none, its end-of-text id."""
        if prompt is not None:
            return tuple(ids_array(prompt).tolist())
        bos = self.teacher.bos_id
        return (self.teacher_eos[0] if bos is None else bos,)

    @cached_property
    def first_tokens(self) -> IntArray:
        """int64 [tokens], in that order: the first student token of each teacher token by itself, −1 for none."""
        return self._core.first_tokens()

    @cached_property
    def longer_tokens(self) -> IntArray:
        """int64 [student vocab_size]: how many student tokens are longer than each one and begin with its bytes."""
        return self._core.longer_tokens()

    @cached_property
    def order(self) -> IntArray:
        """int64 [tokens]: the teacher's tokens in the order that plans refer to, special tokens not among them.

        By spelling in student tokens in the regimes "same" and "subset" (see `Spelling`), by bytes in "general".
        """
        return self._core.order()

    @cached_property
    def spelling(self) -> Spelling:
        """How teacher tokens are spelled in student tokens. Raises PlanError for the general regime."""
        return Spelling(*self._core.spelling())

    def check_student_prefix(self, student_ids: IntArray, start: bool) -> None:
        """Raise NotCanonicalError unless some text's student encoding starts with these ids."""
        if not self.student.is_canonical(student_ids, start=start):
            raise NotCanonicalError(f"no text has a student encoding that starts with {student_ids.tolist()}")

    def __repr__(self) -> str:
        """Short description."""
        return f"Pair(regime={self.regime!r}: {self.reason})"


@dataclass(frozen=True, eq=False)
class Spelling:
    """Teacher tokens sorted by their spellings in student tokens, compared as id sequences (docs/mathematics.md, 6).

    tokens: int64 [tokens], those that can stand in an encoding. Token ``tokens[i]`` is spelled
    ``ids[ptr[i]:ptr[i + 1]]``, never empty; ptr: int64 [tokens + 1], ids: int64 [total].
    """

    tokens: IntArray
    ptr: IntArray
    ids: IntArray

    def id_at(self, places: IntArray, depth: IntArray | int) -> IntArray:
        """int64 [places]: the student id at ``depth`` of each spelling, −1 where it is no longer than that.

        places: int64 [places], indices into `tokens`. depth: one for all, or int64 [places].
        """
        at = self.ptr[places] + depth
        inside = at < self.ptr[places + 1]
        return np.where(inside, self.ids[np.where(inside, at, 0)], -1)


class Plan:
    """Which teacher rows a batch of texts needs, and which of their entries make up each probability.

    Nodes are canonical teacher prefixes along the text, numbered through all texts; a text's first node is its root.
    Position i of a text is the prefix s_1..s_i. All arrays are flat, int64 unless said otherwise:

    node_token, node_parent [nodes]: −1 at a root; parents come first. node_depth [nodes]: student tokens that end at
    the node or before it (in the regimes "same" and "subset": at it). node_complete, bool [nodes]: the text may end at
    the node. node_ptr [texts + 1]. student_ids [total], without end-of-text, student_ptr [texts + 1].

    range_node, range_first, range_last, range_depth [ranges], sorted by node, then depth; range_kind int8: the tokens
    ``pair.order[first:last]`` after a node, as far as they are canonical (see `masks`), cover s_1..s_depth (kind 0), or
    leave it undecided: 1 where the text, if it ended there, would start with s_1..s_depth, 2 where it would not.

    whole_node, whole_depth [wholes]: nodes that have reached s_1..s_depth and leave it undecided, so that their own
    rows are looked at; there all tokens cover it but those in the ranges of that node and depth (kinds 1, 2, and 3:
    does not start with it, or has a row of its own). whole_end, bool: so does the text ended there. None in the regimes
    "same" and "subset". docs/mathematics.md, facts 17, 18 and 21 to 24.
    """

    def __init__(self, core: _core.Plan, pair: Pair) -> None:
        """For internal use; see `Pair.plan`."""
        self._core, self.pair = core, pair
        self.student_ids, self.student_ptr = core.student_ids, core.student_ptr
        self.node_ptr, self.node_token, self.node_parent = core.node_ptr, core.node_token, core.node_parent
        self.node_depth, self.node_complete = core.node_depth, core.node_complete
        self.range_node, self.range_depth, self.range_kind = (
            core.range_node,
            core.range_depth,
            core.range_kind,
        )
        self.range_first, self.range_last = core.range_first, core.range_last
        self.whole_node, self.whole_depth, self.whole_end = core.whole_node, core.whole_depth, core.whole_end

    def __len__(self) -> int:
        """Number of texts."""
        return len(self.node_ptr) - 1

    @property
    def order(self) -> IntArray:
        """int64 [tokens]: what range_first and range_last index; see `Pair.order`."""
        return self.pair.order

    def extend(self, node: IntArray, token: IntArray, num_threads: int = 0) -> Extension:
        """Add the teacher prefixes (node, token), int64 [k] each, to be read with a row of their own.

        Their numbers follow those of all nodes so far, and may be given as nodes from then on. Raises PlanError in the
        regimes where nothing is undecided, ValueError for a node that there is not and a token that is not canonical
        after it.
        """
        return Extension(self._core.extend(node, token, num_threads))

    def decide(
        self, node: IntArray, token: IntArray, depth: IntArray, quick: bool = False, num_threads: int = 0
    ) -> npt.NDArray[np.int8]:
        """What the prefixes (node, token) say about s_1..s_depth of their texts, int64 [k] each; int8 [k].

        1 in, 0 not in (undecided; if a search took too many steps, perhaps out), −1 out, 2 perhaps in (a search took
        too many steps: a row must not take its place), by both tokenizers (`range_kind` goes by the student's alone).
        quick: by the student's readings of all its bytes, without a search, 0 where that takes one. Raises as `extend`.
        """
        return self._core.decide(node, token, depth, quick, num_threads)

    def beyond(self) -> _core.Beyond:
        """Which rows say what of the next student tokens, in the regime "general" and with every node only.

        Arrays: exact_node, exact_depth, int64 [rows]: a node that ends where s_1..s_depth does, whose whole row is
        about the next token; exact_in, exact_given_up, bool [rows]: it is in for s_1..s_depth, or whether it is was not
        found out. node, first, last, depth, int64 [ranges]: tokens ``first..last`` of the order, after
        ``node``, reach beyond s_1..s_depth. ends, bool [positions], n + 1 a text: the student reads the text cut there
        as s_1..s_i.
        """
        return self._core.beyond()

    def closings(
        self, node: IntArray, token: IntArray, depth: IntArray, exact: bool = False, num_threads: int = 0
    ) -> tuple[IntArray, BoolArray, BoolArray]:
        """The student token after s_1..s_depth in the text of each prefix (node, token) cut behind it; int64 [k].

        −1 where that text does not start with s_1..s_depth, −2 where the cut is inside a character that leaves it
        open. Second, bool [k]: no text of the prefix can have another one, by the student's readings, or
        (exact) by both tokenizers. Third, bool [k]: the student reads the cut text as it is. The prefixes must reach
        beyond s_1..s_depth. Raises as `extend`.
        """
        return self._core.closings(node, token, depth, exact, num_threads)

    def following(self, text: int, node: IntArray, token: IntArray | None = None) -> _core.Following:
        """What prefixes of a text say about the student token after all of it, in the regime "general" only.

        Without ``token``: for each node, int64 [k], runs of its row (run_node, run_first, run_last, by node; places as
        in `order`, all that go beyond the text) with the number of an outcome; inside, bool [k]: all texts of the node
        start with the student tokens; given_up, bool [k]: perhaps they do; end, int64 [k]: the next token of the text
        ended there, −1 none, −2 end-of-text.
        With ``token``: an outcome for each (node, token), by both tokenizers. An outcome's next tokens: those in
        label[label_ptr[o]:label_ptr[o + 1]], and the canonical ones of student_order[longer_first[o]:longer_last[o]];
        outside, bool: some texts start otherwise; sure, bool: there is a text; closing: the next token if the text
        ended there, −1 none; splits, bool, with ``token`` only: its row may take its place. Raises as `extend` does.
        """
        if token is None:
            return self._core.following(text, node)
        return self._core.following_exact(text, node, token)

    @cached_property
    def student_order(self) -> IntArray:
        """int64 [tokens]: the student's tokens by bytes, which `following` refers to."""
        return self._core.student_order()

    @cached_property
    def node_text(self) -> IntArray:
        """int64 [nodes]: the text that each node belongs to."""
        return np.repeat(np.arange(len(self)), np.diff(self.node_ptr))

    @cached_property
    def range_ptr(self) -> IntArray:
        """int64 [nodes + 1]: where each node's ranges begin; they are sorted by node, then depth."""
        return np.searchsorted(self.range_node, np.arange(len(self.node_token) + 1)).astype(np.int64)

    def masks(
        self, nodes: IntArray, width: int, num_threads: int = 0, out: BoolArray | None = None
    ) -> BoolArray:
        """bool [len(nodes), width]: the canonical next tokens of nodes, by id; end-of-text is not among them.

        nodes: int64 [k]. out: a contiguous array to write to; new memory costs more than what is written. Raises
        PlanError where ``width`` leaves out a token that can stand in an encoding, ValueError for a node that the
        plan does not have and for an array of another shape.
        """
        if out is None:
            out = np.empty((len(nodes), width), dtype=bool)
        if out.shape != (len(nodes), width) or out.dtype != np.bool_:
            raise ValueError(f"out: {out.dtype} {list(out.shape)} for masks [{len(nodes)}, {width}]")
        self._core.masks(nodes, out.view(np.uint8), num_threads)
        return out


class Extension:
    """Prefixes added to a `Plan`; arrays as there, [k] for the k new nodes.

    first: the number of the first new node. node_parent, node_text, node_depth: int64; node_depth: the largest i such
    that the node's bytes begin with those of s_1..s_i. Every (node, depth) that the new prefix leaves undecided is a
    whole row. Where a prefix is decided or given up there is none: ask `Plan.decide`.
    """

    def __init__(self, core: _core.Extension) -> None:
        """For internal use; see `Plan.extend`."""
        self.first = core.first
        self.node_token, self.node_parent, self.node_text = core.node_token, core.node_parent, core.node_text
        self.node_depth, self.node_complete = core.node_depth, core.node_complete
        self.range_node, self.range_depth, self.range_kind = (
            core.range_node,
            core.range_depth,
            core.range_kind,
        )
        self.range_first, self.range_last = core.range_first, core.range_last
        self.whole_node, self.whole_depth, self.whole_end = core.whole_node, core.whole_depth, core.whole_end


def flags(value: bool | Sequence[bool] | BoolArray, count: int, name: str) -> BoolArray:
    """bool [count]: one flag a text, from one for all or a list. Raises ValueError for another number of them."""
    if isinstance(value, (bool, np.bool_)):
        return np.full(count, bool(value))
    array = np.asarray(value, dtype=bool)
    if array.shape != (count,):
        raise ValueError(f"{name}: {array.size} flags for {count} texts")
    return array


def _eos(tokenizer: Tokenizer, given: int | Sequence[int] | None, whose: str) -> tuple[int, ...]:
    if given is None:
        ids: tuple[int, ...] = tokenizer.eos_ids
        if not ids:
            raise UnsupportedTokenizerError(
                f"the {whose} does not say which ids end a text: pass {whose}_eos (--{whose}-eos; "
                "or load a directory with generation_config.json, tokenizer_config.json or a chat template)"
            )
        return ids
    listed = [given] if isinstance(given, (int, np.integer)) else list(given)
    return tuple(dict.fromkeys(one_id(id) for id in ids_array(listed)))
