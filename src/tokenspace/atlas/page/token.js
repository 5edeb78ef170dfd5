// The chosen token: what it is, and its nearest tokens, now and before training, each a step to walk on.

async function loadNeighbours() {
  const names = ["neighbour_rows", "neighbours", "cosines", "first_rows", "first_neighbours"];
  const [rows, nearest, cosines, firstRows, firstNearest] = await Promise.all(names.map(array));
  const placed = (ids) => new Map(Array.from(ids ?? [], (id, place) => [id, place]));
  const [now, first] = [placed(rows), placed(firstRows)];
  const width = rows ? shapeOf("neighbours")[1] : 0;
  const firstWidth = firstRows ? shapeOf("first_neighbours")[1] : 0;
  return {
    now(id) {
      if (!now.has(id)) return null;
      const start = now.get(id) * width;
      return Array.from({ length: width }, (_, i) => ({ id: nearest[start + i], cosine: (cosines[start + i] / meta.cosine_full_scale) * 2 - 1 }));
    },
    first(id) {
      if (!first.has(id)) return null;
      const start = first.get(id) * firstWidth;
      return Array.from({ length: firstWidth }, (_, i) => ({ id: firstNearest[start + i], cosine: null }));
    },
    hasFirst: Boolean(firstRows),
  };
}

function createTokenPanel(tokens, neighbours) {
  const panel = $$("token");
  const walked = []; // ids chosen before
  let shown = null;

  function show() {
    const id = state.token;
    if (id !== shown && shown !== null && walked.at(-1) !== id) walked.push(shown);
    else if (walked.at(-1) === id) walked.pop();
    shown = id;
    if (id === null) {
      panel.replaceChildren(element("h2", {}, "No token chosen"), element("p", { class: "quiet" }, "Click a point, or find a token on the left: its neighbours light up in the map."));
      return;
    }
    const back = walked.length ? element("button", { id: "back", onclick: () => change({ token: walked.at(-1) }), "aria-label": "Back to the token before" }, "← ", named(tokens.label(walked.at(-1)))) : null;
    const save = element("button", { class: "save", onclick: async () => saveAs(`${meta.title}-token-${id}.png`, await pictureOf(panel)), "aria-label": "Save the token as PNG" }, "PNG");
    const top = element("div", { class: "pair" }, back, element("span", { class: "gap" }), save);
    panel.replaceChildren(top, element("p", { class: "name" }, element("bdi", {}, tokens.label(id))), facts(tokens, id), ...nearest(id));
    panel.scrollTop = 0;
    announce(`Token ${tokens.label(id)}, id ${id}`);
  }

  function nearest(id) {
    const found = state.before ? neighbours.first(id) : neighbours.now(id);
    const choice = (text, value) => element("button", { id: text, "aria-pressed": String(state.before === value), onclick: () => change({ before: value }) }, text);
    const head = element("div", { class: "pair" }, element("h2", {}, "Neighbours"));
    if (neighbours.hasFirst) head.append(element("span", { class: "gap" }), choice("before", true), choice("now", false));
    if (!found) return [head, element("p", { class: "quiet" }, missing(id))];
    const rows = found.map(({ id: other, cosine }) => element("li", {}, neighbourButton(tokens, other, cosine)));
    return [head, element("ol", { class: "list", id: "neighbours" }, ...rows)];
  }

  function missing(id) {
    if (!tokens.hasPlace[id]) return "Its row holds NaN or infinity: it has no direction, and no neighbours.";
    if (state.before && !wasSeen(tokens, id)) return "Training never saw this token: its row before training is a random draw, or moved only by the softmax.";
    return "Not among the tokens whose neighbours this page holds: the most frequent ones of a large vocabulary.";
  }

  listen(["token", "before"], show);
  show();
}

function facts(tokens, id) {
  const rows = [
    ["id", String(id)],
    ["bytes", hex(tokens.bytes(id)) || "none"],
    ["count", tokens.count ? `${whole(tokens.count[id])} ${meta.counted_by === "ledger" ? "times in training" : "times in the corpus"}` : "not known"],
    ["norm", tokens.norm[id].toPrecision(5)],
    ["kind", meta.kinds[tokens.kind[id]]],
    ["script", meta.scripts[tokens.script[id]]],
  ];
  if (tokens.state) rows.push(["training", meta.states[tokens.state[id]]]);
  if (tokens.isFar.has(id)) rows.push(["place", "far outside all others, drawn nearer"]);
  const unseen = invisibleIn(tokens.bytes(id));
  if (unseen.length) rows.splice(2, 0, ["holds", unseen.join(", ")]);
  return element("dl", {}, ...rows.flatMap(([name, value]) => [element("dt", {}, name), element("dd", { class: name }, value)]));
}

function neighbourButton(tokens, id, cosine) {
  const button = element("button", { "data-id": id, onclick: () => change({ token: id }) }, named(tokens.label(id)));
  if (cosine !== null) {
    const meter = element("span", { class: "meter" });
    meter.style.setProperty("--share", `${Math.max(0, cosine) * 100}%`);
    button.append(meter, element("span", { class: "number" }, cosine.toFixed(3)));
  }
  return button;
}
