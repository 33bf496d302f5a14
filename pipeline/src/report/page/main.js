// Puts the page together.

const THEME_KEY = "thema-theme";

function main() {
  setTheme(storedTheme() ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"));
  const data = readData();
  const { report } = data;
  byId("title").append(report.title);
  byId("title").dir = byId("subtitle").dir = "auto";
  byId("subtitle").append(report.subtitle);
  byId("facts").append(...report.facts.slice(0, 5).map(([label, value]) => element("div", {}, element("dt", {}, label), element("dd", {}, value))));

  const state = new State(data);
  const map = new PointMap(data, state);
  const legend = new Legend(data, state, map);
  new Search(data, state, map);
  new Timeline(data, state);
  const tabs = new Tabs();
  const table = new TopicTable(data, state, (place) => {
    tabs.select("map");
    state.set({ isolated: new Set([place]) });
    map.reveal(place);
  });
  drawQuality(data);
  drawSettings(data);
  byId("loading").remove();

  const applyTheme = (theme) => {
    setTheme(theme);
    map.setTheme();
    map.cardRow = -2;
    map.showCard(state.pinned);
    legend.update();
    table.setTheme();
  };
  byId("theme").addEventListener("click", () => {
    const theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    applyTheme(theme);
    storeTheme(theme);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", (event) => storedTheme() ?? applyTheme(event.matches ? "dark" : "light"));
  addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    if (state.pinned >= 0) state.set({ pinned: -1 });
    else if (state.isolated.size > 0) state.set({ isolated: new Set() });
  });
  // Labels were measured before the embedded font was decoded.
  document.fonts.ready.then(() => { map.labels.key = ""; map.redraw(); });
}

/** The four views, as tabs that arrow keys reach. */
class Tabs {
  constructor() {
    this.tabs = [...document.querySelectorAll('[role="tab"]')];
    this.tabs.forEach((tab, i) => {
      tab.addEventListener("click", () => this.select(tab.id.slice(4)));
      tab.addEventListener("keydown", (event) => {
        const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
        if (!step) return;
        const next = this.tabs.at((i + step) % this.tabs.length);
        this.select(next.id.slice(4));
        next.focus();
      });
    });
  }

  select(name) {
    for (const tab of this.tabs) {
      const chosen = tab.id === `tab-${name}`;
      tab.setAttribute("aria-selected", String(chosen));
      tab.tabIndex = chosen ? 0 : -1;
      byId(tab.getAttribute("aria-controls")).hidden = !chosen;
    }
  }
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  byId("theme").setAttribute("aria-pressed", String(theme === "dark"));
}

// A page opened from disk may be denied storage.
function storedTheme() {
  try { return localStorage.getItem(THEME_KEY); } catch { return null; }
}

function storeTheme(theme) {
  try { localStorage.setItem(THEME_KEY, theme); } catch { /* Lasts as long as the page, then. */ }
}

main();
