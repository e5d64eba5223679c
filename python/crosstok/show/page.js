"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const { facts, positions, students, teachers, pieces, entries } = data;
  const count = students.length;
  const byId = (id) => document.getElementById(id);
  const LN2 = Math.log(2), LN10 = Math.log(10);
  let current = -1; // chosen by click, key or the page's address
  let preview = -1; // under the pointer

  // ---- numbers; null stands for minus infinity ----
  const minus = (text) => text.replace("-", "\u2212");
  const fixed = (value, digits) => (value === null ? "\u2212\u221e" : minus(value.toFixed(digits)));
  const nats = (value) => (value !== null && value > -0.001 && value < 0 ? scientific(-value, "\u2212") : fixed(value, 4));
  const raised = (power) => String(power).replace(/[-\d]/g, (c) => (c === "-" ? "\u207b" : "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079"[c]));
  const scientific = (value, sign = "") => sign + scientificLog(Math.log(value));
  function scientificLog(log) {
    if (log === null || log === -Infinity) return "0";
    let power = Math.floor(log / LN10);
    let digits = Math.exp(log - power * LN10).toFixed(1);
    if (digits === "10.0") [digits, power] = ["1.0", power + 1];
    return `${digits} \u00d7 10${raised(power)}`;
  }
  const probability = (log) => (log !== null && Math.exp(log) >= 0.001 ? Math.exp(log).toFixed(4) : scientificLog(log));
  const between = ([low, high], shown = (value) => fixed(value, 4)) => `between ${shown(low)} and ${shown(high)}`;
  const isBounded = (i) => positions.lower[i] !== positions.upper[i];
  const mass = (value) => (value === 0 ? "0" : value >= 0.001 ? value.toFixed(4) : scientific(value));
  function percent(share) {
    const value = 100 * share;
    if (value === 0) return "0\u202f%";
    if (value < 0.01) return "<\u202f0.01\u202f%";
    return `${value > 99.99 && value < 99.9999999 ? ">\u202f99.99" : value.toFixed(value === 100 || value > 99.99 ? 0 : 2)}\u202f%`;
  }
  const bits = (i) => (positions.logprob[i] === null ? Infinity : -positions.logprob[i] / LN2);
  const ordinal = (n) => n + (n % 100 > 10 && n % 100 < 14 ? "th" : ["th", "st", "nd", "rd"][n % 10] || "th");
  const plural = (n, one, more = one + "s") => `${n.toLocaleString("en")} ${n === 1 ? one : more}`;

  // ---- elements; text only ever goes in as text ----
  function el(tag, classes, ...children) {
    const node = document.createElement(tag);
    if (classes) node.className = classes;
    node.append(...children);
    return node;
  }
  const KINDS = { s: "sign", c: "code" };
  const runs = (piece) => pieces[piece].map(([kind, text]) => (KINDS[kind] ? el("span", KINDS[kind], text) : text));
  const plain = (piece) => pieces[piece].map(([kind, text]) => (kind === "c" ? `<${text}>` : text)).join("");
  const spelled = (token, piece = token[1]) => (token[4] ? ["end"] : runs(piece));

  function drawFacts() {
    const own = teachers.length, wide = facts.bounds[0] !== facts.bounds[1];
    const rows = own ? `${(facts.rows / own).toFixed(2)} a token` : "";
    const perByte = facts.bytes === 0 ? "\u2013" : facts.bits_per_byte === null ? "\u221e" : facts.bits_per_byte.toFixed(4);
    const tiles = [
      ["log P of the text", fixed(facts.total, facts.total < -1000 ? 1 : 4), wide ? "nats, an estimate" : "nats"],
      ["bits per byte", perByte, plural(facts.bytes, "byte")],
      ["student tokens", count.toLocaleString("en"), facts.ended ? "with the end" : "cut off"],
      ["teacher tokens", own.toLocaleString("en"), facts.ended ? "with the end" : "cut off"],
      ["teacher rows", facts.rows.toLocaleString("en"), rows],
      ["non-canonical", mass(facts.noncanonical), "mean mass"],
    ];
    for (const [name, value, unit] of tiles) {
      byId("facts").append(el("div", "", el("dt", "", name), el("dd", "", value, " ", el("small", "", unit))));
    }
    const where = facts.prompt === null ? "The text starts a document" : `The text follows a prompt of ${plural(facts.prompt, "teacher token")}`;
    const ends = facts.ended ? "ends with end-of-text" : "is cut off, without end-of-text";
    const known = facts.bounded ? " Some ways to write the text are undecided: probabilities are estimates between bounds" + (wide ? `; that of the text has its log ${between(facts.bounds)}.` : ".") : "";
    byId("context").textContent = `${where} and ${ends}. Regime \u201c${facts.regime}\u201d: ${facts.reason}.${known}`;
  }

  function drawLegend() {
    const scale = el("span", "scale");
    const used = data.bins.length - (positions.logprob.includes(null) ? 0 : 1);
    data.bins.slice(0, used).forEach((label, i) => {
      const swatch = el("span", `b${i}`, label);
      paint(swatch, i);
      scale.append(swatch);
    });
    byId("legend").append(el("span", "", "probability of a student token"), scale);
    byId("legend").append(el("span", "", "top: student tokens; bottom: the teacher\u2019s own"));
    if (facts.bounded) byId("legend").append(el("span", "wide", "dashed: an estimate between bounds"));
    if (positions.status.includes("unsupported")) byId("legend").append(el("span", "flag", "unsupported: see status"));
  }
  function paint(node, bin) {
    node.style.backgroundColor = `var(--g${bin})`;
    node.style.color = `var(--t${bin})`;
  }

  // ---- the text ----
  const chips = [], teacherChips = teachers.map(() => []);
  function drawText() {
    let row = el("div", "row");
    row.setAttribute("role", "presentation");
    const place = (chip, part) => { chip.style.gridColumn = `${part[2] + 1} / ${part[3] + 1}`; return chip; };
    for (const [columns, above, below, newline] of data.blocks) {
      const block = el("div", "block");
      block.setAttribute("role", "presentation");
      block.style.gridTemplateColumns = `repeat(${columns}, auto)`;
      for (const part of above) block.append(place(studentChip(part), part));
      for (const part of below) block.append(place(teacherChip(part), part));
      row.append(block);
      if (newline) {
        byId("text").append(row);
        row = row.cloneNode(false);
      }
    }
    if (row.childNodes.length) byId("text").append(row);
    if (!count) byId("text").append(el("p", "note", "The text is empty."));
  }
  const limits = (i) => between([positions.lower[i], positions.upper[i]], probability);
  function studentChip([i, piece]) {
    const chip = el("span", "chip s" + (students[i][4] ? " end" : ""), ...spelled(students[i], piece));
    chip.classList.add(`b${positions.bin[i]}`);
    chip.classList.toggle("flag", positions.status[i] === "unsupported");
    chip.classList.toggle("wide", isBounded(i));
    paint(chip, positions.bin[i]);
    chip.id = `s${i}`;
    chip.dataset.i = i;
    chip.tabIndex = -1;
    chip.setAttribute("role", "option");
    const name = students[i][4] ? "end of text" : plain(students[i][1]);
    chip.setAttribute("aria-label", `${name}, probability ${probability(positions.logprob[i])}${isBounded(i) ? `, ${limits(i)}` : ""}`);
    chips[i] = chip;
    return chip;
  }
  function teacherChip([t, piece, , , cut]) {
    const token = teachers[t];
    const chip = el("span", "chip t" + (token[4] ? " end" : ""), ...spelled(token, piece));
    chip.classList.toggle("l", (cut & 1) > 0);
    chip.classList.toggle("r", (cut & 2) > 0);
    chip.setAttribute("aria-hidden", "true");
    chip.title = `teacher token ${t + 1} of ${teachers.length}, id ${token[0]}`;
    teacherChips[t].push(chip);
    return chip;
  }

  // ---- the panel ----
  function drawPanel(i) {
    const panel = byId("panel");
    panel.replaceChildren();
    if (i < 0) return;
    const token = students[i], log = positions.logprob[i];
    const chip = el("span", "chip s" + (token[4] ? " end" : ""), ...spelled(token));
    chip.classList.add(`b${positions.bin[i]}`);
    paint(chip, positions.bin[i]);
    panel.append(el("h2", "", chip, el("span", "", `student token ${i + 1} of ${count}`)));
    const how = `${nats(log)} nats, ${log === null ? "\u221e" : bits(i).toFixed(bits(i) < 0.01 ? 4 : 2)} bits`;
    const bounds = isBounded(i) ? [el("small", "bounds", `an estimate, ${limits(i)}`)] : [];
    panel.append(el("div", "p", `p ${bounds.length ? "\u2248" : "="} ${probability(log)}`, ...bounds, el("small", "", how)));
    const list = el("dl", "");
    for (const [name, value] of factsOf(i)) list.append(el("dt", "", name), el("dd", "", value));
    panel.append(...coversOf(i), el("h3", "", "Details"), list);
  }
  function factsOf(i) {
    const token = students[i], at = (name) => positions[name][i];
    const rows = [["status", at("status")]];
    rows.push(["bounds of log p", isBounded(i) ? `${nats(at("lower"))} to ${nats(at("upper"))}` : `${nats(at("lower"))} (both)`]);
    const prefix = fixed(at("prefix_lower"), 4);
    const wide = at("prefix_lower") !== at("prefix_upper");
    rows.push(["log P of the text up to here", wide ? `${prefix} to ${fixed(at("prefix_upper"), 4)}` : prefix]);
    rows.push(["rank", count === 1 ? "the only token" : data.ranks[i] === 1 ? "least likely of all" : `${ordinal(data.ranks[i])} least likely`]);
    rows.push(["non-canonical mass", mass(at("noncanonical_mass"))]);
    if (at("inadmissible_mass") > 0) rows.push(["inadmissible mass", mass(at("inadmissible_mass"))]);
    rows.push(["teacher rows", String(at("rows"))]);
    rows.push(["teacher tokens before its covers", String(at("trunk"))]);
    rows.push(["id", String(token[0])], ["bytes", token[4] ? "end of text" : token[3] - token[2] === 1 ? `${token[2]}` : `${token[2]} to ${token[3] - 1}`]);
    return rows;
  }
  const KIND_NOTES = {
    likely: "whether the student writes the token here depends on what follows; it would, if the text ended there",
    unlikely: "whether the student writes the token here depends on what follows; it would not, if the text ended there",
    partly: "in, but for those continuations that are listed apart or are known to be out; the mass is without these",
  };
  function coversOf(i) {
    const total = positions.log_covers[i], others = positions.rest[i], covers = positions.covers[i];
    const kinds = positions.kinds[i].map((kind) => data.kinds[kind]), mixed = kinds.some((kind) => kind !== "in");
    const share = (log) => (log === null || total === null ? 0 : Math.exp(log - total));
    const title = el("h3", "", plural(covers.length + others, "cover"));
    const hint = el("p", "hint", students[i][4] ? "The complete text in the teacher\u2019s tokens, and its end."
      : `The teacher\u2019s ways to write the text up to this token. Their masses q sum to ${facts.regime === "general" ? "an upper bound of P" : "P"}; faint is what is written before and beyond the token.`);
    const list = el("ol", "covers");
    covers.forEach(([log, ...path], at) => {
      const line = el("span", "path", ...path.map((entry) => coverChip(entries[entry])));
      if (kinds[at] === "partly") line.append(el("span", "other", "\u2026"));
      list.append(item(line, share(log), log, mixed ? kinds[at] : ""));
    });
    if (others) list.append(item(el("span", "path other", `${plural(others, "other")} together`), share(positions.log_rest[i]), positions.log_rest[i]));
    if (!mixed) return [title, hint, list];
    const notes = kinds.filter((kind, at) => KIND_NOTES[kind] && kinds.indexOf(kind) === at);
    return [title, hint, list, ...notes.map((kind) => el("p", "hint", `${kind}: ${KIND_NOTES[kind]}.`))];
  }
  function item(line, share, log, kind = "") {
    const mark = kind ? [el("small", "kind", kind)] : [];
    const value = el("span", "share", percent(share), el("small", "", `q = ${scientificLog(log)}`), ...mark);
    const node = el("li", kind, line, value);
    node.style.setProperty("--part", share > 0 ? `max(1px, ${(100 * Math.min(1, share)).toFixed(3)}%)` : "0");
    return node;
  }
  function coverChip([id, before, inside, beyond, isEnd]) {
    const chip = el("span", "chip");
    chip.title = `teacher token, id ${id}`;
    if (isEnd) chip.append(el("span", "in end", "end"));
    else for (const [piece, classes] of [[before, "other"], [inside, "in"], [beyond, "other"]]) {
      if (pieces[piece].length) chip.append(el("span", classes, ...runs(piece)));
    }
    return chip;
  }

  // ---- the chart ----
  const HEIGHT = 112, TOP = 6, BASE = 110;
  const SVG = "http://www.w3.org/2000/svg";
  const shape = (tag, attributes) => {
    const node = document.createElementNS(SVG, tag);
    for (const name in attributes) node.setAttribute(name, attributes[name]);
    return node;
  };
  const series = {
    bits: { of: bits, unit: "bits", least: 1 },
    removed: { of: (i) => positions.noncanonical_mass[i], unit: "", least: 1e-9 },
  };
  let chosen = "bits", step = 6, marks = {};
  function drawChart() {
    const svg = byId("svg"), { of, least } = series[chosen];
    const room = byId("scroll").clientWidth || 800;
    step = Math.max(2, Math.min(44, room / Math.max(1, count)));
    const width = Math.max(room, Math.ceil(step * count));
    const values = students.map((_, i) => of(i));
    const top = Math.max(least, ...values.filter(Number.isFinite));
    const height = (value) => (Math.min(value, top) / top) * (BASE - TOP);
    svg.replaceChildren();
    for (const [name, value] of Object.entries({ width, height: HEIGHT, viewBox: `0 0 ${width} ${HEIGHT}` })) svg.setAttribute(name, value);
    svg.setAttribute("aria-label", `${chosen === "bits" ? "surprise in bits" : "non-canonical mass"} of ${plural(count, "student token")}`);
    byId("axis").replaceChildren();
    for (const tick of ticks(top)) {
      const y = BASE - height(tick);
      svg.append(shape("line", { class: "grid", x1: 0, x2: width, y1: y, y2: y }));
      const label = el("span", "", tick === 0 ? "0" : tick >= 0.01 ? String(tick) : tick.toExponential(0).replace("-", "\u2212"));
      label.style.top = `${y}px`;
      byId("axis").append(label);
    }
    marks = { cursor: shape("rect", { class: "cursor" }), preview: shape("rect", { class: "preview" }) };
    for (const mark of Object.values(marks)) for (const [name, value] of [["y", 0], ["height", HEIGHT], ["width", 0]]) mark.setAttribute(name, value);
    svg.append(marks.cursor, marks.preview);
    values.forEach((value, i) => {
      const tall = Math.max(Number.isFinite(value) ? height(value) : BASE - TOP, 0.75), gap = step > 5 ? 1 : 0;
      const bar = shape("rect", { class: chosen === "bits" ? "bit" : "removed", x: i * step + gap / 2, y: BASE - tall, width: step - gap, height: tall });
      if (chosen === "bits") bar.style.fill = `var(--g${positions.bin[i]})`;
      svg.append(bar);
    });
    markBars();
  }
  function ticks(top) {
    const rough = top / 3, power = 10 ** Math.floor(Math.log10(rough));
    const size = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough);
    return Array.from({ length: Math.floor(top / size + 1e-9) + 1 }, (_, n) => Number((n * size).toPrecision(3)));
  }
  function markBars() {
    for (const [name, at] of [["cursor", current], ["preview", preview]]) {
      marks[name].setAttribute("width", at < 0 ? 0 : Math.max(step, 3));
      marks[name].setAttribute("x", at < 0 ? 0 : at * step);
    }
  }

  // ---- choosing ----
  function refresh() {
    const shown = preview >= 0 ? preview : current;
    for (const node of document.querySelectorAll(".on")) node.classList.remove("on");
    if (shown >= 0) {
      chips[shown].classList.add("on");
      const [, , start, end, isEnd] = students[shown];
      teachers.forEach((token, t) => {
        const meets = isEnd ? token[4] : token[2] < end && token[3] > start;
        if (meets) teacherChips[t].forEach((chip) => chip.classList.add("on"));
      });
    }
    drawPanel(shown);
    markBars();
    byId("reading").textContent = shown < 0 ? "" : reading(shown);
  }
  function reading(i) {
    const name = students[i][4] ? "end" : `\u201c${plain(students[i][1])}\u201d`;
    const value = chosen === "bits" ? (Number.isFinite(bits(i)) ? `${bits(i).toFixed(2)} bits` : "impossible") : mass(positions.noncanonical_mass[i]);
    return `${i + 1}  ${name.length > 24 ? name.slice(0, 22) + "\u2026\u201d" : name}: ${value}`;
  }
  function look(i) {
    if (i === preview) return;
    preview = i;
    refresh();
  }
  function choose(i, { focus = false, scroll = false } = {}) {
    if (i < 0 || i >= count) return;
    if (current >= 0) {
      chips[current].classList.remove("current");
      chips[current].tabIndex = -1;
      chips[current].setAttribute("aria-selected", "false");
    }
    current = i;
    chips[i].classList.add("current");
    chips[i].tabIndex = 0;
    chips[i].setAttribute("aria-selected", "true");
    if (focus) chips[i].focus({ preventScroll: !scroll });
    if (scroll) chips[i].scrollIntoView({ block: "center" });
    const box = byId("scroll"), x = i * step;
    if (x < box.scrollLeft || x > box.scrollLeft + box.clientWidth - step) box.scrollLeft = x - box.clientWidth / 2;
    refresh();
  }
  function nextLine(way) {
    const here = chips[current].getBoundingClientRect(), middle = (here.left + here.right) / 2;
    let best = current, line = null, near = Infinity;
    for (let i = current + way; i >= 0 && i < count; i += way) {
      const box = chips[i].getBoundingClientRect();
      if (Math.abs(box.top - here.top) < 4) continue;
      line ??= box.top;
      if (Math.abs(box.top - line) > 4) break;
      const off = Math.abs((box.left + box.right) / 2 - middle);
      if (off < near) [best, near] = [i, off];
    }
    return best;
  }
  function listen() {
    const text = byId("text"), svg = byId("svg");
    const chipAt = (event) => Number(event.target.closest(".s")?.dataset.i ?? -1);
    text.addEventListener("pointerover", (event) => look(chipAt(event)));
    text.addEventListener("pointerleave", () => look(-1));
    text.addEventListener("click", (event) => choose(chipAt(event), { focus: true }));
    text.addEventListener("focusin", (event) => { if (chipAt(event) !== current) choose(chipAt(event)); });
    text.addEventListener("keydown", (event) => {
      const to = { ArrowRight: () => current + 1, ArrowLeft: () => current - 1, Home: () => 0, End: () => count - 1,
        ArrowDown: () => nextLine(1), ArrowUp: () => nextLine(-1) }[event.key];
      if (!to || event.altKey || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      preview = -1;
      choose(Math.max(0, Math.min(count - 1, to())), { focus: true });
      chips[current].scrollIntoView({ block: "nearest" });
    });
    const barAt = (event) => {
      const i = Math.floor((event.clientX - svg.getBoundingClientRect().left) / step);
      return i >= 0 && i < count ? i : -1;
    };
    svg.addEventListener("pointermove", (event) => look(barAt(event)));
    svg.addEventListener("pointerleave", () => look(-1));
    svg.addEventListener("click", (event) => choose(barAt(event), { focus: true, scroll: true }));
    for (const button of document.querySelectorAll("[data-series]")) button.addEventListener("click", () => {
      chosen = button.dataset.series;
      for (const other of document.querySelectorAll("[data-series]")) other.setAttribute("aria-pressed", String(other === button));
      drawChart();
      refresh();
    });
    window.addEventListener("resize", drawChart);
    const root = document.documentElement, themes = ["auto", "light", "dark"];
    const name = () => { byId("theme").textContent = `theme: ${root.dataset.theme}`; };
    byId("theme").addEventListener("click", () => {
      root.dataset.theme = themes[(themes.indexOf(root.dataset.theme) + 1) % themes.length];
      name();
    });
    name();
  }

  drawFacts();
  drawLegend();
  drawText();
  drawChart();
  listen();
  // The page's address may name a token (#3 is the third); else the least likely one is shown.
  const named = Number(/^#(\d+)$/.exec(window.location.hash)?.[1] ?? 0) - 1;
  choose(named >= 0 && named < count ? named : data.ranks.indexOf(1), { scroll: named >= 0 });
})();
