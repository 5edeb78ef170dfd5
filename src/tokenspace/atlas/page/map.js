// The map: points and overlay under one camera, moved by mouse, touch and keys; which token lies under the pointer.

const CELLS = 256; // of the grid that finds tokens, each way
const REACH = 14; // pixels

function createMap(tokens, colouringOf, neighboursOf) {
  const [box, points, overlay] = [$$("map"), $$("points"), $$("overlay")];
  const camera = createCamera();
  const renderer = createRenderer(points, tokens);
  if (!renderer) box.append(element("p", { class: "missing" }, "This browser offers no WebGL 2: the map cannot be drawn. Everything else works."));
  let visible = []; // ids, the most frequent first
  let grid = null;
  let dirty = false;
  let untouched = true; // nobody moved the map: it shows the whole, whatever its size

  const placeOf = (id) => {
    const first = Math.min(Math.floor(state.frame), tokens.frames.length - 1);
    const second = Math.min(first + 1, tokens.frames.length - 1);
    const part = state.frame - first;
    const [a, b] = [(first * tokens.size + id) * 2, (second * tokens.size + id) * 2];
    return [(tokens.xy[a] * (1 - part) + tokens.xy[b] * part) / 32767, (tokens.xy[a + 1] * (1 - part) + tokens.xy[b + 1] * part) / 32767];
  };

  function draw() {
    dirty = false;
    const size = Math.min(9, (visible.length > 20_000 ? 2.6 : visible.length > 2000 ? 4 : 6) + 0.8 * Math.max(0, Math.log2(camera.scale / 400)));
    renderer?.draw(camera, state.frame, size);
    const chosen = state.token;
    drawOverlay(overlay, camera, tokens, placeOf, visible, chosen, chosen === null ? [] : neighboursOf(chosen));
    if (box.matches(":focus-visible")) markMiddle(overlay, camera);
  }
  const redraw = () => {
    if (!dirty) requestAnimationFrame(draw);
    dirty = true;
  };
  const moved = () => {
    untouched = false;
    redraw();
  };

  function resize() {
    const ratio = devicePixelRatio || 1;
    [camera.width, camera.height] = [box.clientWidth || 1, box.clientHeight || 1];
    for (const canvas of [points, overlay]) [canvas.width, canvas.height] = [camera.width * ratio, camera.height * ratio];
  }
  const whole_ = () => {
    untouched = true;
    const places = visible.length > 20_000 ? visible.slice(0, 20_000) : visible;
    const found = Array.from(places, placeOf);
    fit(camera, found.map((place) => place[0]), found.map((place) => place[1]));
    redraw();
  };

  function choose() {
    const colouring = colouringOf(state.colour);
    const hidden = state.hiddenClasses;
    const possible = tokens.byCount.filter((id) => tokens.hasPlace[id] && (state.unseen || wasSeen(tokens, id)));
    visible = colouring.classes && hidden.size ? possible.filter((id) => !hidden.has(colouring.of(id))) : possible;
    showLegend(colouring, possible);
    renderer?.setShown(Uint32Array.from(visible).reverse()); // the most frequent on top
    const seen = tokens.state && !state.unseen ? ", only such as training saw" : "";
    const far = tokens.isFar.size ? `, ${whole(tokens.isFar.size)} drawn nearer than they are: see Health` : "";
    $$("shown").textContent = `${whole(visible.length)} of ${whole(tokens.size)} tokens${seen}${far}`;
    grid = null;
    redraw();
  }

  // The visible token nearest to a place on the screen, or null.
  function pick(left, top) {
    grid ??= sorted(visible, placeOf);
    const [x, y] = toPlane(camera, left, top);
    const reach = REACH / camera.scale;
    let [best, least] = [null, reach * reach];
    grid.around(x, y, reach, (id) => {
      const [px, py] = placeOf(id);
      const away = (px - x) ** 2 + (py - y) ** 2;
      if (away < least) [best, least] = [id, away];
    });
    return best;
  }

  function centreOn(id) {
    const [x, y] = placeOf(id);
    const [left, top] = toScreen(camera, x, y);
    const [aside, above] = [Math.min(120, camera.width / 3), Math.min(80, camera.height / 3)]; // as little as needed
    camera.x += (left - Math.min(Math.max(left, aside), camera.width - aside)) / camera.scale;
    camera.y -= (top - Math.min(Math.max(top, above), camera.height - above)) / camera.scale;
    moved();
  }

  async function save() {
    draw();
    const both = element("canvas");
    [both.width, both.height] = [points.width, points.height];
    const pen = both.getContext("2d");
    pen.fillStyle = styleOf("--card");
    pen.fillRect(0, 0, both.width, both.height);
    pen.drawImage(points, 0, 0);
    pen.drawImage(overlay, 0, 0);
    saveAs(`${meta.title}-map.png`, await new Promise((done) => both.toBlob(done)));
  }

  listen(["colour", "theme"], () => renderer?.setColours(paint(tokens, colouringOf(state.colour))));
  listen(["colour", "theme", "unseen", "hiddenClasses"], choose);
  listen(["unseen"], () => untouched && whole_());
  listen(["frame"], () => (grid = null));
  listen(["token", "before", "frame", "theme", "names"], redraw);
  listen(["token"], () => state.token !== null && tokens.hasPlace[state.token] && centreOn(state.token));
  renderer?.setColours(paint(tokens, colouringOf(state.colour)));
  resize();
  choose();
  whole_();
  new ResizeObserver(() => {
    resize();
    if (untouched) whole_();
    else redraw();
  }).observe(box);
  watchPointer(box, camera, pick, moved, tokens);
  watchKeys(box, camera, pick, moved, whole_);
  const middle = (factor) => () => {
    zoomAt(camera, camera.width / 2, camera.height / 2, factor);
    moved();
  };
  $$("zoom-in").addEventListener("click", middle(1.6));
  $$("zoom-out").addEventListener("click", middle(1 / 1.6));
  $$("whole").addEventListener("click", whole_);
  for (const turn of ["focus", "blur"]) box.addEventListener(turn, redraw); // the middle is marked for who moves by keys
  $$("save-map").addEventListener("click", save);
  return { draw, pick, save, screenOf: (id) => toScreen(camera, ...placeOf(id)), placeOf };
}

// Ids by the cell of a grid in which they lie.
function sorted(ids, placeOf) {
  const cellOf = (value) => Math.min(CELLS - 1, Math.max(0, Math.floor((value + 1) * (CELLS / 2))));
  const starts = new Uint32Array(CELLS * CELLS + 1);
  const cells = new Uint32Array(ids.length);
  for (let i = 0; i < ids.length; i++) {
    const [x, y] = placeOf(ids[i]);
    cells[i] = cellOf(y) * CELLS + cellOf(x);
    starts[cells[i] + 1]++;
  }
  for (let cell = 0; cell < CELLS * CELLS; cell++) starts[cell + 1] += starts[cell];
  const next = starts.slice();
  const held = new Uint32Array(ids.length);
  for (let i = 0; i < ids.length; i++) held[next[cells[i]]++] = ids[i];
  return {
    around(x, y, reach, tell) {
      for (let row = cellOf(y - reach); row <= cellOf(y + reach); row++) {
        const line = row * CELLS;
        const end = starts[line + cellOf(x + reach) + 1];
        for (let at = starts[line + cellOf(x - reach)]; at < end; at++) tell(held[at]);
      }
    },
  };
}

function watchPointer(box, camera, pick, moved, tokens) {
  const held = new Map(); // pointers that are down: one moves the map, two zoom it
  let travelled = 0;
  const where = (event) => {
    const frame = box.getBoundingClientRect();
    return [event.clientX - frame.left, event.clientY - frame.top];
  };
  box.addEventListener("pointerdown", (event) => {
    if (event.target.closest("button")) return;
    box.setPointerCapture(event.pointerId);
    held.set(event.pointerId, where(event));
    travelled = 0;
  });
  box.addEventListener("pointermove", (event) => {
    const now = where(event);
    const before = held.get(event.pointerId);
    if (!before) {
      if (!state.playing) showHint(tokens, pick(...now), now, camera);
      return;
    }
    if (held.size === 2) {
      const other = [...held].find(([id]) => id !== event.pointerId)[1];
      const factor = Math.hypot(now[0] - other[0], now[1] - other[1]) / (Math.hypot(before[0] - other[0], before[1] - other[1]) || 1);
      zoomAt(camera, (now[0] + other[0]) / 2, (now[1] + other[1]) / 2, factor);
    } else {
      camera.x -= (now[0] - before[0]) / camera.scale;
      camera.y += (now[1] - before[1]) / camera.scale;
    }
    travelled += Math.abs(now[0] - before[0]) + Math.abs(now[1] - before[1]);
    held.set(event.pointerId, now);
    moved();
  });
  const release = (event) => {
    if (held.delete(event.pointerId) && event.type === "pointerup" && travelled < 5) {
      const id = pick(...where(event));
      if (id !== null) change({ token: id });
    }
  };
  box.addEventListener("pointerup", release);
  box.addEventListener("pointercancel", release);
  box.addEventListener("pointerleave", () => ($$("hint").hidden = true));
  box.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      zoomAt(camera, ...where(event), Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0018)));
      moved();
    },
    { passive: false },
  );
}

function watchKeys(box, camera, pick, moved, showAll) {
  const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
  box.addEventListener("keydown", (event) => {
    if (event.key === "Home") {
      event.preventDefault();
      return showAll(); // and it stays whole, whatever its size
    }
    if (event.ctrlKey || event.metaKey || event.altKey) return; // the browser's own: it zooms, and goes back
    if (steps[event.key]) {
      camera.x += (steps[event.key][0] * 60) / camera.scale;
      camera.y += (steps[event.key][1] * 60) / camera.scale;
    } else if (event.key === "+" || event.key === "=") zoomAt(camera, camera.width / 2, camera.height / 2, 1.4);
    else if (event.key === "-") zoomAt(camera, camera.width / 2, camera.height / 2, 1 / 1.4);
    else if (event.key === "Enter") {
      const id = pick(camera.width / 2, camera.height / 2);
      if (id !== null) change({ token: id });
    } else return;
    event.preventDefault();
    moved();
  });
}

function showHint(tokens, id, [left, top], camera) {
  const hint = $$("hint");
  hint.hidden = id === null;
  $$("map").style.cursor = id === null ? "" : "pointer";
  if (id === null) return;
  const facts = [`id ${id}`, `bytes ${hex(tokens.bytes(id)) || "none"}`];
  if (tokens.count) facts.push(`count ${whole(tokens.count[id])}`);
  facts.push(`norm ${tokens.norm[id].toPrecision(4)}`, meta.kinds[tokens.kind[id]]);
  hint.replaceChildren(named(tokens.label(id)), facts.join(" · "));
  hint.style.left = `${Math.min(left + 14, Math.max(0, camera.width - 294))}px`;
  hint.style.top = `${top + 80 > camera.height ? top - 70 : top + 14}px`;
}
