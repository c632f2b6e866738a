// What a reader may click: tables that sort, curves that say their values, images beside each other, runs that open.
// Without it the page shows the same facts: links lead to the runs' own entries, pictures stand in rows.
(() => {
  "use strict";
  const SVG = "http://www.w3.org/2000/svg";
  const facts = JSON.parse(document.getElementById("facts").textContent);

  const all = (selector, root = document) => [...root.querySelectorAll(selector)];

  function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (value !== null && value !== false) element.setAttribute(name, value);
    }
    element.append(...children.filter((child) => child !== null));
    return element;
  }

  function draw(tag, attributes = {}, text = "") {
    const element = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.textContent = text;
    return element;
  }

  const signed = (value) => (value < 0 ? "\u2212" : "+") + Math.abs(value).toFixed(2);
  const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const deviation = (values) => Math.sqrt(values.reduce((sum, v) => sum + (v - mean(values)) ** 2, 0) / (values.length - 1));
  const spread = (values, write) => write(mean(values)) + (values.length > 1 ? ` \u00b1 ${deviation(values).toFixed(2)}` : "");

  // ---- tables that sort ----------------------------------------------------------------------------------

  const NUMBER = /^[+\u2212-]?\d[\d,]*(\.\d+)?( \u00b1 [\d.,]+)?( ?%)?$/;
  const words = (cell) => cell.textContent.trim();
  const isEmpty = (cell) => cell.dataset.number === undefined && /^(\u2014|$)/.test(words(cell));
  const isNumber = (cell) => cell.dataset.number !== undefined || NUMBER.test(words(cell));
  const numberIn = (cell) =>
    isEmpty(cell) ? NaN : Number(cell.dataset.number ?? parseFloat(words(cell).replace("\u2212", "-").replaceAll(",", "")));

  function sortable(table) {
    const body = table.tBodies[0];
    const heads = [...table.tHead.rows[0].cells];
    const first = [...body.rows];
    if (first.length < 2) return;
    heads.forEach((head, column) => {
      if (!words(head)) return;
      const button = make("button", { type: "button", onclick: () => sort(head, column) });
      button.append(...head.childNodes);
      head.append(button);
    });
    function sort(head, column) {
      const cells = first.map((row) => row.cells[column]);
      const numeric = cells.every((cell) => isNumber(cell) || isEmpty(cell)) && cells.some(isNumber);
      // The best number first, then the worst, then as it was.
      const order = numeric ? ["descending", "ascending", "none"] : ["ascending", "descending", "none"];
      const next = order[(order.indexOf(head.getAttribute("aria-sort") || "none") + 1) % 3];
      heads.forEach((each) => each.removeAttribute("aria-sort"));
      if (next !== "none") head.setAttribute("aria-sort", next);
      const way = next === "ascending" ? 1 : -1;
      const key = (row) => (numeric ? numberIn : words)(row.cells[column]);
      const compare = (one, other) => {
        const [a, b] = [key(one), key(other)];
        if (!numeric) return way * a.localeCompare(b, undefined, { numeric: true });
        if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b); // without a number: last
        return way * (a - b);
      };
      body.append(...(next === "none" ? first : [...first].sort(compare)));
    }
  }

  // ---- curves that say their values ----------------------------------------------------------------------

  function readable(figure, readings) {
    const [left, top, wide, high] = readings.box;
    const [low, end] = readings.across;
    const epochs = [...new Set(readings.curves.flatMap((curve) => curve.epochs))].sort((a, b) => a - b);
    const cursor = make("div", { class: "cursor scripted", hidden: "" });
    const reading = make("div", { class: "reading scripted", hidden: "" });
    let shown = -1;
    figure.append(cursor, reading);
    figure.tabIndex = 0;
    const hide = () => [cursor, reading].forEach((each) => (each.hidden = true));
    const show = (index) => {
      shown = index;
      const epoch = epochs[index];
      const picture = figure.querySelector("svg").getBoundingClientRect();
      const place = (left + (wide * (epoch - low)) / (end - low)) * picture.width;
      Object.assign(cursor.style, { left: `${place}px`, top: `${top * picture.height}px`, height: `${high * picture.height}px` });
      const lines = readings.curves.flatMap((curve) => {
        const at = curve.epochs.indexOf(epoch);
        if (at < 0) return [];
        const range = curve.low && curve.low[at] !== curve.high[at] ? ` (${curve.low[at].toFixed(1)} to ${curve.high[at].toFixed(1)})` : "";
        return [make("div", {}, `${curve.label}: ${curve.mean[at].toFixed(1)}${range}`)];
      });
      reading.replaceChildren(make("b", {}, `epoch ${epoch}`), ...lines);
      [cursor, reading].forEach((each) => (each.hidden = false));
      const room = figure.clientWidth - reading.offsetWidth;
      reading.style.left = `${Math.max(0, Math.min(room, place < room ? place + 8 : place - reading.offsetWidth - 8))}px`;
    };
    const point = (event) => {
      const picture = figure.querySelector("svg").getBoundingClientRect();
      const share = ((event.clientX - picture.left) / picture.width - left) / wide;
      if (share < -0.05 || share > 1.05) return hide();
      const distance = (epoch) => Math.abs(epoch - low - share * (end - low));
      reading.setAttribute("aria-live", "off");
      show(epochs.reduce((best, epoch, index) => (distance(epoch) < distance(epochs[best]) ? index : best), 0));
    };
    figure.addEventListener("pointermove", point);
    figure.addEventListener("pointerdown", point);
    figure.addEventListener("pointerleave", (event) => event.pointerType !== "touch" && hide());
    figure.addEventListener("blur", hide);
    figure.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!step) return;
      event.preventDefault();
      reading.setAttribute("aria-live", "polite");
      show(Math.max(0, Math.min(epochs.length - 1, shown < 0 ? (step > 0 ? 0 : epochs.length - 1) : shown + step)));
    });
  }

  // Curves of a run that has been opened. Each: label, kind (a or b), faint, points [epoch, value].
  function chart(title, curves, span = null) {
    const points = curves.flatMap((curve) => curve.points);
    const values = points.map((point) => point[1]);
    let [low, high] = span || [Math.min(...values), Math.max(...values)];
    if (!span) {
      const room = Math.max(facts.least, 1.1 * (high - low));
      low = Math.max(0, Math.min((low + high - room) / 2, 100 - room));
      high = low + room;
    }
    const epochs = points.map((point) => point[0]);
    const margin = 0.03 * (Math.max(...epochs) - Math.min(...epochs) || 1);
    const [first, last] = [Math.min(...epochs) - margin, Math.max(...epochs) + margin];
    const [width, height, left, right, top, bottom] = [420, 250, 44, 8, 26, 34];
    const x = (epoch) => left + ((width - left - right) * (epoch - first)) / (last - first);
    const y = (value) => height - bottom - ((height - top - bottom) * (value - low)) / (high - low);
    const picture = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${title} by epoch` });
    const text = (words, place) => picture.append(draw("text", { "font-size": 11, fill: "currentColor", ...place }, words));
    text(title, { x: left, y: 15, "font-weight": 600 });
    text("epoch", { x: width - right, y: height - 4, "text-anchor": "end" });
    const step = [1, 2, 5, 10, 20, 25, 50].find((each) => (high - low) / each <= 6);
    for (let value = Math.ceil(low / step) * step; value <= high; value += step) {
      picture.append(draw("path", { d: `M${left} ${y(value)}H${width - right}`, stroke: "currentColor", opacity: 0.15 }));
      text(String(value), { x: left - 6, y: y(value) + 4, "text-anchor": "end" });
    }
    const whole = [...new Set(epochs)].sort((a, b) => a - b);
    const every = Math.ceil(whole.length / 8);
    whole.forEach((epoch, index) => {
      if (index % every === 0) text(String(epoch), { x: x(epoch), y: height - 18, "text-anchor": "middle" });
    });
    for (const curve of curves) {
      const path = curve.points.map((point, index) => `${index ? "L" : "M"}${x(point[0]).toFixed(1)} ${y(point[1]).toFixed(1)}`).join("");
      const style = { fill: "none", stroke: "currentColor", class: curve.kind, "stroke-width": curve.faint ? 1 : 2.2, opacity: curve.faint ? 0.5 : 1 };
      picture.append(draw("path", { d: path, ...style, ...(curve.kind === "b" ? { "stroke-dasharray": "6 3" } : {}) }));
      if (curve.points.length === 1) picture.append(draw("circle", { cx: x(curve.points[0][0]), cy: y(curve.points[0][1]), r: 3, fill: "currentColor", class: curve.kind }));
    }
    const figure = make("figure", { class: "chart" });
    figure.append(picture);
    readable(figure, {
      box: [left / width, top / height, 1 - (left + right) / width, 1 - (top + bottom) / height],
      across: [first, last],
      curves: curves.map((curve) => ({ label: curve.label, epochs: curve.points.map((p) => p[0]), mean: curve.points.map((p) => p[1]) })),
    });
    return figure;
  }

  // ---- images beside each other --------------------------------------------------------------------------

  const gallery = document.getElementById("gallery");
  let compareImages = () => {};
  const pictureOf = (run) => (run && gallery ? gallery.querySelector(`figure[data-run="${CSS.escape(run)}"]`) : null);

  function viewer() {
    const rows = all(".row", gallery);
    const pictures = (row) => new Map(all("figure", row).map((each) => [each.querySelector("figcaption").textContent, each.querySelector("img").src]));
    let row = rows[0];
    const stage = make("div", { class: "stage" }, make("img", { alt: "" }), make("img", { alt: "" }));
    const slider = make("input", { type: "range", min: 0, max: 100, value: 50, "aria-label": "Where the left picture ends" });
    const [left, right] = ["Left", "Right"].map((side) => make("select", { "aria-label": `${side} picture`, onchange: show }));
    const film = make("div", { class: "film", role: "group", "aria-label": "Images" });
    slider.addEventListener("input", () => stage.style.setProperty("--at", `${slider.value}%`));
    const drag = (event) => {
      if (event.type === "pointermove" && !event.buttons) return;
      const { left: start, width } = stage.getBoundingClientRect();
      slider.value = (100 * (event.clientX - start)) / width;
      slider.dispatchEvent(new Event("input"));
    };
    stage.addEventListener("pointerdown", drag);
    stage.addEventListener("pointermove", drag);
    stage.addEventListener("dragstart", (event) => event.preventDefault());
    for (const each of rows) {
      const button = make("button", { type: "button", title: each.dataset.title, onclick: () => choose(each) });
      button.append(make("img", { src: all("img", each)[0].src, alt: each.dataset.title }), make("span", {}, each.dataset.title));
      film.append(button);
    }
    function choose(next) {
      row = next;
      all("button", film).forEach((button, index) => button.setAttribute("aria-pressed", rows[index] === row));
      all(".classes", gallery).forEach((legend) => (legend.hidden = legend.dataset.dataset !== row.dataset.dataset));
      const titles = [...pictures(row).keys()];
      const kept = [left.value || titles[1], right.value || titles.filter((title) => !title.endsWith(", entropy")).at(-1)];
      [left, right].forEach((select, index) => {
        select.replaceChildren(...titles.map((title) => make("option", { value: title }, title)));
        select.value = titles.includes(kept[index]) ? kept[index] : titles[index];
      });
      show();
    }
    function show() {
      const found = pictures(row);
      const [below, above] = all("img", stage);
      Object.assign(below, { src: found.get(left.value), alt: left.value });
      Object.assign(above, { src: found.get(right.value), alt: right.value });
    }
    // Predictions of two runs, or of one beside the truth, of the first image that has them.
    compareImages = (one, other) => {
      const titleIn = (each, run) => {
        const found = run ? each.querySelector(`figure[data-run="${CSS.escape(run)}"] figcaption`) : null;
        return run ? found && found.textContent : "Truth";
      };
      choose(rows.find((each) => titleIn(each, one) && titleIn(each, other)) || rows.find((each) => titleIn(each, other)) || row);
      left.value = titleIn(row, one) || left.value;
      right.value = titleIn(row, other) || right.value;
      show();
    };
    const choice = make("div", { class: "choice" }, make("label", {}, "Left", left), make("label", {}, "Right", right));
    gallery.querySelector("h2").after(make("div", { class: "viewer scripted" }, make("div", {}, choice, stage, slider), make("div", {}, film, ...all(".classes", gallery))));
    gallery.querySelector(".strips").open = false;
    choose(row);
  }

  // ---- runs that open ------------------------------------------------------------------------------------

  const dialog = make("dialog", { "aria-labelledby": "opened", class: "scripted" });
  document.body.append(dialog);
  const contenderOf = (run) => facts.contenders.findIndex((each) => each.runs.includes(run));
  const named = (contender) => `${contender.label}, ${contender.dataset}, ${contender.title}`;
  const bare = () => location.href.split("#")[0];
  let openedByClick = false;

  function address(run, beside) {
    return `#see=${encodeURIComponent(run)}${beside ? `&beside=${encodeURIComponent(beside)}` : ""}`;
  }

  function show(run, beside) {
    const [one, other] = [run, beside].map((name) => (name ? contenderOf(name) : -1));
    if (one < 0) return;
    const [first, second] = [facts.contenders[one], facts.contenders[other]];
    const [a, b] = [facts.runs[run], facts.runs[beside]];
    // What is chosen in an open dialog takes the place of what was: a step back closes it.
    const go = (next, against) => location.replace(address(next, against));
    const others = make("select", { "aria-label": "Beside", onchange: (event) => go(run, event.target.value && sameSeed(event.target.value, a.seed)) });
    others.append(make("option", { value: "" }, "nothing"));
    const order = facts.contenders.map((each, place) => [each, place]).filter(([, place]) => place !== one);
    const near = (each) => (each.dataset === first.dataset) + (each.dataset === first.dataset && each.split === first.split);
    order.sort(([x, i], [y, j]) => near(y) - near(x) || i - j);
    for (const [each, place] of order) others.append(make("option", { value: place, selected: place === other ? "" : null }, named(each)));
    const seeds = first.runs.map((name) => make("button", { type: "button", class: "button", "aria-pressed": String(name === run), "aria-label": `seed ${facts.runs[name].seed}`,
      onclick: () => go(name, second ? sameSeed(other, facts.runs[name].seed) : "") }, `seed ${facts.runs[name].seed}`));
    const head = make("header", {},
      make("h2", { id: "opened" }, key("a"), named(first), ...(second ? [make("br"), key("b"), named(second)] : [])),
      make("button", { type: "button", class: "button close", "aria-label": "Close", onclick: () => dialog.close() }, "\u2715"),
      make("div", { class: "choice" }, ...seeds, make("label", {}, "Beside", others)));
    const parts = [numbers(one, other), ...curves(first, second, run, beside), classTable(a, b), settings(a, b),
      confusion(a, second ? "a" : ""), b ? confusion(b, "b") : null, known(run, second ? "a" : ""), b ? known(beside, "b") : null, pictures(first, second)];
    const focused = dialog.contains(document.activeElement) ? document.activeElement.getAttribute("aria-label") : null;
    const wasOpen = dialog.open;
    dialog.replaceChildren(head, make("div", { class: "parts" }, ...parts.filter(Boolean)));
    all("table.sortable", dialog).forEach(sortable);
    if (!wasOpen) dialog.showModal();
    // The control that was used is another element now.
    if (focused) all("[aria-label]", head).find((each) => each.getAttribute("aria-label") === focused)?.focus();
    if (!wasOpen) dialog.scrollTop = 0;
  }

  const sameSeed = (place, seed) => {
    const { runs } = facts.contenders[place];
    return runs.find((name) => facts.runs[name].seed === seed) || runs[0];
  };
  const key = (kind) => make("span", { class: `key ${kind}` });
  const part = (title, kind, ...children) => make("div", {}, make("h3", {}, kind ? key(kind) : "", title), ...children);
  const table = (label, heads, rows, name = "") => {
    const cell = (tag) => (content) => (content instanceof Node ? content : make(tag, tag === "th" ? { scope: "col" } : {}, content));
    const head = make("thead", {}, make("tr", {}, ...heads.map(cell("th"))));
    const body = make("tbody", {}, ...rows.map(([title, ...cells]) => make("tr", {}, make("th", { scope: "row" }, title), ...cells.map(cell("td")))));
    return make("div", { class: "wide", tabindex: 0, role: "region", "aria-label": label }, make("table", { class: name }, head, body));
  };

  // The runs of both by seed, and what their differences say.
  function numbers(one, other) {
    const bySeed = (place) => new Map(facts.contenders[place].runs.map((name) => [facts.runs[name].seed, facts.runs[name].miou]));
    const ours = bySeed(one);
    const write = (value) => value.toFixed(2);
    if (other < 0) {
      const rows = [...ours].map(([seed, value]) => [`seed ${seed}`, write(value)]);
      if (ours.size > 1) rows.push(["mean", spread([...ours.values()], write)]);
      return part("mIoU (%)", "", table("mIoU by seed", ["", "reported"], rows));
    }
    const theirs = bySeed(other);
    const shared = [...ours.keys()].filter((seed) => theirs.has(seed));
    const rows = [...new Set([...ours.keys(), ...theirs.keys()])].map((seed) => [
      `seed ${seed}`, ours.has(seed) ? write(ours.get(seed)) : "\u2014", theirs.has(seed) ? write(theirs.get(seed)) : "\u2014",
      shared.includes(seed) ? signed(ours.get(seed) - theirs.get(seed)) : "\u2014"]);
    const differences = shared.map((seed) => ours.get(seed) - theirs.get(seed));
    if (shared.length > 1) rows.push(["mean", spread([...ours.values()], write), spread([...theirs.values()], write), spread(differences, signed)]);
    return part("mIoU (%)", "", table("mIoU by seed", ["", heads("a"), heads("b"), "difference"], rows), make("p", { class: "note" }, judged(one, other, differences)));
  }

  const heads = (kind) => make("th", { scope: "col" }, key(kind), make("span", { class: "spoken" }, kind === "a" ? "the first" : "the second"));

  function judged(one, other, differences) {
    const [first, second] = [facts.contenders[one], facts.contenders[other]];
    if (first.dataset !== second.dataset || first.split !== second.split) return "Other images or labels: their difference is no comparison of methods.";
    if (!differences.length) return "They share no seed, so nothing is paired.";
    if (differences.length === 1) return "One shared seed: whether the difference is more than chance is not known.";
    const tested = facts.p.find(([i, j]) => (i === one && j === other) || (i === other && j === one));
    if (!tested) return Math.abs(mean(differences)) > deviation(differences)
      ? `Larger than its spread over ${differences.length} seeds, but there is no test.` : `Not more than ${differences.length} seeds differ.`;
    return `p ${tested[2] < 0.001 ? "< 0.001" : `= ${tested[2].toFixed(3)}`}: two-sided paired t-test over ${differences.length} seeds. Of many comparisons some have a small p by chance.`;
  }

  function curves(first, second, run, beside) {
    const sides = [["a", first, run], ...(second ? [["b", second, beside]] : [])];
    const lines = (metric, words) => sides.flatMap(([kind, contender, chosen]) => contender.runs
      .filter((name) => facts.runs[name].curves[metric]?.length)
      .map((name) => ({ kind, faint: name !== chosen, label: `${words}${contender.label}, seed ${facts.runs[name].seed}`, points: facts.runs[name].curves[metric] })));
    const found = [["mIoU (%)", "val/miou", null], ["Reliable pixels (%)", "train/reliable/share", [0, 100]],
      ["Right ones of the reliable pixels (%)", "train/reliable/accuracy", [0, 100]]];
    return found.map(([title, metric, span]) => [title, lines(metric, ""), span]).filter(([, drawn]) => drawn.length).map((each) => chart(...each));
  }

  function classTable(a, b) {
    const bars = (...values) => {
      const cell = make("td", { class: "bars" });
      values.forEach(([value, kind]) => value !== null && cell.append(make("span", { class: `bar ${kind}`, style: `width: ${value}%` })));
      return cell;
    };
    const text = (value) => (value === null ? "\u2014" : value.toFixed(1));
    const others = b && b.dataset === a.dataset ? facts.classes[b.classes] : [];
    const rows = facts.classes[a.classes].map((name, k) => {
      const [ours, theirs] = [a.iou[k], others.includes(name) ? b.iou[others.indexOf(name)] : others.length ? null : undefined];
      if (theirs === undefined) return [name, text(ours), bars([ours, "a"])];
      return [name, text(ours), text(theirs), ours === null || theirs === null ? "\u2014" : signed(ours - theirs), bars([ours, "a"], [theirs, "b"])];
    });
    const compared = rows[0].length > 3;
    return part("IoU of each class (%)", "", table("IoU of each class", compared ? ["Class", heads("a"), heads("b"), "difference", ""] : ["Class", "IoU", ""], rows, compared ? "" : "sortable"));
  }

  function confusion(run, kind) {
    if (!run.confusion) return null;
    const names = facts.classes[run.classes];
    const rows = run.confusion.map((row, truth) => [names[truth], ...row.map((share, k) => {
      const words = `${(share / 10).toFixed(1)} % of ${names[truth]} taken for ${names[k]}`;
      return make("td", { style: `--heat: ${(share * 0.055).toFixed(1)}%`, title: words }, share < 5 ? "" : String(Math.round(share / 10)));
    })]);
    return part("Confusion: of the pixels of a row's class, % taken for a column's", kind, table("Confusion", ["", ...names], rows, "heat confusion"));
  }

  function settings(a, b) {
    // A run has the settings of its recipe and of its own method: what it differs in, and else what most have.
    const isOwn = (run, name) => ["recipe", run.method].includes(name.split(".")[0]);
    const value = (run, name) => String(run[name] ?? run.different[name] ?? (isOwn(run, name) ? facts.usual[name] : null) ?? "\u2014");
    const changed = [...new Set([a, b || a].flatMap((run) => Object.keys(run.different)))];
    if (!b) {
      if (!changed.length) return part("Settings other than most runs'", "", make("p", { class: "note" }, "None."));
      return part("Settings other than most runs'", "", table("Settings", ["Setting", "Value", "Most"], changed.map((name) => [name, value(a, name), facts.usual[name] ?? "\u2014"])));
    }
    const shared = Object.keys(facts.usual).filter((name) => isOwn(a, name) && isOwn(b, name));
    const shown = [...new Set(["method", "dataset", "split", "seed", ...shared, ...changed])].filter((name) => value(a, name) !== value(b, name));
    const alone = a.method === b.method ? "" : "Settings that only one of the two methods has stand with each run below.";
    if (!shown.length) return part("Settings that differ", "", make("p", { class: "note" }, "None."));
    return part("Settings that differ", "", table("Settings", ["Setting", heads("a"), heads("b")], shown.map((name) => [name, value(a, name), value(b, name)])), make("p", { class: "note" }, alone));
  }

  function known(name, kind) {
    const card = document.getElementById(`run-${name}`).closest(".card");
    return part(name, kind, clone(card.querySelector(".known")), card.querySelector(".all-settings").cloneNode(true));
  }

  function clone(element) {
    const copy = element.cloneNode(true);
    copy.removeAttribute("id");
    return copy;
  }

  // The gallery has the pictures of a cell's first run.
  function pictures(first, second) {
    const [one, other] = [first, second].map((each) => (each ? each.runs[0] : ""));
    if (!pictureOf(one) || (other && !pictureOf(other))) return null;
    const look = () => {
      dialog.close();
      compareImages(other && one, other || one);
      gallery.scrollIntoView();
    };
    const title = other ? "Look at both beside each other" : "Look at them beside the truth";
    return part("Predictions", "", make("button", { type: "button", class: "button", onclick: look }, title));
  }

  function follow() {
    const asked = new URLSearchParams(location.hash.slice(1));
    if (asked.has("see") && facts.runs[asked.get("see")]) show(asked.get("see"), facts.runs[asked.get("beside")] ? asked.get("beside") : "");
    else if (dialog.open) dialog.close();
  }

  dialog.addEventListener("close", () => {
    if (!location.hash.startsWith("#see=")) return;
    if (openedByClick) history.back();
    else history.replaceState(null, "", bare());
    openedByClick = false;
  });
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-contender], a[data-run]");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    openedByClick = true;
    location.hash = address(link.dataset.run || facts.contenders[link.dataset.contender].runs[0], "");
  });
  all(".picture > :first-child").forEach((picture) => {
    const frame = picture.parentElement;
    const button = make("div", { tabindex: 0, role: "button", "aria-expanded": "false", "aria-label": `Enlarge ${frame.querySelector("strong").textContent}` });
    const turn = () => button.setAttribute("aria-expanded", String(frame.classList.toggle("large")));
    picture.replaceWith(button);
    button.append(picture);
    button.addEventListener("click", turn);
    button.addEventListener("keydown", (event) => {
      if (![" ", "Enter"].includes(event.key)) return;
      event.preventDefault();
      turn();
    });
  });
  window.addEventListener("hashchange", follow);

  all("table.sortable").forEach(sortable);
  all(".chart[data-readings]").forEach((figure) => readable(figure, JSON.parse(figure.dataset.readings)));
  if (gallery) viewer();
  follow();
})();
