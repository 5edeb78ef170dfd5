// What colours mean: a ramp for numbers, a palette for classes; and the legend that says so.

// Found by search: with full sight, protanopia and deuteranopia any two stay apart, and all are 3:1 against the card
// behind them; tests/unit/test_atlas_page.py holds them to it. The last is for what has no colour of its own.
const PALETTES = {
  light: ["#1c3a94", "#c48921", "#7d8cf3", "#a65202", "#6c0c4d", "#5a63b9", "#871d00", "#7f7f7f"],
  dark: ["#6793ed", "#e2c940", "#6ff8ce", "#b7991d", "#66cefd", "#437615", "#2d6ab8", "#8a8a8a"],
};
const palette = () => PALETTES[state.theme];
const styleOf = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const rgb = (text) => [1, 3, 5].map((at) => parseInt(text.slice(at, at + 2), 16));

// Colourings by name: {label, classes: [{name, shade}], of(id)} or {label, low, high, share(id)}.
function colourings(tokens) {
  const found = {};
  const { count, norm } = tokens;
  if (count) {
    const most = Math.log1p(count.reduce((a, b) => Math.max(a, b), 1));
    found.frequency = { label: "frequency", low: "never", high: `${whole(Math.round(Math.expm1(most)))} times, on a log scale`, share: (id) => Math.log1p(count[id]) / most };
  }
  const sorted = norm.filter((value, id) => tokens.hasPlace[id]).sort();
  const low = sorted[Math.floor(sorted.length * 0.01)] ?? 0;
  const high = sorted[Math.floor(sorted.length * 0.99)] ?? 1;
  found.norm = { label: "norm", low: low.toPrecision(3), high: high.toPrecision(3), share: (id) => (norm[id] - low) / (high - low || 1) };
  found.kind = classes("kind", meta.kinds, tokens.kind);
  found.script = classes("script", meta.scripts, tokens.script);
  if (tokens.state) found.state = classes("what training did", meta.states, tokens.state);
  return found;
}

function classes(label, names, numbers) {
  const often = new Array(names.length).fill(0);
  for (const number of numbers) often[number]++;
  const ranked = names.map((name, number) => number).filter((number) => often[number]).sort((a, b) => often[b] - often[a]);
  const own = new Map(ranked.slice(0, ranked.length > 8 ? 7 : 8).map((number, rank) => [number, rank]));
  const listed = [...own.keys()].map((number, rank) => ({ name: names[number], shade: rank }));
  if (ranked.length > own.size) {
    listed.push({ name: `${ranked.length - own.size} others`, shade: 7 });
  }
  return { label, classes: listed, of: (id) => own.get(numbers[id]) ?? own.size };
}

// RGB of each token, three bytes each.
function paint(tokens, colouring) {
  const out = new Uint8Array(tokens.size * 4);
  if (colouring.classes) {
    const colours = colouring.classes.map(({ shade }) => rgb(palette()[shade]));
    for (let id = 0; id < tokens.size; id++) out.set(colours[colouring.of(id)], id * 4);
    return out;
  }
  const stops = ["--low", "--middle", "--high"].map((name) => rgb(styleOf(name)));
  for (let id = 0; id < tokens.size; id++) {
    const share = Math.min(1, Math.max(0, colouring.share(id) || 0)) * 2;
    const [from, to] = share < 1 ? [stops[0], stops[1]] : [stops[1], stops[2]];
    const part = share < 1 ? share : share - 1;
    for (let i = 0; i < 3; i++) out[id * 4 + i] = from[i] + (to[i] - from[i]) * part;
    out[id * 4 + 3] = 255;
  }
  return out;
}

// `ids` are the tokens that could be shown; the legend says how many of each class they are.
function showLegend(colouring, ids) {
  const legend = $$("legend");
  if (!colouring.classes) {
    legend.replaceChildren(element("span", {}, colouring.low), element("span", { class: "ramp", role: "img", "aria-label": "from low to high" }), element("span", {}, colouring.high));
    return;
  }
  const often = new Array(colouring.classes.length).fill(0);
  for (const id of ids) often[colouring.of(id)]++;
  const places = colouring.classes.map((one, place) => place).filter((place) => often[place]);
  legend.replaceChildren(
    ...places.map((place) => {
      const { name, shade } = colouring.classes[place];
      const dot = element("span", { class: "dot" });
      dot.style.background = palette()[shade];
      const toggle = () => {
        const hidden = new Set(state.hiddenClasses);
        if (!hidden.delete(place)) hidden.add(place);
        change({ hiddenClasses: hidden });
      };
      const pressed = String(!state.hiddenClasses.has(place));
      return element("button", { "aria-pressed": pressed, title: "Show or hide", onclick: toggle }, dot, name, element("span", { class: "number" }, whole(often[place])));
    }),
  );
}
