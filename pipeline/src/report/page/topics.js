// The pages beside the map: the table of topics, the numbers that judge the result, and the settings.

const ROWS_AT_ONCE = 200;

class TopicTable {
  constructor(data, state, open) {
    Object.assign(this, { data, state, open, by: "size", descending: true, limit: ROWS_AT_ONCE });
    this.table = byId("topic-table");
    this.body = this.table.tBodies[0];
    this.rows = new Map();
    for (const button of this.table.querySelectorAll("[data-sort]")) button.addEventListener("click", () => this.sort(button.dataset.sort));
    byId("more-topics").addEventListener("click", () => { this.limit += ROWS_AT_ONCE; this.draw(); });
    this.draw();
  }

  sort(by) {
    this.descending = by === this.by ? !this.descending : by !== "name";
    this.by = by;
    this.draw();
  }

  draw() {
    const { topics } = this.data.report;
    const value = (place) => (this.by === "name" ? topics[place].name : topics[place][this.by]);
    const compare = (a, b) => (this.by === "name" ? value(a).localeCompare(value(b)) : value(a) - value(b));
    const order = topics.map((_, place) => place).sort((a, b) => (this.descending ? compare(b, a) : compare(a, b)) || a - b);
    this.body.replaceChildren(...order.slice(0, this.limit).map((place) => this.row(place)));
    for (const button of this.table.querySelectorAll("[data-sort]")) {
      const direction = button.dataset.sort !== this.by ? "none" : this.descending ? "descending" : "ascending";
      button.parentElement.setAttribute("aria-sort", direction);
    }
    const more = byId("more-topics");
    more.hidden = order.length <= this.limit;
    more.textContent = `Show more of the ${count(order.length)} topics`;
  }

  row(place) {
    if (this.rows.has(place)) return this.rows.get(place);
    const { report } = this.data;
    const topic = report.topics[place];
    const most = Math.max(...report.topics.map((t) => t.size), 1);
    const texts = element("ol", { class: "papers", hidden: true }, ...topic.representatives.map((text) => ownDirection("li", text)));
    const unfold = element("button", { class: "link", "aria-expanded": "false" }, `Typical ${report.noun}`);
    unfold.addEventListener("click", () => {
      texts.hidden = !texts.hidden;
      unfold.setAttribute("aria-expanded", String(!texts.hidden));
    });
    const row = element("tr", { "data-topic": topic.id },
      element("td", {}, element("div", { class: "topic-name" },
        element("span", { class: "swatch" }),
        element("div", {},
          ...(topic.path.length ? [ownDirection("span", topic.path.join(" › "), { class: "path" })] : []),
          ownDirection("strong", topic.name),
          element("div", { class: "row-tools" },
            element("button", { class: "link", onclick: () => this.open(place) }, "On the map"),
            topic.representatives.length ? unfold : null)))),
      element("td", { class: "words" }, chips(topic, 10), texts),
      element("td", { class: "number" }, count(topic.size), element("span", { class: "bar", "--share": `${(100 * topic.size) / most}%` })),
      element("td", { class: "number labelled" }, count(topic.labelled)));
    this.rows.set(place, row);
    row.style.setProperty("--swatch", topic[document.documentElement.dataset.theme]);
    return row;
  }

  setTheme() {
    const theme = document.documentElement.dataset.theme;
    for (const [place, row] of this.rows) row.style.setProperty("--swatch", this.data.report.topics[place][theme]);
  }
}

/** Fills the page of numbers. */
function drawQuality({ report }) {
  const page = byId("view-quality");
  if (report.warnings.length) {
    byId("tab-quality").append(element("span", { class: "flag", role: "img", "aria-label": "with warnings" }));
    page.append(element("ul", { class: "warnings", "aria-label": "Warnings" }, ...report.warnings.map((text) => element("li", {}, text))));
  }
  if (report.quality.length) {
    page.append(element("h2", {}, "Quality of the topics"), element("dl", { class: "metrics" }, ...report.quality.map((metric) =>
      element("div", {}, element("dt", {}, metric.name), element("dd", { class: "value" }, metric.value), element("dd", { class: "why" }, metric.explanation)))));
  }
  if (report.histograms.length) page.append(element("div", { class: "charts" }, ...report.histograms.map(histogram)));
  for (const table of report.tables) page.append(element("h2", {}, table.name), lead(table.explanation), plainTable(table));
}

/** Fills the page of settings. */
function drawSettings({ report }) {
  const facts = [...report.facts, ["report made", report.created]];
  byId("view-settings").append(
    element("h2", {}, "This run"),
    element("dl", { class: "about-run" }, ...facts.flatMap(([label, value]) => [element("dt", {}, label), element("dd", {}, value)])),
    ...(report.settings.trim() ? [element("h2", {}, "Settings"), lead("The job as it ran, defaults included."), yaml(report.settings)] : []));
}

const lead = (text) => element("p", { class: "lead" }, text);

function histogram({ name, explanation, bins }) {
  const most = Math.max(...bins.map(([, , n]) => n), 1);
  const low = bins[0]?.[0] ?? 0;
  const high = bins.at(-1)?.[1] ?? 1;
  const span = high - low || 1;
  const bars = bins.map(([from, to, n]) => svgElement("rect", {
    x: (1000 * (from - low)) / span + 1, width: Math.max((1000 * (to - from)) / span - 2, 0.5), y: 100 - (100 * n) / most, height: (100 * n) / most,
  }, svgElement("title", {}, `${shortNumber(from)} to ${shortNumber(to)}: ${count(n)}`)));
  return element("figure", { class: "histogram" },
    element("h2", {}, name), lead(explanation),
    svgElement("svg", { viewBox: "0 0 1000 100", preserveAspectRatio: "none", role: "img", "aria-label": `${name}, ${bins.length} bins from ${shortNumber(low)} to ${shortNumber(high)}` }, ...bars),
    element("div", { class: "ends" }, element("span", {}, shortNumber(low)), element("span", {}, shortNumber(high))));
}

const shortNumber = (value) => String(Number(value.toPrecision(4)));

function plainTable({ columns, rows }) {
  const numeric = columns.map((_, i) => rows.length > 0 && rows.every((row) => /^[-+−]?[\d.,]+\s*%?$/.test(row[i])));
  const cell = (tag, text, i) => element(tag, { class: numeric[i] ? "number" : null }, text);
  return element("div", { class: "scroll-x", tabindex: "0" }, element("table", { class: "plain" },
    element("thead", {}, element("tr", {}, ...columns.map((text, i) => cell("th", text, i)))),
    element("tbody", {}, ...rows.map((row) => element("tr", {}, ...row.map((text, i) => cell("td", text, i)))))));
}

/** YAML with its keys and comments set apart. */
function yaml(text) {
  const lines = text.trimEnd().split("\n").flatMap((line) => {
    const [, indent, key, rest] = /^(\s*(?:- )?)([\w.-]+:)?(.*)$/.exec(line) ?? [null, "", undefined, line];
    if (/^\s*#/.test(line)) return [element("span", { class: "comment" }, line), "\n"];
    return [indent, ...(key ? [element("span", { class: "key" }, key)] : []), rest, "\n"];
  });
  return element("pre", { class: "yaml", tabindex: "0" }, ...lines);
}
