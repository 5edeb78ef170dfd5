// The table's health: numbers, and the charts behind them.

const MOST_CHIPS = 200;

async function createHealth(tokens) {
  const names = ["spectrum", "duplicates", "loss_by_position"];
  const [spectrum, duplicates, byPosition] = await Promise.all(names.map(array));
  const cards = [
    tilesCard(tokens),
    normCard(tokens),
    spectrumCard(spectrum),
    lossCard(),
    byPosition ? positionLossCard(byPosition) : missingCard("Loss by position", "How the loss falls along a window.", meta.loss_by_position_note),
    scriptCard(),
    untrainedCard(tokens),
    duplicatesCard(tokens, duplicates),
  ];
  $$("health").replaceChildren(inGrid(cards));
  await drawAll($$("health"));
}

function tilesCard(tokens) {
  const { health } = meta;
  const number = (value) => (value === null ? "–" : Math.abs(value) >= 100 ? whole(Math.round(value)) : value.toPrecision(3));
  const nearZero = (value) => (value === null ? "–" : (Math.round(value * 1000) / 1000 || 0).toFixed(3));
  const tiles = [
    [whole(health.rows), "rows"],
    [`${number(health.effective_rank)} of ${whole(meta.d_model)}`, "directions really used: effective rank"],
    [nearZero(health.mean_cosine), "mean cosine of all pairs: 0 is everywhere, 1 one way"],
    [number(health.isotropy), "isotropy: 1 is the same in all directions"],
    [`${number(health.norm_mean)} ± ${number(health.norm_std)}`, `norm, from ${number(health.norm_min)} to ${number(health.norm_max)}`],
    [whole(health.duplicates), "rows that equal an earlier one"],
    [whole(health.rows - health.finite_rows), "rows with NaN or infinity"],
  ];
  if (tokens.state) tiles.push([whole(tokens.state.reduce((sum, one) => sum + (one >= 2), 0)), "tokens that training never saw"]);
  const made = card("The table in numbers", "How they are measured stands in the documentation of tokenspace (docs/atlas.md), with sources.");
  made.classList.add("wide");
  made.append(element("div", { class: "tiles" }, ...tiles.map(([value, text]) => element("div", { class: "tile" }, element("b", {}, value), element("span", {}, text)))));
  if (meta.notes.length) made.append(element("ul", { class: "quiet" }, ...meta.notes.map((note) => element("li", {}, element("bdi", {}, note)))));
  return made;
}

// So many tokens would be slow as points, and lie on top of each other: a grid of cells, and the median.
function normCard(tokens) {
  const [title, text] = ["Norm against frequency", "Each cell counts tokens, stronger for more; the line is the median. Tokens that hardly occur are moved by the softmax more than by their contexts."];
  if (!tokens.count) return missingCard(title, text, "Nobody counted the tokens: the corpus is not at hand, and there is no ledger.");
  const seen = Array.from(tokens.byCount).filter((id) => tokens.count[id] && tokens.hasPlace[id]);
  if (!seen.length) return missingCard(title, text, "No token was ever counted.");
  const xs = seen.map((id) => Math.log10(tokens.count[id]));
  const ys = seen.map((id) => tokens.norm[id]);
  const sorted_ = ys.toSorted((a, b) => a - b);
  const [low, high] = [sorted_[Math.floor(ys.length * 0.001)], sorted_[Math.ceil(ys.length * 0.999) - 1]];
  const columns = Math.max(1, Math.ceil(xs[0] * 8)); // eighths of a power of ten
  const byColumn = Array.from({ length: columns + 1 }, () => []);
  xs.forEach((x, i) => byColumn[Math.floor(x * 8)].push(ys[i]));
  const filled_ = byColumn.map((some, column) => [10 ** ((column + 0.5) / 8), some.toSorted((a, b) => a - b)]).filter(([, some]) => some.length);
  const rows = 40;
  const z = Array.from({ length: rows }, () => new Array(columns + 1).fill(null));
  const row = (y) => Math.min(rows - 1, Math.max(0, Math.floor(((y - low) / (high - low || 1)) * rows)));
  xs.forEach((x, i) => (z[row(ys[i])][Math.floor(x * 8)] += 1));
  const most = Math.max(...z.flat());
  const make = () => ({
    traces: [
      { type: "heatmap", x: z[0].map((_, column) => 10 ** ((column + 0.5) / 8)), y: z.map((_, r) => low + ((r + 0.5) / rows) * (high - low)), z: z.map((some) => some.map((n) => n && Math.log10(n) + 0.15)), customdata: z, colorscale: ramp(), zmin: 0, zmax: Math.log10(most) + 0.15, showscale: false, hovertemplate: "%{customdata} tokens<br>seen some %{x:.3s} times, norm %{y:.3f}<extra></extra>" },
      { x: filled_.map(([x]) => x), y: filled_.map(([, some]) => some[some.length >> 1]), mode: "lines", name: "median", line: { color: styleOf("--chosen"), width: 2 }, hovertemplate: "median %{y:.3f}<extra></extra>" },
    ],
    layout: { xaxis: { title: `times ${meta.counted_by === "ledger" ? "seen in training" : "in the corpus"}`, type: "log", dtick: 1, tickformat: "~s" }, yaxis: { title: "norm" }, showlegend: false },
  });
  return chartCard(title, text, make, `${counted(seen.length, "token")}.`);
}

function spectrumCard(spectrum) {
  const fall = Math.log10(spectrum[0] / spectrum.findLast((value) => value > 0)); // below 1 a log axis has hardly a tick
  const sizes = !(fall >= 1) ? { rangemode: "tozero" } : { type: "log", dtick: fall > 2 ? Math.ceil(fall / 8) : "D2" };
  const make = () => ({
    traces: [{ x: Array.from(spectrum, (_, place) => place + 1), y: Array.from(spectrum), mode: "lines", line: { color: palette()[0], width: 2 }, hovertemplate: "%{x}: %{y:.4g}<extra></extra>" }],
    layout: { xaxis: { title: "singular value, largest first", type: "log", dtick: "D2", tickformat: "~s" }, yaxis: { title: "size", tickformat: "~g", ...sizes } },
  });
  const share = meta.projection.explained.slice(0, 2).reduce((a, b) => a + b, 0);
  return chartCard("Singular spectrum", `A steep fall means that few directions carry the table. The ${meta.projection.name === "pca" ? "two of the map" : "first two"} carry ${(share * 100).toFixed(1)}% of its variance.`, make, `Effective rank ${meta.health.effective_rank?.toFixed(1)}.`);
}

function lossCard() {
  const { unigram } = meta.loss;
  const [train, evaluation] = knownLosses();
  if (!train.length && !evaluation.length) return missingCard("Loss over training", "Nats a token.", meta.step === null ? "This is no run of training: its losses are not known." : "No loss of this run is a number.");
  const make = () => {
    const curve = (pairs, name, color, width) => ({ x: pairs.map((pair) => pair[0]), y: pairs.map((pair) => pair[1]), name, mode: pairs.length === 1 ? "markers" : "lines", line: { color, width } });
    const traces = [curve(train, "training", styleOf("--middle"), 1), curve(evaluation, "validation", styleOf("--chosen"), 2)];
    if (unigram !== null) traces.push({ ...curve([[0, unigram], [meta.step ?? 1, unigram]], "counting tokens", styleOf("--quiet"), 1), line: { color: styleOf("--quiet"), dash: "dash" } });
    return { traces, layout: { xaxis: { title: "step" }, yaxis: { title: "loss, nats a token" } } };
  };
  const last = (evaluation.at(-1) ?? train.at(-1))[1];
  return chartCard("Loss over training", "Beside it, the loss of a model that only counts how often each token occurs.", make, `It ends at ${last.toFixed(3)} nats.`);
}

function positionLossCard(losses) {
  const [place, axis, text] = meta.sees_ahead
    ? ["at place %{x}", "place in the window", "The mean loss of the tokens hidden at each place of a window of the validation part; those at its edges have fewer beside them."]
    : ["after %{x} tokens", "tokens of context", "The mean loss at each place of a window of the validation part: what more context buys."];
  const make = () => ({
    traces: [{ x: Array.from(losses, (_, place) => place + 1), y: Array.from(losses), mode: "lines", line: { color: palette()[2], width: 2 }, hovertemplate: `${place}: %{y:.3f}<extra></extra>` }],
    layout: { xaxis: { title: axis }, yaxis: { title: "loss, nats a token" } },
  });
  const known = losses.filter(Number.isFinite);
  return chartCard("Loss by position", text, make, `From ${known[0].toFixed(2)} to ${known.at(-1).toFixed(2)} nats.`);
}

function scriptCard() {
  const shares = Object.entries(meta.bytes_per_token_by_script).sort((a, b) => b[1] - a[1]);
  if (!shares.length) return missingCard("Bytes per token by script", "How much text a token stands for.", "This vocabulary drops white space: its tokens have no bytes of their own.");
  const how = meta.bytes_per_token_weighted ? "weighted by how often each token occurs" : "each token of the vocabulary once";
  const make = () => ({
    traces: [{ type: "bar", orientation: "h", y: shares.map(([name]) => name), x: shares.map(([, value]) => value), marker: { color: palette()[0] }, hovertemplate: "%{y}: %{x:.2f}<extra></extra>" }],
    layout: { xaxis: { title: "bytes a token" }, yaxis: { autorange: "reversed" }, margin: { l: 110, r: 16, t: 8, b: 44 } },
  });
  const made = chartCard("Bytes per token by script", `How much text a token stands for, ${how}. A character of Devanagari is three bytes: near or below three, the vocabulary does not know the script.`, make, shares.map(([name, value]) => `${name} ${value.toFixed(1)}`).join(", "));
  made.querySelector(".chart").style.height = `${Math.max(160, 60 + 22 * shares.length)}px`;
  return made;
}

function chips(tokens, ids) {
  const show = (id) => change({ view: "space", unseen: state.unseen || !wasSeen(tokens, id), token: id });
  const made = ids.slice(0, MOST_CHIPS).map((id) => element("button", { onclick: () => show(id), title: `id ${id}` }, element("bdi", {}, tokens.label(id))));
  return element("div", { class: "chips" }, ...made);
}

function untrainedCard(tokens) {
  const [title, text] = ["Tokens that training never saw", "Their rows are as they were drawn, or were moved by the softmax alone. A model that meets one reads noise."];
  if (!tokens.state) return missingCard(title, text, "No ledger was kept, so nobody knows. Runs of tokenspace keep one; for other models see: tokenspace inspect MODEL --untrained");
  const ids = Array.from({ length: tokens.size }, (_, id) => id).filter((id) => !wasSeen(tokens, id));
  if (!ids.length) return card(title, text, element("p", {}, "None: every token was seen."));
  const made = card(title, text, chips(tokens, ids));
  made.append(element("p", {}, `${whole(ids.length)} of ${whole(tokens.size)}${ids.length > MOST_CHIPS ? `, the first ${MOST_CHIPS}` : ""}. Choose one to see it in the map.`));
  return made;
}

function duplicatesCard(tokens, pairs) {
  const [title, text] = ["Rows that are exactly alike", "Two tokens that no model can tell apart at its input."];
  if (!pairs?.length) return card(title, text, element("p", {}, "None: no two rows are equal."));
  const groups = new Map();
  for (let i = 0; i < pairs.length; i += 2) {
    if (!groups.has(pairs[i])) groups.set(pairs[i], [pairs[i]]);
    groups.get(pairs[i]).push(pairs[i + 1]);
  }
  const made = card(title, text);
  for (const ids of [...groups.values()].slice(0, 20)) made.append(element("p", {}, `${whole(ids.length)} alike:`), chips(tokens, ids.slice(0, 20)));
  if (groups.size > 20) made.append(element("p", {}, `${counted(groups.size - 20, "more group")}.`));
  return made;
}
