// Sort, filter, search and the drawer of the leaderboard. No library but Vega, nothing fetched, nothing stored.
// Text of cards goes through textContent or setAttribute only, never through innerHTML.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const drawing = JSON.parse(document.getElementById("drawing").textContent);
  const details = data.details || {};
  const byKey = new Map(data.tests.map((test) => [test.key, test]));
  const $ = (id) => document.getElementById(id);
  const SHOWN = 100; // rows of a table that are drawn at once; more are a click away
  const [CARD, VALUE, LOW, HIGH, GROUP, PARSED, TOKENS, COST, FRONTS, SEEN, PRICE] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10];
  const [RUNS, DEVIATION, LENIENT, CUT, THOUGHT] = [11, 12, 13, 14, 15]; // runs: number, null, or card, value, low, high of each
  // the last two of answers that were not generated directly
  const lenient = (test) => test.rows.some((row) => row[LENIENT] !== null);
  const generated = (test) => test.rows.some((row) => row.length > THOUGHT);
  const trained = (row) => (Array.isArray(row[RUNS]) ? row[RUNS].length : row[RUNS]);
  const trainings = (row) => (trained(row) === 1 ? "1 training" : `${trained(row)} trainings`);
  const shows = (row, passed) => passed[row[CARD]] || (Array.isArray(row[RUNS]) && row[RUNS].some(([card]) => passed[card]));
  const priced = (test) => test.rows.some((row) => row[PRICE] !== null);
  const state = { tab: "overview", test: null, sort: {}, all: false, open: {} };

  // ---------------------------------------------------------------- small helpers

  function h(name, attributes, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes || {})) {
      if (value === null || value === undefined || value === false) continue;
      if (key === "on") for (const [event, act] of Object.entries(value)) made.addEventListener(event, act);
      else if (key === "style") Object.assign(made.style, value);
      else made.setAttribute(key, value === true ? "" : value);
    }
    made.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== ""));
    return made;
  }
  const formats = [0, 1, 2, 3].map((digits) => new Intl.NumberFormat("en", { minimumFractionDigits: digits, maximumFractionDigits: digits }));
  const number = (value, digits) => formats[digits].format(value);
  const amount = (value, share) => (share ? number(100 * value, 1) : number(value, 3));
  const span = (low, high, share, between) => (low === null ? "–" : `${amount(low, share)}${between}${amount(high, share)}`);
  const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);
  const none = () => h("span", { class: "none" }, "–");
  const percent = (value) => `${Math.min(100, Math.max(0, 100 * value)).toFixed(2)}%`;

  function short(value) { // 4,884,480 -> 4.88M
    if (value === null || value === undefined) return none();
    for (const [size, unit] of [[1e9, "B"], [1e6, "M"], [1e3, "k"]]) if (value >= size) return `${Number((value / size).toPrecision(3))}${unit}`;
    return String(value);
  }
  function bar(value, low, high) {
    return h("div", { class: "bar", "aria-hidden": "true" },
      h("i", { style: { width: percent(value) } }),
      low === null ? null : h("u", { style: { left: percent(low), width: `calc(${percent(high)} - ${percent(low)})` } }),
      h("s", { style: { left: percent(value) } }));
  }
  function score(row, test) {
    const said = amount(row[VALUE], test.share);
    const limits = span(row[LOW], row[HIGH], test.share, " – ");
    return h("div", { class: "score" }, h("b", {}, said), test.share ? bar(row[VALUE], row[LOW], row[HIGH]) : h("span", {}), h("small", row[LOW] === null ? { title: "no interval: see the row's details" } : {}, limits));
  }
  function group(number_) {
    if (number_ === null) return h("span", { class: "none", title: "no group: nothing to test on, or not above a constant answer" }, "–");
    return h("span", { class: number_ === 1 ? "group first" : "group", title: number_ === 1 ? "not significantly worse than the best" : "significantly worse than the best of the group before" }, String(number_));
  }
  const badge = (level) => h("span", { class: `badge ${level}`, title: data.levels[level] || "" }, level);

  // ---------------------------------------------------------------- filters

  const budget = ["rows", "steps", "rate"]; // of a training; what was not trained passes them, as the reference
  const fields = { base: "base", method: "method", bits: "bits", level: "level", ...Object.fromEntries(budget.map((name) => [name, name])) };
  const valueOf = (card, key) => String(card[key] ?? "not stated");
  for (const [name, key] of Object.entries(fields)) {
    const asked = budget.includes(key) ? data.cards.filter((card) => card.kind !== "base") : data.cards;
    const values = [...new Set(asked.map((card) => valueOf(card, key)))].sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
    for (const value of values) $(`f-${name}`).append(h("option", { value }, budget.includes(key) && value > 0 ? number(value, 0) : value));
    $(`f-${name}`).parentNode.hidden = budget.includes(key) && values.length < 2;
  }
  for (const card of data.cards) card.text = [card.name, card.base, card.what, card.method, card.level, card.key].join(" ").toLowerCase();
  function passes() {
    const words = $("q").value.toLowerCase().split(/\s+/).filter(Boolean);
    const wanted = Object.entries(fields).map(([name, key]) => [key, $(`f-${name}`).value]).filter(([, value]) => value);
    return data.cards.map((card) => words.every((word) => card.text.includes(word)) && wanted.every(([key, value]) => valueOf(card, key) === value || (budget.includes(key) && card.kind === "base")));
  }

  // ---------------------------------------------------------------- tables

  function heading(label, key, options = {}) {
    const sorted = state.sort.key === key ? (state.sort.down ? "descending" : "ascending") : "none";
    const sort = () => {
      state.sort = { key, down: state.sort.key === key ? !state.sort.down : options.down !== false };
      refresh();
      document.querySelector(`[data-sort="${CSS.escape(key)}"]`)?.focus();
    };
    return h("th", { scope: "col", class: options.class, "aria-sort": sorted },
      h("button", { type: "button", "data-sort": key, on: { click: sort } }, label), [options.below].flat().filter(Boolean).map((line) => h("small", {}, line)));
  }
  function ordered(rows, values) {
    const value = values[state.sort.key];
    if (!value) return rows;
    const sign = state.sort.down ? -1 : 1;
    return rows.map((row) => [value(row), row]).sort(([a], [b]) => {
      if (a === null || a === undefined) return b === null || b === undefined ? 0 : 1;
      if (b === null || b === undefined) return -1;
      return sign * (typeof a === "string" ? a.localeCompare(b, "en", { numeric: true }) : a - b);
    }).map(([, row]) => row);
  }
  function more(total) {
    if (state.all || total <= SHOWN) return null;
    return h("p", { class: "more" }, h("button", { class: "button", type: "button", on: { click: () => { state.all = true; refresh(); } } }, `Show all ${number(total, 0)} rows`));
  }
  function who(card, test, brief, row) { // brief: method, rank and bits have columns of their own, except on a phone
    return h("th", { scope: "row", class: "who" },
      h("button", { class: "open", type: "button", on: { click: () => drawer(card, test) } }, card.name),
      h("span", { class: "sub" }, card.kind === "base" ? null : h("span", { class: brief ? "narrow" : null }, `${card.what} on `), card.kind === "base" ? (card.bits === 16 ? "base" : `base, ${card.bits} bits`) : card.base, row && trained(row) ? h("span", { class: "narrow" }, `, ${trainings(row)}`) : null));
  }

  function testTable(test, passed) {
    const card = (row) => data.cards[row[CARD]];
    const stated = test.rows.some((row) => card(row).rows !== undefined);
    const columns = [
      ["Group", "group", (row) => row[GROUP], { down: false }],
      ["Subject", "name", (row) => card(row).name, { down: false, class: "who" }],
      ["Method", "method", (row) => card(row).method, { down: false, class: "wide" }],
      ["Bits", "bits", (row) => card(row).bits, { class: "n wide" }],
      ["Rank", "rank", (row) => card(row).rank, { class: "n wide" }],
      ["Trainings", "trainings", trained, { class: "n wide", below: test.share ? "± points" : "± deviation" }],
      ...(stated ? [
        ["Rows", "rows", (row) => card(row).rows, { class: "n wide", below: "of training" }],
        ["Steps", "steps", (row) => card(row).steps, { class: "n wide", below: "of training" }],
        ["Rate", "lr", (row) => card(row).lr, { class: "n wide", below: "learning rate" }]] : []),
      [capital(test.metric), "score", (row) => row[VALUE], { down: !test.lower, below: `${test.share ? "%, " : ""}95 % interval` }],
      ["Parsed", "parsed", (row) => row[PARSED], { class: "n", below: "%" }],
      ...(lenient(test) ? [["Lenient", "lenient", (row) => row[LENIENT], { class: "n", below: test.share ? "%" : null }]] : []),
      ...(generated(test) ? [
        ["Cut off", "cut", (row) => row[CUT] ?? null, { class: "n", below: "% by the budget" }],
        ["Thought", "thought", (row) => row[THOUGHT] ?? null, { class: "n", below: "tokens an answer" }]] : []),
      ...(priced(test) ? [["Price", "price", (row) => row[PRICE], { class: "n", below: "$ / 1,000 docs" }]] : []),
      ["Trainable", "parameters", (row) => card(row).parameters, { class: "n wide", below: "parameters" }],
      ["Memory", "memory", (row) => card(row).memory || null, { class: "n wide", below: "peak, GB" }],
      ["Tokens/s", "tokens", (row) => row[TOKENS], { class: "n wide", below: "prompt" }],
      ["Cost", "cost", (row) => row[COST], { class: "n wide", below: "s / 1,000 docs" }],
      ["Evidence", "level", (row) => card(row).level, { class: "wide", down: false }],
    ];
    const rows = ordered(test.rows.filter((row) => shows(row, passed)), Object.fromEntries(columns.map(([, key, value]) => [key, value])));
    const plain = !state.sort.key || state.sort.key === "group";
    let before = null;
    const line = (row) => {
      const mine = card(row);
      const seen = row[SEEN] ? h("span", { class: "sub warn" }, `trained on ${number(100 * row[SEEN], 1)} % of this test`) : null;
      const subject = who(mine, test, true, row);
      if (seen) subject.append(seen);
      return h("tr", { class: [mine.kind === "base" && "isbase", mine.level === "revoked" && "revoked"].filter(Boolean).join(" ") || null },
        h("td", {}, group(row[GROUP])), subject,
        h("td", { class: "wide" }, mine.method), h("td", { class: "n wide" }, String(mine.bits)), h("td", { class: "n wide" }, mine.rank === null ? none() : String(mine.rank)),
        h("td", { class: "n wide" }, !trained(row) ? none() : trained(row) === 1 ? h("span", { class: "warn", title: "one seed: another may score otherwise" }, "1") : `${trained(row)} ± ${amount(row[DEVIATION], test.share)}`),
        stated ? [
          h("td", { class: "n wide" }, mine.rows === undefined ? none() : number(mine.rows, 0)),
          h("td", { class: "n wide" }, mine.steps === undefined ? none() : number(mine.steps, 0)),
          h("td", { class: "n wide" }, mine.lr === undefined ? none() : [mine.lr.toExponential(), h("span", { class: "sub" }, mine.rate)])] : null,
        h("td", {}, score(row, test)),
        h("td", { class: row[PARSED] < 0.9 ? "n warn" : "n" }, number(100 * row[PARSED], 1)),
        lenient(test) ? h("td", { class: "n" }, row[LENIENT] === null ? none() : amount(row[LENIENT], test.share)) : null,
        generated(test) ? [
          h("td", { class: row[CUT] > 0.1 ? "n warn" : "n" }, row[CUT] === undefined ? none() : number(100 * row[CUT], 1)),
          h("td", { class: "n" }, row[THOUGHT] === undefined ? none() : number(row[THOUGHT], 0))] : null,
        priced(test) ? h("td", { class: "n" }, row[PRICE] === null ? none() : number(row[PRICE], 2)) : null,
        h("td", { class: "n wide" }, short(mine.parameters)),
        h("td", { class: "n wide" }, mine.memory ? number(mine.memory / 1e9, 1) : none()),
        h("td", { class: "n wide" }, row[TOKENS] === null ? none() : number(row[TOKENS], 0)),
        h("td", { class: "n wide" }, row[COST] === null ? none() : number(row[COST], 0)),
        h("td", { class: "wide" }, badge(mine.level)));
    };
    const body = rows.slice(0, state.all ? undefined : SHOWN).map((row) => {
      row.line ||= line(row); // made once: a filter only chooses among them
      row.line.classList.toggle("cut", plain && before !== null && row[GROUP] !== before);
      before = row[GROUP];
      return row.line;
    });
    const baselines = Object.entries(test.baselines).map(([name, value]) => h("tr", { class: "baseline" },
      h("td", {}), h("th", { scope: "row", class: "who" }, name, h("span", { class: "sub" }, "no model")),
      ...Array.from({ length: 4 + 3 * stated }, () => h("td", { class: "wide" })),
      h("td", {}, h("div", { class: "score isbase" }, h("b", {}, amount(value, test.share)), test.share ? bar(value, value, value) : "")),
      ...Array.from({ length: 1 + lenient(test) + 2 * generated(test) + priced(test) }, () => h("td", {})), ...Array.from({ length: 4 }, () => h("td", { class: "wide" })),
      h("td", { class: "wide" })));
    count(rows.length, test.rows.length);
    const title = `test-${test.key}`;
    return [
      h("h2", { id: title }, test.title, " ", test.whole ? null : h("span", { class: "badge outside" }, `partial: first ${number(test.n, 0)} rows`), test.ranked ? null : h("span", { class: "badge outside" }, "never ranked")),
      h("p", { class: "lead" }, `${capital(test.metric)}${test.share ? " in %" : ""}, n = ${number(test.n, 0)}. ${test.form === "choice" ? "Log-likelihoods of the labels" : "Generated answers, read strictly"}; prompt: ${test.style}. Task version ${test.version} (${test.digests[0]}), data ${test.digests[1]}, licence ${test.licence}.`),
      test.whole ? null : partialNotice(test.n),
      test.seeds ? h("p", { class: "note" }, test.seeds) : null,
      unlike(rows, card),
      h("div", { class: "scroll", role: "region", "aria-labelledby": title, tabindex: "0" },
        h("table", {}, h("thead", {}, h("tr", {}, columns.map(([label, key, , options]) => heading(label, key, options)))), h("tbody", {}, body, baselines))),
      more(rows.length),
    ];
  }
  function unlike(rows, card) { // rows that differ in more than the method say so
    const taught = rows.map(card).filter((one) => one.kind !== "base");
    const sizes = [...new Set(taught.map((one) => one.rows))].filter((size) => size !== undefined).sort((a, b) => a - b);
    const silent = taught.filter((one) => one.rows === undefined).length;
    const said = [
      sizes.length > 1 ? `Trained on ${sizes.map((size) => number(size, 0)).join(", ")} rows: filter by training rows to compare like with like.` : null,
      silent ? `On how many rows ${silent === 1 ? "1 subject was" : `${number(silent, 0)} subjects were`} trained is not stated.` : null].filter(Boolean);
    return taught.length > 1 && said.length ? h("p", { class: "notice" }, said.join(" ")) : null;
  }
  const partialNotice = (n) => h("p", { class: "notice" }, `Partial: only ${number(n, 0)} rows of the test were asked, a random sample of it. Intervals are wide, and nothing here stands beside whole tests.`);

  // ---------------------------------------------------------------- first screen

  const gathered = {};
  function subjectsOf(tests) { // a line each, best first; cards do not change, so this is done once
    const subjects = new Map();
    for (const test of tests) for (const row of test.rows) {
      const card = data.cards[row[CARD]];
      if (!subjects.has(card.who)) subjects.set(card.who, { card, cells: new Map(), firsts: 0, sum: 0 });
      const subject = subjects.get(card.who);
      subject.cells.set(test.key, row);
      subject.firsts += row[GROUP] === 1;
      subject.sum += row[VALUE];
    }
    const mean = (subject) => subject.sum / subject.cells.size;
    return [...subjects.values()].sort((a, b) => b.firsts - a.firsts || mean(b) - mean(a) || a.card.name.localeCompare(b.card.name, "en", { numeric: true }));
  }
  function matrix(keys, passed, prefix) {
    const tests = keys.map((key) => byKey.get(key));
    const every = gathered[prefix] ||= subjectsOf(tests);
    const values = { [`${prefix}name`]: (subject) => subject.card.name };
    for (const test of tests) values[prefix + test.key] = (subject) => subject.cells.get(test.key)?.[VALUE] ?? null;
    const rows = ordered(every.filter((subject) => [...subject.cells.values()].some((row) => shows(row, passed))), values);
    const line = (subject) => h("tr", { class: subject.card.kind === "base" ? "isbase" : null },
      who(subject.card, tests.find((test) => subject.cells.has(test.key)), false, null),
      tests.map((test) => {
        const row = subject.cells.get(test.key);
        if (!row) return h("td", { class: "n cell" }, none());
        const value = amount(row[VALUE], test.share);
        const limits = row[LOW] === null ? "no interval" : `95 % interval ${span(row[LOW], row[HIGH], test.share, " to ")}`;
        const said = `${value}, ${limits}${row[GROUP] ? `, group ${row[GROUP]}` : ""}${trained(row) ? `, ${trainings(row)}` : ""}`;
        return h("td", { class: "n cell" },
          h("button", { type: "button", class: row[GROUP] === 1 ? "first" : null, title: said, "aria-label": `${subject.card.name}, ${test.title}: ${said}`, on: { click: () => drawer(data.cards[row[CARD]], test) } }, value),
          test.share ? bar(row[VALUE], row[LOW], row[HIGH]) : null);
      }));
    const body = rows.slice(0, state.all ? undefined : SHOWN).map((subject) => subject.line ||= line(subject));
    const baseline = (name) => tests.some((test) => name in test.baselines) ? h("tr", { class: "baseline" }, h("th", { scope: "row", class: "who" }, name),
      tests.map((test) => h("td", { class: "n cell" }, name in test.baselines ? amount(test.baselines[name], test.share) : ""))) : null;
    return {
      rows: rows.length, of: every.length,
      table: h("div", { class: "scroll", role: "region", "aria-label": "Scores of all tasks", tabindex: "0" }, h("table", { class: "matrix" },
        h("thead", {}, h("tr", {}, heading("Subject", `${prefix}name`, { down: false }),
          tests.map((test) => heading([test.task, ...test.conditions].join(", "), prefix + test.key, { class: "n", down: !test.lower,
            below: [test.metric, `n = ${number(test.n, 0)}`] })))),
        h("tbody", {}, body, [...new Set(tests.flatMap((test) => Object.keys(test.baselines)))].map(baseline)))),
      more: more(rows.length),
    };
  }
  function overview(passed) {
    const [whole, partial] = data.overview;
    const parts = [];
    let [shown, of] = [0, 0];
    if (whole.length) {
      const made = matrix(whole, passed, "w-");
      [shown, of] = [made.rows, made.of];
      parts.push(h("h2", {}, "Whole tests"), h("p", { class: "lead" }, "Main metric of each task; a tinted number is in group 1 of its task: nothing there is significantly better. There is no mean over tasks, for their metrics differ. Click a number for how it comes about."), made.table, made.more);
    } else parts.push(h("h2", {}, "Whole tests"), h("p", { class: "lead" }, "No subject has been scored on a whole test yet."));
    if (partial.length) {
      const made = matrix(partial, passed, "p-");
      if (!whole.length) [shown, of] = [made.rows, made.of];
      const opened = state.open.partial ?? partial.length > whole.length;
      const box = h("details", { class: "partial", open: opened, on: { toggle: (event) => { state.open.partial = event.target.open; } } },
        h("summary", {}, `Partial results: not the whole test, ${partial.length} task${partial.length === 1 ? "" : "s"}, ${made.of} subject${made.of === 1 ? "" : "s"}`),
        h("p", { class: "lead" }, "Only some rows of each test were asked (n below the task): a random sample, or what was imported of the set. Intervals are wide. Nothing here stands beside whole tests."), made.table, made.more);
      parts.push(box);
    }
    count(shown, of);
    return parts;
  }

  // ---------------------------------------------------------------- a family

  function family(name, passed) {
    const tests = data.tests.filter((test) => test.family === name);
    const test = tests.find((found) => found.key === state.test) || tests[0];
    state.test = test.key;
    const pill = (found) => h("button", { type: "button", class: found.whole ? "pill" : "pill partial", "aria-pressed": String(found === test), "data-test": found.key,
      on: { click: () => { go(name, found.key); document.querySelector(`[data-test="${found.key}"]`)?.focus(); } } }, found.form === "choice" && found.family !== "general" ? `${found.title} (log-likelihood)` : found.title);
    const line = (label, chosen) => chosen.length ? h("div", { class: "pills", role: "group", "aria-label": label }, h("span", {}, label), chosen.map(pill)) : null;
    return [line("Whole tests", tests.filter((found) => found.whole)), line("Partial", tests.filter((found) => !found.whole)),
      ...testTable(test, passed), charts(test)];
  }

  // ---------------------------------------------------------------- charts

  const dark = matchMedia("(prefers-color-scheme: dark)");
  let drawn = [];
  function fill(part, words) {
    if (Array.isArray(part)) return part.map((one) => fill(one, words));
    if (part && typeof part === "object") return Object.fromEntries(Object.entries(part).map(([key, one]) => [key, fill(one, words)]));
    return typeof part === "string" && part in words ? words[part] : part;
  }
  function points(test, axis, passed) {
    const scale = test.share ? 100 : 1;
    const made = test.rows.filter((row) => shows(row, passed)).map((row) => {
      const card = data.cards[row[CARD]];
      return { name: card.name, method: card.method, kind: card.kind, machine: { thinking: "tokens, the same on every machine", price: "at the provider's prices" }[axis] || card.machine, x: { cost: row[COST], memory: card.memory ? card.memory / 1e9 : null, thinking: row[THOUGHT] ?? null, price: row[PRICE] }[axis],
        score: scale * row[VALUE], low: row[LOW] === null ? null : scale * row[LOW], high: row[HIGH] === null ? null : scale * row[HIGH], said: amount(row[VALUE], test.share), front: Boolean(row[FRONTS] & { cost: 1, memory: 2, thinking: 4, price: 8 }[axis]) };
    }).filter((point) => point.x !== null);
    const middle = (Math.min(...made.map((point) => point.x)) + Math.max(...made.map((point) => point.x))) / 2;
    const front = made.filter((point) => point.front).sort((a, b) => a.x - b.x);
    const named = front.length <= 4 ? front : [front[0], front[front.length - 1]]; // of a long one its ends only
    for (const point of made) Object.assign(point, { right: point.x > middle, named: named.includes(point) });
    return made;
  }
  function charts(test) {
    const captions = { cost: "Score against cost; dashed: the Pareto front of each kind of machine", memory: "Score against peak memory; dashed: the Pareto front of each kind of machine", thinking: "Score against reasoning; dashed: the Pareto front", price: "Score against price; dashed: the Pareto front" };
    const axes = Object.entries(data.axes).filter(([axis]) => ({ thinking: generated, price: priced }[axis] || (() => true))(test));
    const figures = axes.map(([axis, title]) => h("figure", {},
      h("figcaption", {}, captions[axis]),
      h("div", { class: "plot", "data-axis": axis, role: "img", "aria-label": `${test.title}: score against ${title}; the numbers are in the table above` })));
    return h("div", { class: "charts", "data-test-charts": test.key }, figures);
  }
  async function draw(test, passed) {
    drawn.forEach((result) => result.finalize());
    drawn = [];
    const css = getComputedStyle(document.documentElement);
    const colour = (name) => css.getPropertyValue(name).trim();
    const axis = { labelColor: colour("--soft"), titleColor: colour("--soft"), gridColor: colour("--line"), domainColor: colour("--line"), tickColor: colour("--line"), titleFontWeight: "normal" };
    const config = { background: "transparent", font: "system-ui, sans-serif", view: { stroke: "transparent" }, axis, legend: { labelColor: colour("--ink"), orient: "bottom", symbolOpacity: 1, symbolStrokeWidth: 0 } };
    for (const place of document.querySelectorAll(".plot")) {
      const kind = place.dataset.axis;
      const rows = points(test, kind, passed);
      if (!rows.length) {
        place.replaceChildren(h("p", { class: "note" }, "Nothing to draw: no subject, or not measured."));
        continue;
      }
      const spec = fill(drawing, { "%axis%": data.axes[kind], "%metric%": capital(test.metric) + (test.share ? " in %" : ""), "%soft%": colour("--soft"), "%ink%": colour("--ink") });
      const costs = rows.map((row) => row.x);
      if (costs.length && Math.min(...costs) > 0 && Math.max(...costs) > 20 * Math.min(...costs)) for (const layer of spec.layer) if (layer.encoding.x) { Object.assign(layer.encoding.x.scale, { type: "log", nice: false }); delete layer.encoding.x.scale.zero; }
      drawn.push(await vegaEmbed(place, { ...spec, datasets: { rows } }, { actions: false, ast: true, config, renderer: "svg", tooltip: true, logLevel: 1 }));
      place.querySelector("svg").setAttribute("aria-hidden", "true"); // the place has a label, the table the numbers
    }
  }

  // ---------------------------------------------------------------- the drawer

  const waiting = {};
  window.finbenchDetail = (key, found) => { details[key] = found; waiting[key]?.(found); };
  function load(key) {
    if (details[key]) return Promise.resolve(details[key]);
    return new Promise((resolve, reject) => { // a script, not fetch: this works from a disk too
      waiting[key] = resolve;
      document.head.append(h("script", { src: data.beside[key], on: { error: () => reject(new Error(data.beside[key])) } }));
    });
  }
  const rows2 = (facts) => h("dl", { class: "facts" }, facts.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
  const list = (items) => h("ul", { class: "plain" }, items.map((item) => h("li", {}, item)));
  function table(head, body, caption) {
    return h("div", { class: "scroll", role: "region", tabindex: "0", "aria-label": caption }, h("table", {}, h("thead", {}, h("tr", {}, head.map((cell, at) => h("th", { scope: "col", class: at ? "n" : null }, cell)))),
      h("tbody", {}, body.map((cells) => h("tr", {}, cells.map((cell, at) => at ? h("td", { class: "n" }, cell === null ? none() : String(cell)) : h("th", { scope: "row" }, cell)))))));
  }
  function taken(found) {
    if (!found) return h("p", { class: "note" }, "No samples, or only hashed ones: this number cannot be taken apart.");
    if (found.kind === "confusion") {
      return h("div", { class: "scroll", role: "region", tabindex: "0", "aria-label": "Confusion matrix" }, h("table", { class: "heat" },
        h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "gold, read as"), [...found.labels, "unparsed"].map((label) => h("th", { scope: "col" }, label)))),
        h("tbody", {}, found.counts.map((row, gold) => {
          const all = row.reduce((a, b) => a + b, 0) || 1;
          return h("tr", {}, h("th", { scope: "row" }, found.labels[gold]), row.map((cell, read) => h("td", {
            title: `${number(100 * cell / all, 1)} % of ${found.labels[gold]}`,
            style: { background: `color-mix(in srgb, var(${read === gold ? "--bar" : "--warn"}) ${(55 * cell / all).toFixed(0)}%, transparent)` } }, number(cell, 0))));
        }))), h("p", { class: "note" }, "Documents; shaded by their share of the gold label."));
    }
    const f1 = (value) => value === null ? null : number(100 * value, 1);
    if (found.kind === "types" || found.kind === "questions") return table([found.kind === "types" ? "type" : "question", "found", "false", "missed", "F1"], found.rows.map(([name, hits, wrong, missed, value]) => [name, hits, wrong, missed, f1(value)]), "Scores by part");
    if (found.kind === "tags") return h("div", {}, table(["gold tag", "documents", "found", "most often read instead"], found.rows, "Scores by tag"), h("p", { class: "note" }, `The commonest of ${number(found.of, 0)} tags.`));
    if (found.kind === "numbers") return rows2([["Unparsed", number(found.unparsed, 0)], ["Absolute error", found.quartiles.length ? `median ${found.quartiles[1]}, half of them between ${found.quartiles[0]} and ${found.quartiles[2]}` : "no number was read"]]);
    const total = found.right + found.wrong + found.unparsed || 1;
    return h("div", {}, h("div", { class: "stack", "aria-hidden": "true" }, [found.right, found.wrong, found.unparsed].map((part) => h("i", { style: { width: percent(part / total) } }))),
      h("p", { class: "note" }, `${number(found.right, 0)} right, ${number(found.wrong, 0)} wrong, ${number(found.unparsed, 0)} unparsed of ${number(total, 0)}.`));
  }
  function step([why, command]) {
    const copy = h("button", { class: "button", type: "button", on: { click: async () => {
      await navigator.clipboard.writeText(command);
      copy.textContent = "Copied";
    } } }, "Copy");
    return h("div", { class: "step" }, h("p", {}, why), h("div", {}, h("pre", { tabindex: "0" }, command), navigator.clipboard ? copy : null));
  }
  function opened(card) { // the drawer with a card's head, and the place for the rest
    const place = $("drawer-body");
    const close = h("button", { class: "button", type: "button", on: { click: () => $("drawer").close() } }, "Close");
    const head = h("div", { class: "drawer-head" }, h("div", {}, h("h2", { id: "drawer-title" }, card.name), h("p", {}, badge(card.level), " ", h("span", { class: "note" }, `${card.what}; ${data.levels[card.level] || ""}`))), close);
    place.replaceChildren(head);
    if (!$("drawer").open) $("drawer").showModal();
    close.focus();
    $("drawer").scrollTop = 0;
    return place;
  }
  function together(card, test, rows) { // a recipe: its trainings, each with a drawer of its own
    const place = opened(card);
    for (const row of rows) {
      const lines = row[RUNS].map(([at, value, low, high]) => h("tr", {}, h("th", { scope: "row" }, h("button", { class: "open", type: "button", on: { click: () => drawer(data.cards[at], test) } }, data.cards[at].name)),
        h("td", { class: "n" }, amount(value, test.share)), h("td", { class: "n" }, span(low, high, test.share, " – "))));
      place.append(h("h3", {}, `${test.title}, n = ${number(test.n, 0)}: ${trainings(row)}`),
        h("p", { class: "note" }, row[DEVIATION] === null ? "One seed of several of this recipe." : `Mean ${amount(row[VALUE], test.share)}, over documents and seeds ${span(row[LOW], row[HIGH], test.share, " – ")}; standard deviation between seeds ${amount(row[DEVIATION], test.share)}.`),
        h("div", { class: "scroll", role: "region", tabindex: "0", "aria-label": "Trainings" }, h("table", {},
          h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "training"), h("th", { scope: "col", class: "n" }, "value"), h("th", { scope: "col", class: "n" }, "95 % interval over documents"))), h("tbody", {}, lines))));
    }
  }
  async function drawer(card, test) {
    const recipe = test.rows.filter((row) => data.cards[row[CARD]] === card && Array.isArray(row[RUNS]));
    if (recipe.length) return together(card, test, recipe);
    const place = opened(card);
    let found;
    try { found = await load(card.key); } catch (fault) {
      place.append(h("p", { class: "notice" }, `The details of this card are in ${fault.message}, which is not beside this page.`));
      return;
    }
    const own = found.scores[test.key];
    const measures = own ? [...own.metrics.map((measure) => ["strict", measure]), ...own.lenient.map((measure) => ["lenient", measure]), ["", own.parsed]] : [];
    place.append(
      h("h3", {}, `${test.title}, n = ${number(test.n, 0)}`),
      ...(own ? [
        table(["metric", "reading", "value", "95 % interval"], measures.map(([how, [name, share, value, low, high]]) => [name, how, amount(value, share), span(low, high, share, " – ")]), "Metrics"),
        h("h3", {}, "Taken apart"), taken(own.breakdown), rows2(own.facts)] : []),
      h("h3", {}, "Reproduce it"), ...found.steps.map(step));
    if (found.recipe) place.append(h("details", {}, h("summary", {}, found.recipe[0]), h("pre", { tabindex: "0" }, found.recipe[1])));
    place.append(h("h3", {}, "Where it comes from"), rows2(found.facts), h("h3", {}, "What was checked"), list(found.checks));
    if (found.notes.length) place.append(h("h3", {}, "What could not be checked"), list(found.notes));
  }
  $("drawer").addEventListener("click", (event) => { if (event.target === $("drawer")) $("drawer").close(); });

  // ---------------------------------------------------------------- putting it together

  function count(shown, of) { $("count").textContent = shown === of ? `${number(of, 0)} subject${of === 1 ? "" : "s"}` : `${number(shown, 0)} of ${number(of, 0)} subjects`; }
  const fixed = ["published", "how"];
  function refresh(whole = true) {
    const passed = passes();
    $("filters").hidden = fixed.includes(state.tab);
    for (const name of ["panel", ...fixed]) if ($(name)) $(name).hidden = name !== (fixed.includes(state.tab) ? state.tab : "panel");
    if (fixed.includes(state.tab)) return;
    $("panel").setAttribute("aria-labelledby", `tab-${state.tab}`);
    const kept = whole ? null : document.querySelector(".charts");
    const parts = (state.tab === "overview" ? overview(passed) : family(state.tab, passed)).filter(Boolean);
    if (kept) parts[parts.length - 1] = kept;
    $("panel").replaceChildren(...parts);
    clearTimeout(refresh.timer);
    if (state.tab !== "overview") refresh.timer = setTimeout(() => draw(byKey.get(state.test), passed), whole ? 0 : 250);
  }
  function go(tab, test = null) {
    Object.assign(state, { tab, test, sort: {}, all: false });
    for (const button of document.querySelectorAll("[role=tab]")) {
      const mine = button.dataset.tab === tab;
      button.setAttribute("aria-selected", String(mine));
      button.tabIndex = mine ? 0 : -1;
      if (mine) button.scrollIntoView({ block: "nearest", inline: "nearest" });
    }
    refresh();
    const hash = tab === "overview" ? "" : `#${[tab, state.test].filter(Boolean).join("/")}`;
    if (hash !== location.hash) history.replaceState(null, "", hash || location.pathname + location.search);
  }
  function follow() {
    const [tab, test] = decodeURIComponent(location.hash.slice(1)).split("/");
    const known = [...document.querySelectorAll("[role=tab]")].some((button) => button.dataset.tab === tab);
    go(known ? tab : "overview", byKey.has(test) ? test : null);
  }
  const tabs = [...document.querySelectorAll("[role=tab]")];
  tabs.forEach((button, at) => {
    button.addEventListener("click", () => go(button.dataset.tab));
    button.addEventListener("keydown", (event) => {
      const step_ = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      const next = event.key === "Home" ? tabs[0] : event.key === "End" ? tabs[tabs.length - 1] : step_ ? tabs[(at + step_ + tabs.length) % tabs.length] : null;
      if (next) { event.preventDefault(); go(next.dataset.tab); next.focus(); }
    });
  });
  $("to-how").addEventListener("click", (event) => { event.preventDefault(); go("how"); });
  $("filters").addEventListener("submit", (event) => event.preventDefault());
  $("filters").addEventListener("reset", () => setTimeout(() => refresh(false)));
  for (const id of ["q", ...Object.keys(fields).map((name) => `f-${name}`)]) $(id).addEventListener("input", () => refresh(false));
  dark.addEventListener("change", () => refresh());
  addEventListener("hashchange", follow);
  follow();
})();
