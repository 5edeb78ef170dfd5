// Search as one types: text, an id, or bytes. The answer is a list of ids, the best first.

const MOST_LISTED = 100;

function createSearch(tokens) {
  const field = $$("query");
  const list = $$("results");
  let lowered = null;
  let found = [];
  let active = -1;

  function search(query) {
    lowered ??= Array.from({ length: tokens.size }, (_, id) => tokens.label(id).toLowerCase());
    return query ? matches(tokens, lowered, query) : tokens.byCount.filter((id) => wasSeen(tokens, id));
  }
  function show() {
    const query = field.value;
    found = search(query);
    active = -1;
    const listed = Array.from(found.slice(0, MOST_LISTED));
    list.replaceChildren(...listed.map((id, place) => option(tokens, id, place)));
    const more = found.length > MOST_LISTED ? `, the first ${MOST_LISTED}` : "";
    const order = query ? "" : tokens.count ? ", most frequent first" : ", by id";
    $$("found").textContent = `${counted(found.length, "token")}${more}${order}`;
    field.removeAttribute("aria-activedescendant");
  }
  function activate(place) {
    list.children[active]?.classList.remove("active");
    active = Math.min(list.children.length - 1, Math.max(0, place));
    const row = list.children[active];
    if (!row) return;
    row.classList.add("active");
    row.scrollIntoView({ block: "nearest" });
    field.setAttribute("aria-activedescendant", row.id);
  }
  field.addEventListener("input", show);
  field.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown") activate(active + 1);
    else if (event.key === "ArrowUp") activate(active - 1);
    else if (event.key === "Enter" && found.length) change({ token: found[Math.max(0, active)] });
    else return;
    event.preventDefault();
  });
  listen(["token"], () => {
    for (const row of list.children) row.setAttribute("aria-selected", String(Number(row.dataset.id) === state.token));
  });
  show();
}

function option(tokens, id, place) {
  const number = element("span", { class: "number" }, tokens.count ? whole(tokens.count[id]) : `#${id}`);
  const attributes = { role: "option", id: `option-${place}`, "data-id": id, "aria-selected": String(id === state.token), onclick: () => change({ token: id }) };
  return element("li", attributes, named(tokens.label(id)), number);
}

function matches(tokens, lowered, query) {
  const numbered = query.match(/^\s*#\s*(\d+)\s*$/);
  if (numbered) return Number(numbered[1]) < tokens.size ? [Number(numbered[1])] : [];
  const wanted = query.normalize("NFC").toLowerCase().replaceAll(" ", "␣");
  const bare = wanted.replace(/^␣/, "");
  const ranks = [[], [], []]; // it is the token, it begins the token, it is inside
  const add = (id) => {
    const label = lowered[id];
    if (!label.includes(bare)) return; // nearly all end here
    const own = label.startsWith("␣") ? label.slice(1) : label;
    const exact = own === bare || label === wanted;
    if (exact || label.includes(wanted)) ranks[exact ? 0 : own.startsWith(bare) ? 1 : 2].push(id);
  };
  tokens.byCount.forEach(add);
  const inHex = query.replace(/0x|\\x|[\s,]/gi, "");
  const asBytes = /^([0-9a-f]{2})+$/i.test(inHex) ? byBytes(tokens, inHex.match(/../g).map((pair) => parseInt(pair, 16))) : [];
  // What labels write in their own way, invisible characters for one, is found by its own bytes.
  const written = /[^\x20-\x7e]/.test(query) ? byBytes(tokens, [...new TextEncoder().encode(query)]) : [];
  ranks[0].splice(1, 0, ...byId(tokens, query)); // a bare number is text first, and an id before all that only holds it
  return [...new Set([...ranks.flat(), ...asBytes, ...written])];
}

const byId = (tokens, query) => (/^\s*\d+\s*$/.test(query) && Number(query) < tokens.size ? [Number(query)] : []);

// Tokens that hold these bytes, the shortest first: one walk over the bytes of all.
function byBytes({ allBytes, byteOffsets, count }, wanted) {
  const found = [];
  for (let at = allBytes.indexOf(wanted[0]), id = 0; at >= 0; at = allBytes.indexOf(wanted[0], at + 1)) {
    while (byteOffsets[id + 1] <= at) id++;
    if (at + wanted.length > byteOffsets[id + 1] || !wanted.every((byte, place) => allBytes[at + place] === byte)) continue;
    found.push(id);
    at = byteOffsets[id + 1] - 1; // once is enough
  }
  const length = (id) => byteOffsets[id + 1] - byteOffsets[id];
  return found.sort((a, b) => length(a) - length(b) || (count ? count[b] - count[a] : a - b));
}
