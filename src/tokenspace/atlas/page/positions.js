// How order enters: what the scheme adds to the input, to the logits, or by turning.

async function createPositions(tokens) {
  const names = ["vectors", "position_vectors", "position_similarity", "position_ticks", "score_by_distance", "distances", "rotary_kernel", "rotary_distances"];
  const found = Object.fromEntries(await Promise.all(names.map(async (name) => [name, await array(name)])));
  const cards = [orderCard(tokens, found)];
  cards.push(found.position_similarity ? similarityCard(found) : missingCard("Positions beside each other", "How alike the vectors of any two positions are.", `The scheme ${meta.scheme} adds nothing to the input.`));
  cards.push(found.score_by_distance ? scoreCard(found) : missingCard("Logits by distance", "What the scheme adds to the attention logits.", `The scheme ${meta.scheme} adds nothing to the logits.`));
  cards.push(found.rotary_kernel ? rotaryCard(found) : missingCard("Turning by distance", "How alike a query and a key still are after turning.", `The scheme ${meta.scheme} turns nothing.`));
  $$("positions").replaceChildren(inGrid(cards));
  await drawAll($$("positions"));
}

// How the scheme changes a logit, as far as this page knows it: by the first layer's mean score, or by the mean over all bands.
function orderCard(tokens, found) {
  const { score_by_distance: score, rotary_kernel: kernel } = found;
  let closeness = (logit) => logit;
  if (score) {
    const [, heads, width] = shapeOf("score_by_distance");
    const means = Array.from({ length: width }, (_, d) => Array.from({ length: heads }, (_, h) => score[h * width + d]).reduce((a, b) => a + b, 0) / heads);
    const here = found.distances.indexOf(0);
    closeness = (logit, distance) => logit + means[Math.min(here + distance, width - 1)];
  } else if (kernel) {
    const [bands, width] = shapeOf("rotary_kernel");
    const means = Array.from({ length: width }, (_, d) => Array.from({ length: bands }, (_, b) => kernel[b * width + d]).reduce((a, b) => a + b, 0) / bands);
    closeness = (logit, distance) => logit * means[Math.min(distance, width - 1)];
  }
  return createOrderCard(tokens, found.vectors, found.position_vectors, closeness);
}

function similarityCard({ position_similarity: similar, position_ticks: ticks }) {
  const positions = Array.from(ticks);
  const make = () => ({
    traces: [{ type: "heatmap", x: positions, y: positions, z: rowsOf(similar, positions.length), zmin: -1, zmax: 1, colorscale: diverging(), colorbar: { thickness: 10, outlinewidth: 0 }, hovertemplate: "positions %{x} and %{y}: %{z:.3f}<extra></extra>" }],
    layout: { xaxis: { title: "position", constrain: "domain" }, yaxis: { title: "position", autorange: "reversed", scaleanchor: "x", constrain: "domain" } },
  });
  const made = chartCard("Positions beside each other", "The cosine of what is added at one position with what is added at another. A band along the diagonal: near positions are alike.", make, `${counted(positions.length, "position")}.`);
  made.querySelector(".chart").style.height = "min(440px, 80vw)"; // square
  return made;
}

const diverging = () => [[0, palette()[1]], [0.5, styleOf("--card")], [1, palette()[0]]];

function scoreCard({ score_by_distance: score, distances }) {
  const [layers, heads, width] = shapeOf("score_by_distance");
  const choice = element("select", { "aria-label": "Layer" }, ...Array.from({ length: layers }, (_, layer) => element("option", { value: layer }, `layer ${layer + 1}`)));
  const xs = Array.from(distances);
  const make = () => {
    const layer = Number(choice.value);
    const rows = rowsOf(score.subarray(layer * heads * width, (layer + 1) * heads * width), width);
    return { traces: lines(xs, rows, rows.map((_, head) => `head ${head + 1}`)), layout: { xaxis: { title: distances[0] < 0 ? "tokens back; below 0, ahead" : "tokens back" }, yaxis: { title: "added to the logit" } } };
  };
  const over = { text: "the mean over a text of the validation part", drawn: "the mean over tokens drawn at random, for want of a text", scheme: "that of the scheme alone, for the layers of this model are unknown here" }[meta.score_of];
  const made = chartCard("Logits by distance", `What the scheme adds to the scaled logits, by how far back the key stands: ${over}.`, make, `${counted(heads, "head")} in ${counted(layers, "layer")}.`);
  if (layers > 1) made.top.querySelector(".save").before(choice);
  choice.addEventListener("change", () => made.refresh());
  return made;
}

// One above the other, each in a strip of its own: on top of each other the fast bands hide all else.
function rotaryCard({ rotary_kernel: kernel, rotary_distances: distances }) {
  const rows = rowsOf(kernel, distances.length);
  const names = rows.map((_, band) => (band === 0 ? "fastest" : band === rows.length - 1 ? "slowest" : `band ${band + 1}`));
  const make = () => {
    const strips = rows.map((ys, band) => ys.map((y) => 0.45 * y - band));
    const traces = lines(Array.from(distances), strips, names);
    traces.forEach((trace, band) => Object.assign(trace, { line: { color: palette()[0], width: 1.5 }, customdata: rows[band], hovertemplate: `${names[band]}, %{x} back: %{customdata:.3f}<extra></extra>` }));
    const axis = { tickmode: "array", tickvals: rows.map((_, band) => -band), ticktext: names, range: [0.6 - rows.length, 0.6], zeroline: false };
    return { traces, layout: { xaxis: { title: "tokens back" }, yaxis: axis, showlegend: false } };
  };
  const made = chartCard("Turning by distance", "How alike a component of a query and of a key still are after both were turned, by bands: 1, the top of a strip, at the same place; its line is 0, its foot −1. Fast bands tell neighbours apart, slow ones far places.", make, `${counted(rows.length, "band")}.`);
  made.querySelector(".chart").style.height = `${60 + 45 * rows.length}px`;
  return made;
}
