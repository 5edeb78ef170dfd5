// Puts the views together, and switches between them and between light and dark.

function describe() {
  $$("title").textContent = meta.title;
  const facts = [`${counted(meta.vocab_size, "token")} × ${whole(meta.d_model)}`, `positions: ${meta.scheme}`, meta.tied === null ? "no head" : meta.tied ? "tied head" : "untied head"];
  if (meta.context_length !== null) facts.push(`context ${whole(meta.context_length)}`);
  if (meta.step !== null) facts.push(`step ${whole(meta.step)}`);
  facts.push(meta.projection.name === "pca" ? "principal components" : meta.projection.name);
  $$("facts").textContent = facts.join(" · ");
}

function createTabs(open) {
  const tabs = [...$$("tabs").children];
  const show = () => {
    for (const tab of tabs) {
      const chosen = tab.id === `tab-${state.view}`;
      tab.setAttribute("aria-selected", String(chosen));
      tab.tabIndex = chosen ? 0 : -1;
      $$(tab.getAttribute("aria-controls")).hidden = !chosen;
    }
    open(state.view);
  };
  tabs.forEach((tab, place) => {
    tab.addEventListener("click", () => change({ view: tab.id.slice("tab-".length) }));
    tab.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!by) return;
      const next = tabs[(place + by + tabs.length) % tabs.length];
      next.focus();
      next.click();
    });
  });
  listen(["view"], show);
}

function createTheme() {
  const show = () => {
    document.documentElement.dataset.theme = state.theme;
    $$("theme").textContent = state.theme === "dark" ? "Light" : "Dark";
  };
  let chosen = false; // then the system is followed no longer
  $$("theme").addEventListener("click", () => {
    chosen = true;
    change({ theme: state.theme === "dark" ? "light" : "dark" });
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", ({ matches }) => {
    if (!chosen) change({ theme: matches ? "dark" : "light" });
  });
  listen(["theme"], show); // before all others, which read its colours
  show();
}

function createChoices(tokens, colourings_) {
  const choice = $$("colour");
  choice.append(...Object.entries(colourings_).map(([name, { label }]) => element("option", { value: name }, label)));
  choice.value = state.colour;
  choice.addEventListener("change", () => change({ colour: choice.value, hiddenClasses: new Set() }));
  $$("unseen").addEventListener("change", (event) => change({ unseen: event.target.checked }));
  $$("names").addEventListener("change", (event) => change({ names: event.target.checked }));
  listen(["colour"], () => (choice.value = state.colour));
  listen(["unseen"], () => ($$("unseen").checked = state.unseen));
  $$("unseen-choice").hidden = !tokens.state;
}

async function start() {
  createTheme();
  describe();
  const tokens = await loadTokens();
  const coloured = colourings(tokens);
  if (!coloured.frequency) state.colour = "norm";
  if (tokens.state && !tokens.state.some((one) => one < 2)) state.unseen = true; // nothing else to show
  let neighbours = { now: () => null, first: () => null, hasFirst: false };
  const map = createMap(tokens, (name) => coloured[name], (id) => ((state.before ? neighbours.first(id) : neighbours.now(id)) ?? []).map((one) => one.id));
  map.draw();
  performance.mark("first map");
  createChoices(tokens, coloured);
  createPlayback();
  createSearch(tokens);
  neighbours = await loadNeighbours();
  createTokenPanel(tokens, neighbours);
  const opened = {};
  createTabs((view) => {
    if (view === "positions") opened.positions ??= createPositions(tokens);
    if (view === "health") opened.health ??= createHealth(tokens);
    if (view in opened) drawAll($$(view)); // the theme or the size may be another one now
  });
  listen(["theme"], () => Object.keys(opened).forEach((view) => drawAll($$(view))));
  globalThis.atlas = { meta, state, change, tokens, map, neighbours, opened, listen }; // for the console, and for tests
  document.documentElement.dataset.ready = "true";
}

start().catch((error) => {
  $$("hint").hidden = false;
  $$("hint").textContent = `This page could not be drawn: ${error.message}`;
  throw error;
});
