/* finbench leaderboard */
// The leaderboard's tables, filters, drawer and pages. No library but Vega for the charts; nothing is stored.
// Data lie beside the pages as scripts that call finbench(part, JSON), and are read when they are needed.
// Text of cards goes through textContent or setAttribute only, never through innerHTML.
"use strict";
(() => {
  const { view, key: pageKey, root } = document.body.dataset; // board, task, subject or compare; root: where page/ is
  const $ = (id) => document.getElementById(id);
  const [WHOLE, CELLS] = [150, 1200]; // rows and cells up to which a table is drawn as a whole; of a longer one those in sight are
  const AROUND = 12; // rows above and below them
  const [CARD, VALUE, LOW, HIGH, GROUP, PARSED, TOKENS, COST, FRONTS, SEEN, PRICE] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10];
  const [RUNS, DEVIATION, LENIENT, CUT, THOUGHT] = [11, 12, 13, 14, 15]; // runs: number, null, or card, value, low, high of each
  // the last two of answers that were not generated directly
  const lenient = (rows) => rows.some((row) => row[LENIENT] !== null);
  const generated = (rows) => rows.some((row) => row.length > THOUGHT);
  const priced = (rows) => rows.some((row) => row[PRICE] !== null);
  const trained = (row) => (Array.isArray(row[RUNS]) ? row[RUNS].length : row[RUNS]);
  const trainings = (many) => (many === 1 ? "1 training" : `${many} trainings`);
  const state = { tab: "overview", test: null, sort: {}, all: false, open: {}, row: null };
  let heads, byKey, overviews; // of the tests; the first screen's two tables, at first their first lines only
  let cards = []; // by their place; with the first lines come those that they need

  // ---------------------------------------------------------------- parts that lie beside the page

  const parts = {};
  const asked = {};
  window.finbench = (part, text) => { parts[part] = JSON.parse(text); };
  function need(part) { // a script, not fetch: this works from a disk too
    return asked[part] ||= parts[part] ? Promise.resolve() : new Promise((resolve, reject) => {
      const failed = () => { delete asked[part]; reject(new Error(`page/${part}.js`)); };
      document.head.append(h("script", { src: `${root}${part}.js`, on: { load: () => (parts[part] ? resolve() : failed()), error: failed } }));
    });
  }
  const absent = (fault) => h("p", { class: "notice", role: "alert" }, `What belongs here is in ${fault.message}, which is not beside this page. finbench leaderboard build writes it.`);
  const rowsOf = (test) => parts[`task/${test.file}`];

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
  const badge = (level) => h("span", { class: `badge ${level}`, title: heads.levels[level] || "" }, level);

  // ---------------------------------------------------------------- filters

  const budget = ["rows", "steps", "rate"]; // of a training; what was not trained passes them, as the reference
  const fields = ["base", "method", "format", ...budget, "level"];
  const valueOf = (card, name) => String(card[name] ?? "not stated");
  function offer() {
    for (const name of fields) {
      const values = heads.options[name];
      $(`f-${name}`).append(...values.map((value) => h("option", { value }, budget.includes(name) && value > 0 ? number(value, 0) : value)));
      $(`f-${name}`).parentNode.hidden = budget.includes(name) && values.length < 2;
    }
  }
  const filtered = () => $("q").value.trim() !== "" || fields.some((name) => $(`f-${name}`).value);
  function passes() { // by the place of a card
    const words = $("q").value.toLowerCase().split(/\s+/).filter(Boolean);
    const wanted = fields.map((name) => [name, $(`f-${name}`).value]).filter(([, value]) => value);
    return cards.map((card) => {
      card.text ||= [card.name, card.base, card.what, card.method, card.level, card.key].join(" ").toLowerCase();
      return words.every((word) => card.text.includes(word)) && wanted.every(([name, value]) => valueOf(card, name) === value || (budget.includes(name) && card.kind === "base"));
    });
  }
  const shows = (row, passed) => passed[row[CARD]] || (Array.isArray(row[RUNS]) && row[RUNS].some(([card]) => passed[card]));

  // ---------------------------------------------------------------- tables of any length

  let windows = []; // the tables in the panel that draw only what is in sight
  function grid({ label, kind, headings, rows, of = rows.length, line, cut, foot = [], whose, longer }) {
    const head = h("thead", {}, h("tr", {}, headings));
    const short_ = of <= WHOLE && of * headings.length <= CELLS;
    const make = (at) => {
      const made = (short_ ? rows[at].line : null) || line(rows[at]);
      if (short_) rows[at].line = made; // a filter only chooses among lines that are made
      made.classList.toggle("cut", Boolean(cut && at && cut(rows[at], rows[at - 1])));
      return made;
    };
    if (state.all || (short_ && rows.length === of)) {
      const body = h("tbody", {}, rows.map((_, at) => make(at)), foot);
      windows.push({ reach: (who) => body.rows[rows.findIndex((row) => whose(row) === who)], start() {} });
      return [h("div", { class: "scroll", role: "region", tabindex: "0", ...label }, h("table", { class: kind }, head, body))];
    }
    const space = () => h("tbody", { "aria-hidden": "true" }, h("tr", {}, h("td", { class: "space", colspan: headings.length })));
    const [above, body, below] = [space(), h("tbody", {}), space()];
    const table_ = h("table", { class: kind, "aria-rowcount": of + 1 + foot.length }, head, above, body, below, h("tbody", {}, foot));
    const scroller = h("div", { class: "scroll windowed", role: "region", tabindex: "0", ...label }, table_);
    let [from, to, height] = [0, 0, 0];
    const numbered = (at) => { const made = make(at); made.setAttribute("aria-rowindex", at + 2); return made; };
    function draw(first, last) { // rows that stay are not touched, so that a focus among them stays
      const held = body.contains(document.activeElement) ? from + [...body.rows].indexOf(document.activeElement.closest("tr")) : first;
      if (held < first || held >= last) scroller.focus({ preventScroll: true });
      if (last <= from || first >= to) { body.replaceChildren(); [from, to] = [first, first]; }
      for (; from < first; from++) body.firstChild.remove();
      for (; to > last; to--) body.lastChild.remove();
      while (from > first) body.prepend(numbered(--from));
      const added = [];
      while (to < last) added.push(numbered(to++));
      body.append(...added);
      above.rows[0].cells[0].style.height = `${first * height}px`;
      below.rows[0].cells[0].style.height = `${(of - last) * height}px`;
    }
    function show(anew = false) {
      const first = Math.max(0, Math.floor(scroller.scrollTop / height) - AROUND);
      const last = Math.min(rows.length, Math.ceil((scroller.scrollTop + scroller.clientHeight) / height) + AROUND);
      if (anew || first !== from || last !== to) draw(Math.min(first, last), last);
    }
    function start() { // columns keep the widths that the first rows give them
      table_.style.tableLayout = table_.style.width = "";
      const cells = [...head.rows[0].cells];
      for (const cell of cells) cell.style.width = "";
      draw(0, Math.min(rows.length, 2 * AROUND));
      height = body.rows.length ? body.getBoundingClientRect().height / body.rows.length : 1;
      const widths = cells.map((cell) => cell.getBoundingClientRect().width);
      const wide = table_.getBoundingClientRect().width;
      cells.forEach((cell, at) => { cell.style.width = `${widths[at]}px`; });
      Object.assign(table_.style, { tableLayout: "fixed", width: `${wide}px` });
      show(true); // the space above and below is of the new height
    }
    body.addEventListener("focusin", (event) => { // who goes through the rows by Tab never comes to an end that is none
      const at = from + [...body.rows].indexOf(event.target.closest("tr"));
      draw(Math.max(0, Math.min(from, at - AROUND)), Math.min(rows.length, Math.max(to, at + AROUND)));
    });
    let waits = false;
    scroller.addEventListener("scroll", () => {
      if (!waits) requestAnimationFrame(() => { waits = false; show(); });
      waits = true;
    }, { passive: true });
    windows.push({
      start, windowed: true,
      grow: longer && (() => { rows = longer(); show(); }),
      reach(who) {
        const at = rows.findIndex((row) => whose(row) === who);
        if (at < 0) return null;
        scroller.scrollTop = Math.max(0, at * height - scroller.clientHeight / 3);
        show();
        return body.rows[at - from];
      },
    });
    const all = () => { state.all = true; refresh(); };
    return [scroller, h("p", { class: "more" }, h("button", { class: "button", type: "button", on: { click: all } }, `Draw all ${number(of, 0)} rows`), " ", h("span", { class: "note" }, "to print or to copy; the search above finds every row"))];
  }
  let width = innerWidth;
  addEventListener("resize", () => {
    if (width !== innerWidth) for (const one of windows) one.start();
    width = innerWidth;
  });
  addEventListener("keydown", (event) => { // the browser's search would see only the rows in sight
    const long = windows.some((one) => one.windowed) && $("q") && document.activeElement !== $("q") && !$("drawer").open;
    if (!long || event.key.toLowerCase() !== "f" || !(event.ctrlKey || event.metaKey) || event.altKey || event.shiftKey) return;
    event.preventDefault();
    $("q").select();
    $("q").scrollIntoView({ block: "nearest" });
  });

  function heading(label, key, options = {}) {
    const sorted = state.sort.key === key ? (state.sort.down ? "descending" : "ascending") : "none";
    const sort = async () => {
      state.sort = { key, down: state.sort.key === key ? !state.sort.down : options.down !== false };
      await refresh();
      document.querySelector(`[data-sort="${CSS.escape(key)}"]`)?.focus({ preventScroll: true });
    };
    return h("th", { scope: "col", class: options.class, "aria-sort": sorted },
      h("button", { type: "button", "data-sort": key, on: { click: sort } }, label), [options.below].flat().filter(Boolean).map((line) => h("small", {}, line)));
  }
  const natural = new Intl.Collator("en", { numeric: true }).compare;
  function ordered(rows, values) {
    const value = values[state.sort.key];
    if (!value) return rows;
    const sign = state.sort.down ? -1 : 1;
    return rows.map((row) => [value(row), row]).sort(([a], [b]) => {
      if (a === null || a === undefined) return b === null || b === undefined ? 0 : 1;
      if (b === null || b === undefined) return -1;
      return sign * (typeof a === "string" ? natural(a, b) : a - b);
    }).map(([, row]) => row);
  }
  const subjectPage = (card) => `${root}subject/${card.who}.html`;
  function opens(card, act, attributes, label) { // a link, so that it can be kept or opened beside; a click opens the drawer
    const click = (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
      event.preventDefault();
      act();
    };
    return h("a", { href: subjectPage(card), ...attributes, on: { click } }, label);
  }
  function who(card, act, brief, row) { // brief: method, rank and format have columns of their own, except on a phone
    return h("th", { scope: "row", class: "who" },
      opens(card, act, { class: "open", title: card.name }, card.name),
      h("span", { class: "sub" }, card.kind === "base" ? null : h("span", { class: brief ? "narrow" : null }, `${card.what} on `), card.kind === "base" ? card.what : card.base, row && trained(row) ? h("span", { class: "narrow" }, `, ${trainings(trained(row))}`) : null));
  }

  // ---------------------------------------------------------------- a test

  function testTable(test, passed) {
    const every = rowsOf(test);
    const card = (row) => cards[row[CARD]];
    const [hasLenient, hasGenerated, hasPrice] = [lenient(every), generated(every), priced(every)];
    const stated = every.some((row) => card(row).rows !== undefined);
    const columns = [
      ["Group", "group", (row) => row[GROUP], { down: false }],
      ["Subject", "name", (row) => card(row).name, { down: false, class: "who" }],
      ["Method", "method", (row) => card(row).method, { down: false, class: "wide" }],
      ["Format", "format", (row) => card(row).format, { down: false, class: "wide" }],
      ["Rank", "rank", (row) => card(row).rank, { class: "n wide extra" }],
      ["Trainings", "trainings", trained, { class: "n wide", below: test.share ? "± points" : "± deviation" }],
      ...(stated ? [
        ["Rows", "rows", (row) => card(row).rows, { class: "n wide", below: "of training" }],
        ["Steps", "steps", (row) => card(row).steps, { class: "n wide", below: "of training" }],
        ["Rate", "lr", (row) => card(row).lr, { class: "n wide extra", below: "learning rate" }]] : []),
      [capital(test.metric), "score", (row) => row[VALUE], { down: !test.lower, below: `${test.share ? "%, " : ""}95 % interval` }],
      ["Parsed", "parsed", (row) => row[PARSED], { class: "n", below: "%" }],
      ...(hasLenient ? [["Lenient", "lenient", (row) => row[LENIENT], { class: "n", below: test.share ? "%" : null }]] : []),
      ...(hasGenerated ? [
        ["Cut off", "cut", (row) => row[CUT] ?? null, { class: "n", below: "% by the budget" }],
        ["Thought", "thought", (row) => row[THOUGHT] ?? null, { class: "n", below: "tokens an answer" }]] : []),
      ...(hasPrice ? [["Price", "price", (row) => row[PRICE], { class: "n", below: "$ / 1,000 docs" }]] : []),
      ["Trainable", "parameters", (row) => card(row).parameters, { class: "n wide extra", below: "parameters" }],
      ["Memory", "memory", (row) => card(row).memory || null, { class: "n wide", below: "peak, GB" }],
      ["Tokens/s", "tokens", (row) => row[TOKENS], { class: "n wide extra", below: "prompt" }],
      ["Cost", "cost", (row) => row[COST], { class: "n wide", below: "s / 1,000 docs" }],
      ["Evidence", "level", (row) => card(row).level, { class: "wide", down: false }],
    ];
    const rows = ordered(every.filter((row) => shows(row, passed)), Object.fromEntries(columns.map(([, key, value]) => [key, value])));
    const plain = !state.sort.key || state.sort.key === "group";
    const line = (row) => {
      const mine = card(row);
      const seen = row[SEEN] ? h("span", { class: "sub warn" }, `trained on ${number(100 * row[SEEN], 1)} % of this test`) : null;
      const subject = who(mine, () => drawer(mine, test, every.filter((one) => card(one) === mine)), true, row);
      if (seen) subject.append(seen);
      return h("tr", { class: [mine.kind === "base" && "isbase", mine.level === "revoked" && "revoked"].filter(Boolean).join(" ") || null },
        h("td", {}, group(row[GROUP])), subject,
        h("td", { class: "wide" }, mine.method), h("td", { class: "wide" }, mine.format), h("td", { class: "n wide extra" }, mine.rank === null ? none() : String(mine.rank)),
        h("td", { class: "n wide" }, !trained(row) ? none() : trained(row) === 1 ? h("span", { class: "warn", title: "one seed: another may score otherwise" }, "1") : `${trained(row)} ± ${amount(row[DEVIATION], test.share)}`),
        stated ? [
          h("td", { class: "n wide" }, mine.rows === undefined ? none() : number(mine.rows, 0)),
          h("td", { class: "n wide" }, mine.steps === undefined ? none() : number(mine.steps, 0)),
          h("td", { class: "n wide extra" }, mine.lr === undefined ? none() : [mine.lr.toExponential(), h("span", { class: "sub" }, mine.rate)])] : null,
        h("td", {}, score(row, test)),
        h("td", { class: row[PARSED] < 0.9 ? "n warn" : "n" }, number(100 * row[PARSED], 1)),
        hasLenient ? h("td", { class: "n" }, row[LENIENT] === null ? none() : amount(row[LENIENT], test.share)) : null,
        hasGenerated ? [
          h("td", { class: row[CUT] > 0.1 ? "n warn" : "n" }, row[CUT] === undefined ? none() : number(100 * row[CUT], 1)),
          h("td", { class: "n" }, row[THOUGHT] === undefined ? none() : number(row[THOUGHT], 0))] : null,
        hasPrice ? h("td", { class: "n" }, row[PRICE] === null ? none() : number(row[PRICE], 2)) : null,
        h("td", { class: "n wide extra" }, short(mine.parameters)),
        h("td", { class: "n wide" }, mine.memory ? number(mine.memory / 1e9, 1) : none()),
        h("td", { class: "n wide extra" }, row[TOKENS] === null ? none() : number(row[TOKENS], 0)),
        h("td", { class: "n wide" }, row[COST] === null ? none() : number(row[COST], 0)),
        h("td", { class: "wide" }, badge(mine.level)));
    };
    const baselines = Object.entries(test.baselines).map(([name, value]) => h("tr", { class: "baseline" }, columns.map(([, key, , options]) => ({
      name: () => h("th", { scope: "row", class: "who" }, name, h("span", { class: "sub" }, "no model")),
      score: () => h("td", {}, h("div", { class: "score isbase" }, h("b", {}, amount(value, test.share)), test.share ? bar(value, value, value) : h("span", {}), h("small", { class: "gap" }, span(value, value, test.share, " – ")))),
    }[key] || (() => h("td", { class: options.class })))())));
    count(rows.length, every.length);
    const title = `test-${test.key}`;
    return [
      h("h2", { id: title }, test.title, " ", test.whole ? null : h("span", { class: "badge outside" }, `partial: ${test.sampled ? "a sample of " : ""}${number(test.n, 0)} rows`), test.ranked ? null : h("span", { class: "badge outside" }, "never ranked")),
      h("p", { class: "lead" }, `${capital(test.metric)}${test.share ? " in %" : ""}, n = ${number(test.n, 0)}. ${test.form === "choice" ? "Log-likelihoods of the labels" : "Generated answers, read strictly"}; prompt: ${test.style}. Task version ${test.version} (${test.digests[0]}), data ${test.digests[1]}, licence ${test.licence}.`),
      test.whole ? null : partialNotice(test),
      test.seeds ? h("p", { class: "note" }, test.seeds) : null,
      unlike(rows, card),
      ...grid({ label: { "aria-labelledby": title }, headings: columns.map(([label, key, , options]) => heading(label, key, options)), rows, line,
        cut: plain ? (row, before) => row[GROUP] !== before[GROUP] : null, foot: baselines, whose: (row) => card(row).who }),
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
  const partialNotice = (test) => h("p", { class: "notice" }, `Partial: only ${number(test.n, 0)} rows of the test were asked, ${test.sampled ? "a random sample of " : "all of "}${test.imported ? `the ${number(100 * test.imported, 1)} % of the authors' set that were imported` : "it"}. Intervals are wider than of all rows, and nothing here stands beside whole tests.`);

  // ---------------------------------------------------------------- first screen

  function matrix(table, passed, prefix) {
    const tests = table.tests.map((one) => byKey.get(one));
    const subject = ([place]) => cards[place];
    const values = { [`${prefix}name`]: (one) => subject(one).name };
    tests.forEach((test, at) => { values[prefix + test.key] = ([, cells]) => cells[at][0] ?? null; });
    const seen = ([place, cells]) => passed[place] || cells.some((cell) => cell.length > 5 && passed[cell[5]]) || (members.get(cards[place].who) || []).some((one) => passed[one]);
    const rows = ordered(passed ? table.lines.filter(seen) : table.lines, values);
    const open = async (card, place, test) => {
      try { await Promise.all([`task/${test.file}`, "cards"].map(need)); } catch (fault) { opened(card).append(absent(fault)); return; }
      cards = parts.cards;
      drawer(cards[place], test, rowsOf(test).filter((row) => row[CARD] === place));
    };
    const line = (one) => h("tr", { class: subject(one).kind === "base" ? "isbase" : null },
      who(subject(one), () => { const at = one[1].findIndex((cell) => cell.length); open(subject(one), one[1][at][5] ?? one[0], tests[at]); }, false, null),
      one[1].map((cell, at) => {
        if (!cell.length) return h("td", { class: "n cell" }, none());
        const [value, low, high, group_, many, place = one[0]] = cell;
        const test = tests[at];
        const limits = low === null ? "no interval" : `95 % interval ${span(low, high, test.share, " to ")}`;
        const said = `${amount(value, test.share)}, ${limits}${group_ ? `, group ${group_}` : ""}${many ? `, ${trainings(many)}` : ""}`;
        return h("td", { class: "n cell" },
          h("button", { type: "button", class: group_ === 1 ? "first" : null, title: said, "aria-label": `${subject(one).name}, ${test.title}: ${said}`, on: { click: () => open(subject(one), place, test) } }, amount(value, test.share)),
          test.share ? bar(value, low, high) : null);
      }));
    const baseline = (name) => tests.some((test) => name in test.baselines) ? h("tr", { class: "baseline" }, h("th", { scope: "row", class: "who" }, name),
      tests.map((test) => h("td", { class: "n cell" }, name in test.baselines ? amount(test.baselines[name], test.share) : ""))) : null;
    const headings = [heading("Subject", `${prefix}name`, { down: false }), ...tests.map((test) => heading(test.task, prefix + test.key, { class: "n", down: !test.lower, below: [...test.conditions, test.metric, `n = ${number(test.n, 0)}`] }))];
    return {
      rows: passed ? rows.length : table.of,
      parts: grid({ label: { "aria-label": prefix === "w-" ? "Scores of whole tests" : "Scores of partial tests" }, kind: "matrix", headings, rows, of: passed ? rows.length : table.of, line, whose: (one) => subject(one).who, longer: () => overviews[prefix === "w-" ? 0 : 1].lines,
        foot: [...new Set(tests.flatMap((test) => Object.keys(test.baselines)))].map(baseline).filter(Boolean) }),
    };
  }
  const members = new Map(); // places of the cards of a subject: a recipe is found by each of its trainings too
  function gathered() {
    if (gathered.of === cards) return;
    gathered.of = cards;
    members.clear();
    cards.forEach((card, place) => members.set(card.who, [...(members.get(card.who) || []), place]));
  }
  function overview(passed) {
    const [whole, partial] = overviews;
    const made = [];
    let [shown, of] = [0, 0];
    if (passed) gathered();
    if (whole.of) {
      const found = matrix(whole, passed, "w-");
      [shown, of] = [found.rows, whole.of];
      made.push(h("h2", {}, "Whole tests"), h("p", { class: "lead" }, "Main metric of each task; a tinted number is in group 1 of its task: the best there, or one that tests cannot separate from the best. There is no mean over tasks, for their metrics differ. Click a number for how it comes about."), ...found.parts);
    } else made.push(h("h2", {}, "Whole tests"), h("p", { class: "lead" }, "No subject has been scored on a whole test yet."));
    if (partial.of) {
      const found = matrix(partial, passed, "p-");
      if (!whole.of) [shown, of] = [found.rows, partial.of];
      const opened_ = state.open.partial ?? partial.tests.length > whole.tests.length;
      const toggle = (event) => { state.open.partial = event.target.open; if (event.target.open) for (const one of windows) one.start(); };
      made.push(h("details", { class: "partial", open: opened_, on: { toggle } },
        h("summary", {}, `Partial results: not the whole test, ${partial.tests.length} task${partial.tests.length === 1 ? "" : "s"}, ${number(partial.of, 0)} subject${partial.of === 1 ? "" : "s"}`),
        h("p", { class: "lead" }, "Only some rows of each test were asked (n below the task): a random sample, or what was imported of the set. Intervals are wider than of all rows. Nothing here stands beside whole tests."), ...found.parts));
    }
    count(shown, of);
    return made;
  }

  // ---------------------------------------------------------------- a family, a task

  const named = (test) => test.title + (test.form === "choice" && test.family !== "general" ? " (log-likelihood)" : "")
    + (heads.tests.some((other) => other !== test && other.title === test.title && other.form === test.form) ? `, n = ${number(test.n, 0)}` : "");
  const familyOf = (name) => heads.tests.filter((test) => test.family === name);
  function family(name, passed) {
    const test = byKey.get(state.test);
    const pill = (found) => h("button", { type: "button", class: found.whole ? "pill" : "pill partial", "aria-pressed": String(found === test), "data-test": found.key,
      on: { click: async () => { await go(name, found.key); document.querySelector(`[data-test="${found.key}"]`)?.focus(); } } }, named(found));
    const line = (label, chosen) => chosen.length ? h("div", { class: "pills", role: "group", "aria-label": label }, h("span", {}, label), chosen.map(pill)) : null;
    const tests = familyOf(name);
    return [line("Whole tests", tests.filter((found) => found.whole)), line("Partial", tests.filter((found) => !found.whole)),
      ...testTable(test, passed), charts(test)];
  }

  // ---------------------------------------------------------------- a subject, two subjects

  function adopt(part) { // a subject's file counts its cards anew
    const at = cards.length;
    cards.push(...part.cards);
    const moved = (row) => { const own = [...row]; own[CARD] += at; if (Array.isArray(own[RUNS])) own[RUNS] = own[RUNS].map(([card, ...more]) => [card + at, ...more]); return own; };
    const rows = new Map(Object.entries(part.rows).map(([one, found]) => [one, found.map(moved)]));
    return { who: part.who, history: part.history || [], past: part.past || 0, card: cards[[...rows.values()][0][0][CARD]], rows };
  }
  const testLink = (test) => h("a", { href: `${root}task/${test.file}.html` }, named(test));
  const marks = (test) => [test.whole ? null : h("span", { class: "badge outside" }, "partial"), test.ranked ? null : h("span", { class: "badge outside" }, "never ranked")];
  function subject(found) {
    const { card } = found;
    const lines = heads.tests.flatMap((test) => (found.rows.get(test.key) || []).map((row) => h("tr", {},
      h("th", { scope: "row", class: "who" }, testLink(test), " ", marks(test), h("span", { class: "sub" }, `${test.metric}, n = ${number(test.n, 0)}`)),
      h("td", {}, group(row[GROUP])), h("td", {}, score(row, test)), h("td", { class: row[PARSED] < 0.9 ? "n warn" : "n" }, number(100 * row[PARSED], 1)),
      h("td", { class: "n wide" }, trained(row) ? (row[DEVIATION] === null ? String(trained(row)) : `${trained(row)} ± ${amount(row[DEVIATION], test.share)}`) : none()),
      h("td", { class: "wide" }, badge(cards[row[CARD]].level)),
      h("td", {}, h("button", { class: "button", type: "button", "aria-label": `Details: ${test.title}`, on: { click: () => drawer(cards[row[CARD]], test, [row]) } }, "Details")))));
    const here = new URL(`${found.who}.html`, location.href).href;
    const image = new URL(`${found.who}.svg`, location.href).href;
    const address = location.protocol === "file:" ? [`https://WHERE-THE-BOARD-IS/page/subject/${found.who}.svg`, `https://WHERE-THE-BOARD-IS/page/subject/${found.who}.html`] : [image, here];
    return [
      h("h2", {}, card.name, " ", badge(card.level)),
      h("p", { class: "lead" }, `${card.what} on ${card.base}. ${capital(heads.levels[card.level] || "")}.`),
      h("p", {}, h("a", { href: `../compare.html#a=${found.who}` }, "Compare with another subject")),
      h("div", { class: "scroll", role: "region", tabindex: "0", "aria-label": "Scores" }, h("table", {},
        h("thead", {}, h("tr", {}, ["Task", "Group", "Score, 95 % interval", "Parsed, %"].map((name, at) => h("th", { scope: "col", class: at === 3 ? "n" : null }, name)), h("th", { scope: "col", class: "n wide" }, "Trainings"), h("th", { scope: "col", class: "wide" }, "Evidence"), h("td", {}))),
        h("tbody", {}, lines))),
      found.past ? h("details", {}, h("summary", {}, `History: ${number(found.past, 0)} card${found.past === 1 ? "" : "s"} of this subject or with its answers that count nowhere`), list(found.history.map((key) => `${key}.json`)), found.past > found.history.length ? h("p", { class: "note" }, `and ${number(found.past - found.history.length, 0)} more`) : null) : null,
      h("h3", {}, "Badge for a model card"), h("p", {}, h("img", { src: image, alt: `Badge of ${card.name}`, height: 20 })),
      step(["In Markdown", `[![finbench](${address[0]})](${address[1]})`]),
    ];
  }
  const sides = () => { // of the address: #a=subject&b=subject
    const chosen = new URLSearchParams(location.hash.slice(1));
    return ["a", "b"].map((side) => chosen.get(side)).map((one) => (/^[0-9a-f]{10}$/.test(one) ? one : null));
  };
  function compare() {
    const subjects = new Map(parts.cards.map((card) => [card.who, card])); // a recipe's own card comes last
    const taken = new Set();
    const names = new Map([...subjects].map(([one, card]) => { const name = taken.has(card.name) ? `${card.name} (${one})` : card.name; taken.add(name); return [one, name]; }));
    const byName = new Map([...names].map(([one, name]) => [name, one]));
    const chosen = sides();
    const input = (at) => {
      const made = h("input", { id: `subject-${at + 1}`, list: "subjects", value: names.get(chosen[at]) || "", placeholder: "a subject's name", autocomplete: "off" });
      made.addEventListener("change", () => {
        chosen[at] = byName.get(made.value) || "";
        location.hash = `a=${chosen[0] || ""}&b=${chosen[1] || ""}`; // which compares anew
      });
      return h("label", { class: "grow" }, at ? "and " : "Subject ", made);
    };
    const asking = h("form", { id: "filters", "aria-label": "Subjects", on: { submit: (event) => event.preventDefault() } }, input(0), input(1), h("datalist", { id: "subjects" }, [...names.values()].map((value) => h("option", { value }))));
    const head = [h("h2", {}, "Two subjects side by side"), asking];
    if (!chosen.every((one) => names.has(one))) return [...head, h("p", { class: "lead" }, "Choose two subjects; the address of this page then names them.")];
    cards = [];
    const [one, other] = chosen.map((side) => adopt(parts[`subject/${side}`]));
    document.title = `${one.card.name} and ${other.card.name} – finbench leaderboard`;
    const cell = (row, test) => row ? score(row, test) : none();
    const cardOf = (row) => cards[Array.isArray(row[RUNS]) ? row[RUNS][0][0] : row[CARD]];
    const fileOf = (row) => cardOf(row).packed || `leaderboards/scorecards/${cardOf(row).key}.json`;
    let shared = null;
    const lines = heads.tests.filter((test) => one.rows.has(test.key) || other.rows.has(test.key)).map((test) => {
      const [left, right] = [one, other].map((found) => (found.rows.get(test.key) || [])[0]);
      if (left && right) shared ||= [left, right];
      const apart = left && right ? (left[GROUP] === null || right[GROUP] === null ? "no group" : left[GROUP] === right[GROUP] ? `both in group ${left[GROUP]}` : `groups ${left[GROUP]} and ${right[GROUP]}`) : "";
      return h("tr", {}, h("th", { scope: "row", class: "who" }, testLink(test), " ", marks(test), h("span", { class: "sub" }, `${test.metric}, n = ${number(test.n, 0)}`)),
        h("td", {}, cell(left, test)), h("td", {}, cell(right, test)),
        h("td", { class: "n" }, left && right ? `${left[VALUE] > right[VALUE] ? "+" : ""}${amount(left[VALUE] - right[VALUE], test.share)}` : none()), h("td", {}, apart));
    });
    const link = (found) => h("a", { href: subjectPage(found.card) }, found.card.name);
    const quoted = (name) => `'${name.replaceAll("'", "'\\''")}'`;
    return [...head,
      h("p", { class: "lead" }, link(one), ` (${one.card.what} on ${one.card.base}) and `, link(other), ` (${other.card.what} on ${other.card.base}). Groups come from tests against the best of each group. Two subjects of one group may still differ, and of two groups need not: a test of just these two is one command.`),
      shared?.some((row) => cardOf(row).packed) ? step(["Take the cards out of their Parquet files", "finbench leaderboard unpack unpacked"]) : null,
      shared ? step(["Test the difference, document by document", `finbench compare ${shared.map((row) => quoted(fileOf(row))).join(" ")}`]) : h("p", { class: "notice" }, "No test has asked both."),
      h("div", { class: "scroll", role: "region", tabindex: "0", "aria-label": "Scores side by side" }, h("table", {},
        h("thead", {}, h("tr", {}, ["Task", one.card.name, other.card.name, "Difference", "Groups"].map((name, at) => h("th", { scope: "col", class: at === 3 ? "n" : at && at < 3 ? "named" : null }, name)))), h("tbody", {}, lines)))];
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
    const made = rowsOf(test).filter((row) => shows(row, passed)).map((row) => {
      const card = cards[row[CARD]];
      return { name: card.name, method: card.method, kind: card.kind, machine: { thinking: "tokens, the same on every machine", price: "at the provider's prices" }[axis] || card.machine, x: { cost: row[COST], memory: card.memory ? card.memory / 1e9 : null, thinking: row[THOUGHT] ?? null, price: row[PRICE] }[axis],
        score: scale * row[VALUE], low: row[LOW] === null ? null : scale * row[LOW], high: row[HIGH] === null ? null : scale * row[HIGH], said: amount(row[VALUE], test.share), front: Boolean(row[FRONTS] & { cost: 1, memory: 2, thinking: 4, price: 8 }[axis]) };
    }).filter((point) => point.x !== null);
    const middle = (Math.min(...made.map((point) => point.x)) + Math.max(...made.map((point) => point.x))) / 2;
    const front = made.filter((point) => point.front).sort((a, b) => test.lower ? a.score - b.score : b.score - a.score);
    const scores = made.flatMap((point) => [point.score, point.low ?? point.score, point.high ?? point.score]);
    const apart = (Math.max(...scores) - Math.min(...scores)) / 10, named = []; // names nearer than that cover each other
    for (const point of front.length <= 4 ? front : [front[0], front[front.length - 1]]) // of a long one its ends only
      if (named.every((other) => Math.abs(other.score - point.score) >= apart)) named.push(point);
    for (const point of made) Object.assign(point, { right: point.x > middle, named: named.includes(point) });
    return made;
  }
  function charts(test) {
    const captions = { cost: "Score against cost; dashed: the Pareto front of each kind of machine", memory: "Score against peak memory; dashed: the Pareto front of each kind of machine", thinking: "Score against reasoning; dashed: the Pareto front", price: "Score against price; dashed: the Pareto front" };
    const axes = Object.entries(heads.axes).filter(([axis]) => ({ thinking: generated, price: priced }[axis] || (() => true))(rowsOf(test)));
    const figures = axes.map(([axis, title]) => h("figure", {},
      h("figcaption", {}, captions[axis]),
      h("div", { class: "plot", "data-axis": axis, role: "img", "aria-label": `${test.title}: score against ${title}; the numbers are in the table above` })));
    const made = h("div", { class: "charts" }, figures);
    watch(made, test);
    return made;
  }
  function watch(made, test) { // drawn when they come into sight: thousands of points take their time
    const far = rowsOf(test).length > WHOLE ? 100 : 1500; // pixels below the window
    new IntersectionObserver(([seen], observer) => {
      if (!seen.isIntersecting) return;
      observer.disconnect();
      if (made.isConnected) draw(test);
    }, { rootMargin: `${far}px` }).observe(made);
  }
  async function draw(test) {
    const places = [...document.querySelectorAll(".charts .plot")];
    if (!places.length) return;
    try { await need("charts"); } catch (fault) { places[0].replaceChildren(absent(fault)); return; }
    drawn.forEach((result) => result.finalize());
    drawn = [];
    const passed = passes();
    const css = getComputedStyle(document.documentElement);
    const colour = (name) => css.getPropertyValue(name).trim();
    const axis = { labelColor: colour("--soft"), titleColor: colour("--soft"), gridColor: colour("--line"), domainColor: colour("--line"), tickColor: colour("--line"), titleFontWeight: "normal" };
    const config = { background: "transparent", font: "system-ui, sans-serif", view: { stroke: "transparent" }, axis, legend: { labelColor: colour("--ink"), orient: "bottom", symbolOpacity: 1, symbolStrokeWidth: 0 } };
    for (const place of places) {
      const kind = place.dataset.axis;
      const rows = points(test, kind, passed);
      if (!rows.length) {
        place.replaceChildren(h("p", { class: "note" }, "Nothing to draw: no subject, or not measured."));
        continue;
      }
      const spec = fill(parts.charts, { "%axis%": heads.axes[kind], "%metric%": capital(test.metric) + (test.share ? " in %" : ""), "%soft%": colour("--soft"), "%ink%": colour("--ink") });
      const costs = rows.map((row) => row.x);
      if (costs.length && Math.min(...costs) > 0 && Math.max(...costs) > 20 * Math.min(...costs)) for (const layer of spec.layer) if (layer.encoding.x) { Object.assign(layer.encoding.x.scale, { type: "log", nice: false }); delete layer.encoding.x.scale.zero; }
      drawn.push(await vegaEmbed(place, { ...spec, datasets: { rows } }, { actions: false, ast: true, config, renderer: rows.length > 4 * WHOLE ? "canvas" : "svg", tooltip: true, logLevel: 1 }));
      place.querySelector("svg, canvas").setAttribute("aria-hidden", "true"); // the place has a label, the table the numbers
    }
  }

  // ---------------------------------------------------------------- the drawer

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
  function opened(card, test) { // the drawer with a card's head, and the place for the rest
    const place = $("drawer-body");
    const close = h("button", { class: "button", type: "button", on: { click: () => $("drawer").close() } }, "Close");
    const row = test ? h("a", { href: `${root}task/${test.file}.html#?row=${card.who}` }, "address of this row") : null;
    const links = h("p", { class: "links" }, h("a", { href: subjectPage(card) }, "all its results"), h("a", { href: `${root}compare.html#a=${card.who}` }, "compare"), row);
    const head = h("div", { class: "drawer-head" }, h("div", {}, h("h2", { id: "drawer-title" }, card.name), h("p", {}, badge(card.level), " ", h("span", { class: "note" }, `${card.what}; ${heads.levels[card.level] || ""}`)), links), close);
    place.replaceChildren(head);
    if (!$("drawer").open) $("drawer").showModal();
    close.focus();
    $("drawer").scrollTop = 0;
    return place;
  }
  function together(card, test, rows) { // a recipe: its trainings, each with a drawer of its own
    const place = opened(card, test);
    for (const row of rows) {
      const lines = row[RUNS].map(([at, value, low, high]) => h("tr", {}, h("th", { scope: "row" }, h("button", { class: "open", type: "button", on: { click: () => drawer(cards[at], test, []) } }, cards[at].name)),
        h("td", { class: "n" }, amount(value, test.share)), h("td", { class: "n" }, span(low, high, test.share, " – "))));
      place.append(h("h3", {}, `${test.title}, n = ${number(test.n, 0)}: ${trainings(trained(row))}`),
        h("p", { class: "note" }, row[DEVIATION] === null ? "One seed of several of this recipe." : `Mean ${amount(row[VALUE], test.share)}, over documents and seeds ${span(row[LOW], row[HIGH], test.share, " – ")}; standard deviation between seeds ${amount(row[DEVIATION], test.share)}.`),
        h("div", { class: "scroll", role: "region", tabindex: "0", "aria-label": "Trainings" }, h("table", {},
          h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "training"), h("th", { scope: "col", class: "n" }, "value"), h("th", { scope: "col", class: "n" }, "95 % interval over documents"))), h("tbody", {}, lines))));
    }
    place.append(h("p", { class: "note" }, "Choose a training for its answers taken apart and the commands that reproduce it."));
  }
  async function drawer(card, test, rows) {
    const recipe = rows.filter((row) => Array.isArray(row[RUNS]));
    if (recipe.length) return together(card, test, recipe);
    const place = opened(card, test);
    const part = `details/${card.detail}`;
    try { await need(part); } catch (fault) { place.append(absent(fault)); return; }
    const found = parts[part];
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

  // ---------------------------------------------------------------- putting it together

  const fixed = ["published", "how"];
  function count(shown, of) { $("count").textContent = shown === of ? `${number(of, 0)} subject${of === 1 ? "" : "s"}` : `${number(shown, 0)} of ${number(of, 0)} subjects`; }
  function wanted() { // the parts that the view needs
    if (view === "subject") return [`subject/${pageKey}`];
    if (view === "compare") return ["cards", ...(sides().every(Boolean) ? sides().map((one) => `subject/${one}`) : [])];
    if (state.tab !== "overview") return ["cards", `task/${byKey.get(state.test).file}`];
    const first = !filtered() && !state.sort.key && !state.all && !state.row;
    return first || overviews === parts.overview ? [] : ["overview", "cards"];
  }
  function content() {
    if (view === "subject") return subject(adopt(parts[`subject/${pageKey}`]));
    if (view === "compare") return compare();
    if (state.tab !== "overview") return view === "task" ? [...testTable(byKey.get(state.test), passes()), charts(byKey.get(state.test))] : family(state.tab, passes());
    overviews = parts.overview || overviews;
    return overview(filtered() ? passes() : null);
  }
  async function refresh(whole = true) {
    if ($("filters") && view === "board") $("filters").hidden = fixed.includes(state.tab);
    if (view === "board") for (const name of ["panel", ...fixed]) if ($(name)) $(name).hidden = name !== (fixed.includes(state.tab) ? state.tab : "panel");
    const turn = refresh.turn = (refresh.turn || 0) + 1;
    if (view === "board" && fixed.includes(state.tab)) return;
    if (view === "board") $("panel").setAttribute("aria-labelledby", `tab-${state.tab}`);
    const kept = whole ? null : document.querySelector(".charts");
    let made;
    const missing = wanted().filter((part) => !parts[part]);
    try {
      if (missing.length) {
        if (whole) $("panel").replaceChildren(h("p", { class: "note", role: "status" }, "Reading …"));
        await Promise.all(missing.map(need));
        if (turn !== refresh.turn) return;
      }
      if (parts.cards && ["board", "task"].includes(view)) cards = parts.cards;
      windows = [];
      made = content();
    } catch (fault) {
      if (!(fault instanceof Error) || !fault.message.startsWith("page/")) throw fault;
      made = [absent(fault)];
    }
    const parts_ = made.filter(Boolean);
    if (kept && parts_[parts_.length - 1].className === "charts") parts_[parts_.length - 1] = kept;
    $("panel").replaceChildren(...parts_);
    for (const one of windows) one.start();
    clearTimeout(refresh.timer);
    if (kept) refresh.timer = setTimeout(() => watch(kept, byKey.get(state.test)), 250);
    if (state.row) reach();
  }
  function reach() { // the row that the address names
    const found = windows.map((one) => one.reach(state.row)).find(Boolean);
    state.row = null;
    if (!found) return;
    found.classList.add("here");
    found.scrollIntoView({ block: "center" });
    found.querySelector(".open")?.focus({ preventScroll: true });
  }

  // The address says all that decides what is shown: #tab/test?q=words&method=lora&sort=score&down=1&row=subject
  function written() {
    const asked_ = new URLSearchParams();
    for (const [name, id] of [["q", "q"], ...fields.map((one) => [one, `f-${one}`])]) if ($(id).value.trim()) asked_.set(name, $(id).value);
    if (state.sort.key) { asked_.set("sort", state.sort.key); if (state.sort.down) asked_.set("down", "1"); }
    const shown = view === "task" || state.tab === "overview" ? "" : [state.tab, state.test].filter(Boolean).join("/");
    const all = asked_.size ? `${shown}?${asked_}` : shown;
    if (all !== location.hash.slice(1)) history.replaceState(null, "", all ? `#${all}` : location.pathname + location.search);
  }
  function read() {
    const [path, query = ""] = location.hash.slice(1).split(/\?(.*)/s);
    let [tab, test] = path.split("/");
    const chosen = new URLSearchParams(query);
    for (const [name, id] of [["q", "q"], ...fields.map((one) => [one, `f-${one}`])]) {
      $(id).value = chosen.get(name) || "";
      if ($(id).selectedIndex === -1) $(id).value = ""; // nothing here has that value
    }
    state.row = chosen.get("row");
    if (view === "task") { [tab, test] = [byKey.get(pageKey).family, pageKey]; }
    const known = view === "task" || [...document.querySelectorAll("[role=tab]")].some((button) => button.dataset.tab === tab);
    return go(known ? tab : "overview", test, chosen.has("sort") ? { key: chosen.get("sort"), down: chosen.has("down") } : {});
  }
  async function changed(whole) {
    written();
    await refresh(whole);
  }
  function go(tab, test = null, sort = {}) {
    const tests = familyOf(tab);
    Object.assign(state, { tab, test: (tests.find((one) => one.key === test) || tests[0])?.key ?? null, sort, all: false });
    for (const button of document.querySelectorAll("[role=tab]")) {
      const mine = button.dataset.tab === tab;
      button.setAttribute("aria-selected", String(mine));
      button.tabIndex = mine ? 0 : -1;
      if (mine) button.scrollIntoView({ block: "nearest", inline: "nearest" });
    }
    return changed(true);
  }
  function listen() {
    const tabs = [...document.querySelectorAll("[role=tab]")];
    tabs.forEach((button, at) => {
      button.addEventListener("click", () => go(button.dataset.tab));
      button.addEventListener("keydown", (event) => {
        const step_ = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
        const next = event.key === "Home" ? tabs[0] : event.key === "End" ? tabs[tabs.length - 1] : step_ ? tabs[(at + step_ + tabs.length) % tabs.length] : null;
        if (next) { event.preventDefault(); go(next.dataset.tab); next.focus(); }
      });
    });
    $("to-how")?.addEventListener("click", (event) => { event.preventDefault(); go("how"); });
    $("filters").addEventListener("submit", (event) => event.preventDefault());
    $("filters").addEventListener("reset", () => setTimeout(() => changed(false)));
    for (const id of ["q", ...fields.map((name) => `f-${name}`)]) $(id).addEventListener("input", () => changed(false));
    addEventListener("hashchange", read);
  }
  function start() {
    heads = parts.heads;
    byKey = new Map(heads.tests.map((test) => [test.key, test]));
    $("drawer").addEventListener("click", (event) => { if (event.target === $("drawer")) $("drawer").close(); });
    dark.addEventListener("change", () => refresh());
    if (["subject", "compare"].includes(view)) {
      addEventListener("hashchange", () => refresh());
      refresh();
      return;
    }
    offer();
    listen();
    if (view === "board") {
      const first = JSON.parse($("first").textContent);
      for (const [place, card] of Object.entries(first.cards)) cards[place] = card;
      overviews = first.overview;
    }
    read();
    const rest = () => Promise.all(["overview", "cards"].map(need)).then(() => { // what scrolling and searching will need
      if (state.tab !== "overview" || overviews === parts.overview) return;
      [overviews, cards] = [parts.overview, parts.cards];
      if (!filtered() && !state.sort.key) for (const one of windows) one.grow?.();
    }, () => {});
    if (view === "board") (window.requestIdleCallback || setTimeout)(rest);
  }
  addEventListener("DOMContentLoaded", start); // after all scripts of the page, which are deferred
})();
