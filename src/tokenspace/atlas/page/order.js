// The seed of the whole thing: two sentences of the same words, as bags and with positions.
//
// Text is cut into tokens by the longest match on their bytes, which is not always what the tokenizer does:
// the page holds no merges. Vectors are those of the first 16 principal components.

const WIDTH = 16;

function createOrderCard(tokens, vectors, positions, closeness) {
  const fields = ["first", "second"].map((name) => {
    const field = element("input", { type: "text", id: `order-${name}`, "aria-label": `${name} sentence`, dir: "auto", maxlength: "200", spellcheck: "false" });
    field.value = meta.order_example[name];
    return field;
  });
  const verdict = element("p", { id: "order-verdict", role: "status" });
  const text = "Type over the sentences. The square is the bag: the mean of a sentence's token vectors, the same for every order. A diamond is the sentence " +
    "as its last place reads it by positions alone: the mean again, but each word weighs as much as the scheme makes of its place. " +
    "Words are cut by the longest match on the bytes of the vocabulary, which is not always what the tokenizer does.";
  let ids = [];
  const cut = longestMatch(tokens);
  const understand = () => {
    const found = fields.map((field) => cut(field.value));
    ids = found.map((one) => one.ids);
    const unknown = [...new Set(found.flatMap((one) => one.unknown))];
    const without = unknown.length ? ` Left out, as no token has it: ${unknown.join(", ")}.` : "";
    verdict.textContent = conclusion(ids.map((some) => compare(some))) + without;
  };

  // The bag of some ids, their vectors with positions, and what the last place reads.
  function compare(some) {
    const plain = some.map((id) => Array.from(vectors.subarray(id * WIDTH, (id + 1) * WIDTH)));
    const limit = positions ? positions.length / WIDTH : Infinity;
    const placed = plain.map((vector, place) => (place < limit && positions ? vector.map((value, i) => value + positions[place * WIDTH + i]) : vector));
    const ordered = some.map((id, place) => [id, plain[place]]).sort((a, b) => a[0] - b[0]); // the same bits for the same words
    const bag = mean(ordered.map(([, vector]) => vector));
    return { ids: some, plain, placed, bag, read: readFromTheEnd(placed, positions, closeness) };
  }

  understand();
  const make = () => orderPicture(tokens, ids.map(compare));
  const made = chartCard("Two orders of the same words", text, make, "Each word's vector with its position, on the first two principal components.");
  made.classList.add("wide");
  made.top.after(element("div", { class: "sentences" }, ...fields));
  made.append(verdict);
  for (const field of fields) {
    field.addEventListener("input", () => {
      understand();
      made.refresh();
    });
  }
  return made;
}

function conclusion([a, b]) {
  if (!a.ids.length || !b.ids.length) return "Type two sentences whose words are in this vocabulary.";
  const tokens = `${a.ids.length} and ${counted(b.ids.length, "token")}`;
  if (!sameBag(a, b)) return `${tokens}, and not the same ones: write the same words in another order.`;
  const away = (x, y) => Math.hypot(...x.map((value, i) => value - y[i])).toPrecision(3);
  const read = Number(away(a.read, b.read)) < 1e-6 ? "0: nothing here tells the orders apart" : away(a.read, b.read);
  return `The same ${counted(a.ids.length, "token")}. Bags: distance ${Number(away(a.bag, b.bag))}. With positions (${meta.scheme}): distance ${read}.`;
}

function sameBag(a, b) {
  const sorted_ = ({ ids }) => ids.toSorted((x, y) => x - y).join();
  return sorted_(a) === sorted_(b);
}

function orderPicture(tokens, [a, b]) {
  const [first, second] = palette();
  const label = (id) => plainText(tokens.label(id));
  const path = (found, name, colour, side) => ({
    x: found.placed.map((vector) => vector[0]), y: found.placed.map((vector) => vector[1]), name, text: found.ids.map(label),
    mode: "lines+markers+text", cliponaxis: false, textposition: side, line: { color: colour, width: 1, dash: "dot" },
    marker: { color: colour, size: 6, opacity: 0.7 }, textfont: { family: styleOf("--mono"), color: colour },
  });
  const one = (vector, name, colour, symbol, size, edge = 2) => ({ x: [vector[0]], y: [vector[1]], name, mode: "markers", marker: { size, color: colour, symbol, line: { width: edge, color: styleOf("--card") } } });
  const traces = [];
  if (a.ids.length) traces.push(path(a, "first sentence", first, "top center"), one(a.bag, sameBag(a, b) ? "bag of both" : "bag of the first", styleOf("--ink"), "square", 22));
  if (b.ids.length) traces.push(path(b, "second sentence", second, "bottom center"));
  if (b.ids.length && !sameBag(a, b)) traces.push(one(b.bag, "bag of the second", styleOf("--quiet"), "square", 22));
  if (a.ids.length) traces.push(one(a.read, "first, read by position", first, "diamond", 16));
  if (b.ids.length) traces.push(one(b.read, "second, read by position", second, "diamond", 9, 1));
  const range = (axis, share) => roomy(traces.flatMap((trace) => trace[axis]), share);
  return { traces, layout: { xaxis: { title: "first principal component", range: range("x", 0.08) }, yaxis: { title: "second", range: range("y", 0.18) } } };
}

// From the least to the largest, with room for names beside them: plotly cuts off what stands out.
function roomy(values, share) {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const room = share * (high - low) || 1e-3;
  return values.length ? [low - room, high + room] : [-1, 1];
}

function mean(rows) {
  const sum = new Array(WIDTH).fill(0);
  for (const row of rows) for (let i = 0; i < WIDTH; i++) sum[i] += row[i] / rows.length;
  return sum;
}

// A sentence as a query at its last place reads it, were all contents alike: by the likeness of what the scheme adds
// to the input there and at each word, changed by `closeness` as the scheme changes a logit. Without positions: the bag.
function readFromTheEnd(rows, positions, closeness) {
  if (!rows.length) return [];
  const end = rows.length - 1;
  const logits = rows.map((_, place) => closeness(Math.sqrt(WIDTH) * likeness(positions, end, place), end - place));
  const most = Math.max(...logits);
  const weights = logits.map((logit) => Math.exp(logit - most));
  const total = weights.reduce((a, b) => a + b, 0);
  return Array.from({ length: WIDTH }, (_, i) => rows.reduce((sum, row, place) => sum + (weights[place] / total) * row[i], 0));
}

function likeness(positions, a, b) {
  if (!positions || (Math.max(a, b) + 1) * WIDTH > positions.length) return 1;
  const [x, y] = [a, b].map((place) => positions.subarray(place * WIDTH, (place + 1) * WIDTH));
  return x.reduce((sum, value, i) => sum + value * y[i], 0) / (Math.hypot(...x) * Math.hypot(...y) || 1);
}

// WordPiece marks tokens that go on with a word ("##s"), not those that start one: here these get the space.
function longestMatch(tokens) {
  const ids = new Map();
  let longest = 1;
  const goesOn = (id) => /^##./.test(tokens.label(id)) && tokens.bytes(id)[0] !== 0x23;
  let wordPiece = false;
  for (let id = 0; id < tokens.size && !wordPiece; id++) wordPiece = goesOn(id);
  const key = (bytes) => String.fromCharCode(...bytes);
  for (let id = tokens.size - 1; id >= 0; id--) {
    const bytes = tokens.bytes(id);
    if (!bytes.length || bytes.length > 64 || !tokens.hasPlace[id] || meta.kinds[tokens.kind[id]] === "special") continue;
    ids.set((wordPiece && !goesOn(id) ? " " : "") + key(bytes), id);
    longest = Math.max(longest, bytes.length + wordPiece);
  }
  const idOf = (bytes) => ids.get(key(bytes)) ?? (wordPiece ? ids.get(` ${key(bytes)}`) : undefined);
  // Ids, and the words of which some bytes (but for the space before) are in no token.
  return (text) => {
    const [found, unknown] = [[], []];
    for (const word of text.trim().split(/\s+/).filter(Boolean)) {
      const bytes = new TextEncoder().encode(` ${word}`);
      for (let at = 0; at < bytes.length; ) {
        let end = Math.min(bytes.length, at + longest);
        while (end > at && idOf(bytes.subarray(at, end)) === undefined) end--;
        if (end > at) found.push(idOf(bytes.subarray(at, end)));
        else if (at && unknown.at(-1) !== word) unknown.push(word);
        at = Math.max(end, at + 1);
      }
    }
    return { ids: found, unknown };
  };
}
